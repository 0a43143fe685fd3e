"""The words of all captions with the rows they stand in, in a file beside the corpus.

DuckDB's own full-text extension is downloaded when it is first used, which a machine without a
network can't do, and it keeps its index in the database, which is read-only here. One table
ordered by word does the same: a look-up reads a few blocks.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.catalogue import INDEXES, NAME
from pipeline.config import EngineConfig
from pipeline.engine import connect, engine_errors, execute, sql_text
from wit.config import fingerprint
from wit.progress import Progress, duration
from wit.text import NORMALISER_VERSION

VERSION = 1  # rises when the table changes


def state_of(corpus: Path) -> str:
    """16 hex digits of the manifest: what indexes are named by, so that none is ever stale."""
    return fingerprint((corpus / "manifest.json").read_text("utf-8"))


def postings(corpus: Path, state: str, engine: EngineConfig) -> Path:
    """The database with the table `postings`, built where it is not there yet.

    Raises:
        WitError: the disk is full, or the memory too small.
    """
    folder = corpus / INDEXES
    folder.mkdir(exist_ok=True)
    target = folder / f"words-{state}-{NORMALISER_VERSION}.{VERSION}.duckdb"
    for stale in folder.glob("words-*"):
        if stale != target:
            stale.unlink()
    if target.is_file():
        return target
    progress = Progress("words")
    temporary, spill = target.with_suffix(".tmp"), folder / ".spill"
    with engine_errors("words", engine), connect(engine, spill, temporary) as con:
        quoted = str(corpus / NAME).replace("'", "''")
        con.execute(f"ATTACH '{quoted}' AS catalogue (READ_ONLY)")
        query = f"CREATE TABLE postings AS {sql_text('browse_postings.sql')}"
        execute(con, query, progress=progress)
        rows = con.table("postings").count("*").fetchall()[0][0]
        con.execute("CHECKPOINT")
    shutil.rmtree(spill, ignore_errors=True)
    temporary.replace(target)
    progress.finish(f"{rows:,} words of captions in {duration(progress.seconds)}")
    return target
