"""`wit verify` on a whole corpus, and on copies of it with one thing wrong."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline import catalogue
from pipeline.verify import _shard_problems, main, verify
from wit import manifest
from wit.errors import CorpusError
from wit.shard import Sample, load_index, read_shard, write_shard


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A copy that a test may harm."""
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder, ignore=shutil.ignore_patterns("stages"))
    return folder


def renew(corpus: Path) -> None:
    """Write the manifest anew over what lies there: the files are then as they were written,
    and only their content can be at odds."""
    with catalogue.open_catalogue(corpus) as con:
        digests = catalogue.digest(con)
    old = manifest.read(corpus)
    new = dataclasses.replace(old, files=manifest.scan(corpus), catalogue=digests)
    manifest.write(corpus, new)


def test_a_sound_corpus(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus)]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    samples = load_index(corpus).num_rows
    assert samples > 50
    assert f"{corpus}: sound" in line
    assert f" {samples:,} samples" in line


def test_work_tables_may_go(copy: Path) -> None:
    (copy / "log.jsonl").unlink()
    assert "sound" in verify(copy)


def flip_a_byte(corpus: Path) -> str:
    path = corpus / "shards" / "00000.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "00000.tar: its sha256 differs"


def cut_a_table(corpus: Path) -> str:
    path = next((corpus / "pairs").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-10])
    return f"{path.name}: {path.stat().st_size} bytes, not"


def remove_a_shard(corpus: Path) -> str:
    (corpus / "shards" / "00000.tar").unlink()
    return "00000.tar: missing"


def add_a_shard(corpus: Path) -> str:
    (corpus / "shards" / "00009.tar").write_bytes(b"")
    return "00009.tar: not in the manifest"


def remove_the_catalogue(corpus: Path) -> str:
    (corpus / "corpus.duckdb").unlink()
    return "corpus.duckdb: missing"


def change_the_catalogue(corpus: Path) -> str:
    with duckdb.connect(str(corpus / "corpus.duckdb")) as con:
        con.execute("UPDATE pairs SET text = text || '!' WHERE row = 3")
    return "corpus.duckdb: table pairs differs"


def empty_the_catalogue(corpus: Path) -> str:
    (corpus / "corpus.duckdb").write_bytes(b"no database")
    return "corpus.duckdb: "


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_byte,
        cut_a_table,
        remove_a_shard,
        add_a_shard,
        remove_the_catalogue,
        change_the_catalogue,
        empty_the_catalogue,
    ],
)
def test_changes_since_the_manifest(copy: Path, harm: Callable[[Path], str]) -> None:
    says = harm(copy)
    with pytest.raises(CorpusError) as caught:
        verify(copy)
    assert says in str(caught.value)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(corpus: Path, change: Callable[[list[Sample]], list[Sample]]) -> None:
    path = corpus / "shards" / "00000.tar"
    write_shard(path, change(list(read_shard(path))))


def swap_two_samples(corpus: Path) -> str:
    rewrite(corpus, lambda samples: [samples[1], samples[0], *samples[2:]])
    return "00000.tar: its keys are not those of index.parquet"


def lose_a_sample(corpus: Path) -> str:
    rewrite(corpus, lambda samples: samples[:-1])
    return "00000.tar: its keys are not those of index.parquet"


def grow_a_caption(corpus: Path) -> str:
    def change(samples: list[Sample]) -> list[Sample]:
        first = dataclasses.replace(samples[0], text=samples[0].text + " and more")
        return [first, *samples[1:]]

    rewrite(corpus, change)
    return "doesn't lie where index.parquet says"


def part_the_members(corpus: Path) -> str:
    """The last member of all goes to the front."""
    path = corpus / "shards" / "00000.tar"
    data = path.read_bytes()
    index = load_index(corpus).to_pylist()
    start = index[-1]["text_offset"] - 512
    path.write_bytes(data[start : start + 1024] + data[:start] + data[start + 1024 :])
    return "are not adjacent"


def cut_the_end(corpus: Path) -> str:
    path = corpus / "shards" / "00000.tar"
    path.write_bytes(path.read_bytes()[:-20_480])
    return "00000.tar: "


def miscount(corpus: Path) -> str:
    path = corpus / "shards" / "sizes.json"
    path.write_text(json.dumps({"00000.tar": 7}))
    return "sizes.json says 7"


def forget_a_failure(corpus: Path) -> str:
    path = corpus / "shards" / "00000.parquet"
    table = pq.read_table(path)
    keep = [i for i, status in enumerate(table["status"].to_pylist()) if status == "success"]
    pq.write_table(table.take(keep), path)
    return "00000_stats.json: its counts don't add up"


def shorten_the_index(corpus: Path) -> str:
    path = corpus / "shards" / "index.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    return "index.parquet: "


def leave_a_temporary(corpus: Path) -> str:
    (corpus / "shards" / "00000.tar.tmp").write_bytes(b"")
    return "00000.tar.tmp: not part of a corpus"


@pytest.mark.parametrize(
    "harm",
    [
        swap_two_samples,
        lose_a_sample,
        grow_a_caption,
        part_the_members,
        cut_the_end,
        miscount,
        forget_a_failure,
        shorten_the_index,
        leave_a_temporary,
    ],
)
def test_a_corpus_that_was_wrong_from_the_start(copy: Path, harm: Callable[[Path], str]) -> None:
    says = harm(copy)
    renew(copy)
    with pytest.raises(CorpusError) as caught:
        verify(copy)
    assert says in str(caught.value)


def test_any_flipped_byte_is_found(copy: Path) -> None:
    rng = random.Random(0)
    paths = [*manifest.covered_files(copy), copy / "manifest.json", copy / "provenance.parquet"]
    assert len(paths) >= 8
    for path in paths:
        whole = path.read_bytes()
        for _ in range(2):
            at = rng.randrange(4, len(whole) - 16) if len(whole) > 40 else 0
            if path.name == "provenance.parquet":
                at = min(at, len(whole) // 2)  # its pages; its footer is not covered
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            with pytest.raises(CorpusError, match=path.name.replace("manifest.json", "manifest")):
                verify(copy)
        path.write_bytes(whole)
    assert "sound" in verify(copy)


def test_several_problems_are_counted(copy: Path) -> None:
    (copy / "config.json").unlink()
    (copy / "shards" / "sizes.json").unlink()
    with pytest.raises(CorpusError, match=r"config\.json: missing \(and 1 more\)"):
        main([str(copy)])


def test_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no finished corpus"):
        main([str(tmp_path / "absent")])


@pytest.mark.parametrize(
    "entry", [{"../../x.tar": 1}, {"00000.tar": "1"}, {"/x.tar": 1}, {"x": []}]
)
def test_sizes_that_a_stranger_wrote(tmp_path: Path, entry: dict[str, object]) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps(entry))
    with pytest.raises(CorpusError, match=r"sizes\.json: .* is no shard and its samples"):
        list(_shard_problems(tmp_path))
