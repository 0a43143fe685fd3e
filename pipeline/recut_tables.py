"""What lies around shards that were cut from those of other corpora: pairs, provenance, overlaps
and the catalogue, carried over from the sources for the samples that were taken."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from pipeline import catalogue
from pipeline.config import EngineConfig
from pipeline.engine import connect, copy
from wit.errors import CorpusError
from wit.manifest import PROVENANCE
from wit.progress import Progress

_CARRIED = ("pairs", "matches", "queries", "eval_overlaps")


def write_tables(
    corpora: Sequence[Path], out: Path, stage: dict[str, Any], settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write all tables of the corpus `out`, whose shards stand; returns the catalogue's digests.

    Args:
        stage: the entry of the manifest: name, rows_in, rows_out.
        settings: of the first source.

    Raises:
        CorpusError: a source has no catalogue, or one of another version.
    """
    spill, engine = out / ".spill", EngineConfig()
    for name in ("pairs", "overlaps"):
        (out / name).mkdir()
    made = {name: str(spill / f"{name}.parquet") for name in ("queries", "match", "clean")}
    made["pairs"] = str(out / "pairs" / "00000.parquet")
    made["overlaps"] = str(out / "overlaps" / "00000.parquet")
    with connect(engine, spill) as con:
        spill.mkdir(exist_ok=True)
        _attach(con, corpora)
        index = {"index": str(out / "shards" / "index.parquet")}
        copy(con, "recut_pairs.sql", index, Path(made["pairs"]))
        for name, table in (
            ("queries", "queries"),
            ("matches", "match"),
            ("words", "clean"),
            ("overlaps", "overlaps"),
        ):
            copy(con, f"recut_{name}.sql", made, Path(made[table]))
        if _provenance(con, corpora):
            copy(con, "recut_provenance.sql", made, out / PROVENANCE)
    params: dict[str, dict[str, Any]] = {
        "pairs": {"pairs": made["pairs"]},
        "matches": {"match": made["match"]},
        "queries": {"queries": made["queries"]},
        "shards": {"index": catalogue.index_files(out)},
        "eval_overlaps": {"overlaps": made["overlaps"]},
        "words": {"clean": made["clean"]},
        "duplicates": {"keep": settings["dedupe"]["keep"]},
    }
    reports = catalogue.reports([(stage["name"], stage["rows_in"], stage["rows_out"])])
    meanings, progress = catalogue.meanings(settings["drop"]), Progress("catalogue")
    catalogue.write(out, engine, params, reports, meanings, progress)
    progress.clear()
    shutil.rmtree(spill, ignore_errors=True)
    with catalogue.open_catalogue(out) as con:
        return catalogue.digest(con)


def _provenance(con: duckdb.DuckDBPyConnection, corpora: Sequence[Path]) -> bool:
    """A view all_provenance over what the sources have of it, if any."""
    parts = []
    for nth, corpus in enumerate(corpora):
        path = glob.escape(str(corpus / PROVENANCE)).replace("'", "''")
        if (corpus / PROVENANCE).is_file():
            parts.append(f"SELECT {nth} AS nth, * FROM read_parquet('{path}')")
    if parts:
        con.execute(f"CREATE TEMP VIEW all_provenance AS {' UNION ALL BY NAME '.join(parts)}")
    return bool(parts)


def _attach(con: duckdb.DuckDBPyConnection, corpora: Sequence[Path]) -> None:
    """Views all_NAME over the catalogues of the sources, with the number of the source as nth."""
    for nth, corpus in enumerate(corpora):
        catalogue.open_catalogue(corpus).close()  # says what is wrong with it
        path = str(corpus / catalogue.NAME).replace("'", "''")
        con.execute(f"ATTACH '{path}' AS source{nth} (READ_ONLY)")
    for name in _CARRIED:
        parts = [f"SELECT {nth} AS nth, * FROM source{nth}.{name}" for nth in range(len(corpora))]
        try:
            con.execute(f"CREATE TEMP VIEW all_{name} AS {' UNION ALL BY NAME '.join(parts)}")
        except duckdb.Error as error:
            names = ", ".join(map(str, corpora))
            first = str(error).splitlines()[0]
            raise CorpusError(f"{names}: a catalogue of another version: {first}") from None
