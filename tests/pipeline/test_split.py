"""The split by page: whole pages are held out, in shards of their own."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.build import build
from pipeline.config import EngineConfig, ShardsConfig
from pipeline.optout import parse
from pipeline.removal import remove
from pipeline.report.source import opened
from pipeline.reshard import main as reshard
from pipeline.verify import verify
from wit.report_command import ReportConfig
from wit.shard import load_index, read_shard


def pages(folder: Path, side: str) -> Counter[str]:
    rows = pq.read_table(folder / "pairs").to_pylist()
    return Counter(
        row["url"].partition("?")[0].rpartition("/")[0] for row in rows if row["split"] == side
    )


def test_no_page_is_on_both_sides(split: tuple[ShardsConfig, Path], corpus: Path) -> None:
    _, folder = split
    rows = pq.read_table(folder / "pairs").to_pylist()
    kept = [row for row in rows if row["verdict"] == "kept"]
    assert {row["split"] for row in rows if row["verdict"] == "dropped"} == {None}
    assert {row["split"] for row in kept} == {"train", "val"}
    train, val = pages(folder, "train"), pages(folder, "val")
    assert not train.keys() & val.keys()
    assert 0 < val.total() < 0.6 * len(kept)
    for name, side in (("shards", "train"), ("val", "val")):
        index = load_index(folder / name)
        wanted = {row["uid"]: row["key"] for row in kept if row["split"] == side}
        assert dict(zip(*(index[c].to_pylist() for c in ("uid", "key")), strict=True)) == wanted
        tars = sorted((folder / name).glob("*.tar"))
        assert {s.key for tar in tars for s in read_shard(tar)} == set(wanted.values())
    whole = {row["uid"] for row in pq.read_table(corpus / "pairs").to_pylist() if row["key"]}
    assert {row["uid"] for row in kept} == whole
    assert "sound" in verify(folder)
    assert {row["split"] for row in pq.read_table(corpus / "pairs").to_pylist()} == {None, "train"}


def test_the_report_has_pictures_of_both_sides(
    split: tuple[ShardsConfig, Path], tmp_path: Path
) -> None:
    rows = pq.read_table(split[1] / "pairs").to_pylist()
    kept = [row["row"] for row in sorted(rows, key=lambda row: str(row["split"])) if row["key"]]
    kept = [*kept[:3], *kept[-3:]]
    bare = tmp_path / "corpus"  # the pictures can come from the shards alone
    shutil.copytree(split[1], bare, ignore=shutil.ignore_patterns("stages"))
    with opened(ReportConfig(paths=[bare]), EngineConfig(threads=1), tmp_path / "x") as source:
        assert set(source.pictures(source.rows(kept))) == set(kept)


def test_what_follows_knows_both_sides(
    split: tuple[ShardsConfig, Path], corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    config, folder = split[0], tmp_path / "corpus"
    shutil.copytree(split[1], folder)
    config = config.model_copy(update={"corpus": folder})
    held_out = load_index(folder / "val")
    assert reshard([str(folder), "--out", str(tmp_path / "new")]) == 0
    assert f"{held_out.num_rows} held_out" in capsys.readouterr().out
    uid = held_out["uid"].to_pylist()[0]
    assert "1 pairs removed from 1 shards" in remove(folder, parse([uid], "test"))
    assert uid not in load_index(folder / "val")["uid"].to_pylist()
    assert "sound" in verify(folder)
    build(config.model_copy(update={"pack": ShardsConfig().pack}))  # and back again
    assert not (folder / "val").exists()
    assert "sound" in verify(folder)
    assert load_index(folder).num_rows == load_index(corpus).num_rows - 1


def test_pages_that_the_metadata_name(run_until: Any, tmp_path: Path) -> None:
    lines = [f"http://h{i}.example/{i}.jpg\ta dog {i}\thttp://p.example/{i % 3}" for i in range(30)]
    (tmp_path / "rows.tsv").write_text("\n".join(["url\tcaption\tPage_URL", *lines]))
    found = run_until("10_ingest", input=[tmp_path / "rows.tsv"])("10_ingest")
    assert [row["page"] for row in found] == [f"http://p.example/{i % 3}" for i in range(30)]
