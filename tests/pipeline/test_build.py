"""A whole corpus: built once, kept, repaired, guarded against a second run and wrong folders."""

from __future__ import annotations

import fcntl
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.build import build
from pipeline.catalogue import digest, open_catalogue
from pipeline.config import ShardsConfig
from pipeline.run import main
from wit import manifest
from wit.errors import ConfigError, CorpusError
from wit.schema import PAIRS, REASONS


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A corpus that a test may change."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


def rebuild(sample: ShardsConfig, folder: Path, **sections: Any) -> list[str]:
    """Build again; returns the stages that were built."""
    build(sample.model_copy(update={"corpus": folder, **sections}))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = max(i for i, line in enumerate(lines) if "run" in line)
    return [line["stage"] for line in lines[last + 1 :] if line["built"]]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.jsonl", "corpus.duckdb")
    }


def test_pairs_hold_every_row_and_the_schema(corpus: Path, sample: ShardsConfig) -> None:
    table = pq.read_table(corpus / "pairs")
    assert [(f.name, f.type) for f in table.schema] == [(name, kind) for name, kind, _ in PAIRS]
    given = pq.read_table(sample.input[0])
    assert table.column("row").to_pylist() == list(range(given.num_rows))
    assert table.column("url").to_pylist() == given.column("url").to_pylist()
    assert table.column("raw_text").to_pylist() == given.column("text").to_pylist()
    for row in table.to_pylist():
        kept = row["verdict"] == "kept"
        assert kept == (row["reason"] is None) == (row["stage"] is None)
        assert kept == (row["key"] is not None) == (row["shard"] is not None)
        assert kept or row["reason"] in set(REASONS)
        assert not kept or (row["sha256"] is not None and row["width"] > 0)
        assert (row["duplicate_of"] is not None) == str(row["reason"]).count("duplicate")
    keys = [row["key"] for row in sorted(table.to_pylist(), key=lambda r: r["rank"]) if row["key"]]
    assert keys == sorted(keys)


def test_the_funnel_has_no_leak(corpus: Path) -> None:
    stages = {stage["name"]: stage for stage in manifest.read(corpus).stages}
    for stage in stages.values():
        assert stage["rows_in"] == stage["rows_out"] + sum(stage["reasons"].values())
    chain = ["30_filter", "40_dedupe", "50_balance", "70_images", "80_pack"]
    for before, after in pairwise(chain):
        assert stages[after]["rows_in"] == stages[before]["rows_out"]
    assert stages["90_pairs"]["rows_in"] == stages["30_filter"]["rows_in"]
    assert stages["90_pairs"]["rows_out"] == stages["80_pack"]["rows_out"]


def test_a_second_run_does_nothing(copy: Path, sample: ShardsConfig, capsys: Any) -> None:
    before = content(copy)
    assert rebuild(sample, copy) == []
    assert "is up to date" in capsys.readouterr().err
    assert content(copy) == before


def test_a_change_at_the_end_leaves_the_download_alone(copy: Path, sample: ShardsConfig) -> None:
    pack = sample.pack.model_copy(update={"shard_size": 50})
    assert rebuild(sample, copy, pack=pack) == ["80_pack", "90_pairs", "95_catalogue"]
    assert manifest.verify(copy) == []
    assert len(list((copy / "shards").glob("*.tar"))) > 1
    with open_catalogue(copy) as con:
        assert manifest.read(copy).catalogue == digest(con)


def test_going_back_gives_the_same_bytes(copy: Path, sample: ShardsConfig) -> None:
    before = content(copy)
    rebuild(sample, copy, pack=sample.pack.model_copy(update={"shard_size": 50}))
    rebuild(sample, copy)
    after = content(copy)
    assert sorted(after) == sorted(before)
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize(
    ("lost", "stage"),
    [
        ("shards/00000.tar", "80_pack"),
        ("pairs", "90_pairs"),
        ("corpus.duckdb", "95_catalogue"),
        ("queries.parquet", "95_catalogue"),
        ("stages/80_pack", "80_pack"),
        ("manifest.json", None),
        ("config.json", None),
    ],
)
def test_what_is_lost_is_made_again(
    copy: Path, sample: ShardsConfig, lost: str, stage: str | None
) -> None:
    before = content(copy)
    if (copy / lost).is_dir():
        shutil.rmtree(copy / lost)
    else:
        (copy / lost).unlink()
    assert rebuild(sample, copy) == ([stage] if stage else [])
    assert content(copy) == before


def test_config_json_holds_what_decides_the_content(corpus: Path, sample: ShardsConfig) -> None:
    found = json.loads((corpus / "config.json").read_text())
    assert found["config"]["balance"] == sample.balance.model_dump()
    assert "resolve" not in found["config"]["fetch"]
    assert "corpus" not in found["config"]
    assert set(found["config"]["engine"]) == {"partition_rows"}


def test_two_runs_at_once_are_refused(copy: Path, sample: ShardsConfig) -> None:
    with (copy / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("4711\n")
        other.flush()
        with pytest.raises(CorpusError, match="process 4711 is building it"):
            rebuild(sample, copy)


def test_the_lock_of_a_dead_process_is_taken_over(copy: Path, sample: ShardsConfig) -> None:
    (copy / ".lock").write_text("4711\n")
    assert rebuild(sample, copy) == []
    assert (copy / ".lock").read_text() == ""


def test_a_folder_that_is_no_corpus_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(CorpusError, match="holds files but no corpus"):
        build(ShardsConfig(input=[tmp_path], corpus=tmp_path))
    with pytest.raises(CorpusError, match="a file: give another"):
        build(ShardsConfig(input=[tmp_path], corpus=tmp_path / "thesis.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="file/corpus: Not a directory: make room or get rights"):
        build(ShardsConfig(input=[tmp_path], corpus=tmp_path / "file" / "corpus"))


def test_the_command_names_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"balance\.cap"):
        main(["--balance.cap", "0"])
    with pytest.raises(ConfigError, match="unknown code 'english'"):
        main(["--input", "x.csv", "--text.languages", "english"])
    with pytest.raises(ConfigError, match="must be host=ADDRESS:PORT"):
        main(["--fetch.resolve", "h.example=localhost"])
    assert not list(tmp_path.iterdir())
