"""Take opted-out pairs out of a finished corpus, without building it again.

Only the shards that hold such pairs are written anew; keys of other samples stay. Their images
are also wiped from the work tables of the download. The list becomes part of the corpus, so a
later `wit shards` keeps to it. A run that is killed is repeated with the same command.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import catalogue, optout, recut
from pipeline.build import locked
from pipeline.config import EngineConfig
from pipeline.engine import connect, copy, sql_text
from pipeline.pack import SPLITS
from pipeline.run_state import FOLDER
from wit import manifest, schema
from wit.config import fingerprint, write_json
from wit.progress import Progress
from wit.schema import Reason
from wit.shard import read_shard, write_shard
from wit.text import words

OLD = ".manifest-before-remove.json"  # while a removal is under way
PAIRS = ("90_pairs", recut.STAGE)  # the stage that counts the pairs, of a build or a cut
STAGES = (
    "70_images",
    "75_cap",
    "80_pack",
    "90_pairs",
    recut.STAGE,
)  # whose counts change as a new build's would


def remove(corpus: Path, wanted: optout.OptOuts) -> str:
    """Apply opt-outs; returns the line that says what was done.

    Raises:
        CorpusError: no finished corpus, or another process is at work on it.
    """
    if not (corpus / OLD).exists():
        manifest.read(corpus)
    with locked(corpus):
        if not (corpus / OLD).exists():
            (corpus / manifest.NAME).rename(corpus / OLD)
        listed = optout.OptOuts(optout.read(corpus).entries | wanted.entries)
        optout.write(corpus, listed)
        return _apply(corpus, listed)


def _apply(corpus: Path, listed: optout.OptOuts) -> str:
    before = manifest.read(corpus, OLD)
    scratch = corpus / ".remove"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    paths = {name: str(scratch / f"{name}.parquet") for name in ("optouts", "removed")}
    pq.write_table(listed.table(), paths["optouts"])
    with connect(EngineConfig(), scratch / "spill") as con:
        pairs = {"pairs": str(corpus / "pairs" / "*.parquet")}
        copy(con, "remove_rows.sql", {**pairs, "optouts": paths["optouts"]}, Path(paths["removed"]))
        removed = pq.read_table(paths["removed"])
        fetched = corpus / "stages" / "60_fetch"
        if (fetched / "rows.parquet").exists():
            tables = {"fetch": str(fetched / "rows.parquet"), "removed": paths["removed"]}
            tables["urls"] = str(corpus / "stages" / "12_urls" / "*.parquet")
            found = con.execute(sql_text("remove_images.sql"), {**pairs, **tables}).fetchall()
            _wipe(fetched / FOLDER, found)
        folders = [corpus / name for name in SPLITS.values() if (corpus / name).is_dir()]
        for left in (path for folder in folders for path in folder.glob("*.tmp")):
            left.unlink()  # of a run that was killed
        shards = [name for folder in folders for name in _rewrite_shards(folder, removed)]
        for path in sorted((corpus / "pairs").glob("*.parquet")):
            new = path.with_suffix(".tmp")
            copy(con, "remove_pairs.sql", {"pairs": str(path), "removed": paths["removed"]}, new)
            new.replace(path)
    (corpus / "report.html").unlink(missing_ok=True)  # it may show what was removed
    shutil.rmtree(corpus / catalogue.INDEXES, ignore_errors=True)  # features of what is removed
    digests = _update_catalogue(corpus)
    kept = pc.sum(pc.equal(pq.read_table(corpus / "pairs")["verdict"], "kept")).as_py() or 0
    stood = next(stage["rows_out"] for stage in before.stages if stage["name"] in PAIRS)
    _write_manifest(corpus, before, stood - kept, digests)
    (corpus / OLD).unlink()
    shutil.rmtree(scratch)
    return f"{corpus}: {stood - kept:,} pairs removed from {len(shards):,} shards"


def _wipe(folder: Path, places: list[tuple[str, int, int]]) -> None:
    """Overwrite images in the tars of the download; sizes and offsets stay."""
    for tar, offset, size in places:
        with (folder / tar).open("r+b") as file:
            file.seek(offset)
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())


def _rewrite_shards(folder: Path, removed: pa.Table) -> list[str]:
    """Write the shards without the removed samples; returns their names."""
    uids = set(removed["uid"].to_pylist())
    index = pq.read_table(folder / "index.parquet")
    concerned = pc.is_in(index["uid"], pa.array(sorted(uids), pa.string()))
    names = sorted(set(index["shard"].filter(concerned).to_pylist()))
    sizes = json.loads((folder / "sizes.json").read_bytes())
    tables, progress = {}, Progress("remove")
    for done, name in enumerate(sizes):
        progress(done, len(sizes), "shards")
        mine = index.filter(pc.equal(index["shard"], name))
        if name in names:
            kept = (s for s in read_shard(folder / name) if s.meta.get("uid") not in uids)
            mine = write_shard(folder / name, kept)
            sizes[name] = mine.num_rows
        tables[name] = mine
        if name in names:
            _rewrite_attempts(folder / name.replace(".tar", ".parquet"), uids)
    progress.clear()
    new = pa.concat_tables([schema.INDEX.empty_table(), *tables.values()])
    pq.write_table(new, folder / "index.tmp", compression="zstd")
    (folder / "index.tmp").replace(folder / "index.parquet")
    write_json(sizes, folder / "sizes.json")
    return names


def _rewrite_attempts(path: Path, uids: set[str]) -> None:
    """The table and the statistics beside a shard: a removed sample is a failed download."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        if row["uid"] in uids and row["status"] == "success":
            row |= {"status": "failed_to_download", "error_message": "opted_out", "key": None}
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(rows, table.schema), temporary, compression="zstd")
    temporary.replace(path)
    statuses = Counter(row["status"] for row in rows)
    reasons = Counter(row["error_message"] or "success" for row in rows)
    stats = {name: statuses[name] for name in ("failed_to_download", "failed_to_resize")}
    stats |= {"count": len(rows), "successes": statuses["success"]}
    target = path.with_name(path.stem + "_stats.json")
    write_json({**stats, "status_dict": dict(reasons)}, target)


def _update_catalogue(corpus: Path) -> dict[str, dict[str, Any]]:
    """corpus.duckdb as a new build would make it; returns the digests of its tables."""
    copied = corpus / f".{catalogue.NAME}"
    shutil.copyfile(corpus / catalogue.NAME, copied)
    pairs = {"pairs": str(corpus / "pairs" / "*.parquet")}
    index = {"index": catalogue.index_files(corpus)}
    config = json.loads((corpus / "config.json").read_bytes())["config"]
    keep = {"keep": config["dedupe"]["keep"]}
    with duckdb.connect(str(copied)) as con:
        texts = [text for (text,) in con.execute(sql_text("remove_texts.sql"), pairs).fetchall()]
        con.execute(f"CREATE OR REPLACE TABLE pairs AS {sql_text('95_pairs.sql')}", pairs)
        lost = len(texts)
        if lost:  # else a killed run got here before
            counts = Counter(word for text in texts for word in set(words(text)))
            con.register("lost", pa.table({"word": list(counts), "n": list(counts.values())}))
            con.execute(sql_text("remove_words.sql"))
            con.unregister("lost")
            con.execute(sql_text("remove_stages.sql"), {"n": lost})
        con.execute(sql_text("remove_queries.sql"))
        con.register("meanings", catalogue.meanings(config.get("drop", {})))
        for name in ("shards", "reasons", "domains", "languages", "image_sizes", "duplicates"):
            given = {"shards": index, "duplicates": keep}.get(name)
            con.execute(f"CREATE OR REPLACE TABLE {name} AS {sql_text(f'95_{name}.sql')}", given)
        con.unregister("meanings")
        con.execute(sql_text("95_comments.sql"))
        con.execute("CHECKPOINT")
        digests = catalogue.digest(con)
    copied.replace(corpus / catalogue.NAME)
    return digests


def _write_manifest(
    corpus: Path, before: manifest.Manifest, gone: int, digests: dict[str, dict[str, Any]]
) -> None:
    stages = [dict(stage) for stage in before.stages]
    for stage in stages:
        if stage["name"] in STAGES:
            stage["rows_out"] -= gone
        if stage["name"] in ("75_cap", "80_pack"):
            stage["rows_in"] -= gone
        if stage["name"] in ("70_images", *PAIRS):
            reasons = Counter(stage["reasons"])
            reasons[str(Reason.OPTED_OUT)] += gone
            stage["reasons"] = dict(reasons)
    mark = fingerprint([before.fingerprint, manifest.sha256_file(corpus / optout.NAME)])
    new = manifest.Manifest(mark, before.versions, manifest.scan(corpus), stages, digests)
    manifest.write(corpus, new)
