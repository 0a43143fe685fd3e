"""Run one stage: fingerprint, skip what stands, else build aside, check, rename, publish.

A stage stands when CORPUS/stages/NAME/stage.json holds its fingerprint and every file that it
lists is there in full. A build happens in NAME.FINGERPRINT.tmp and is renamed when it is whole
and on disk, so a run that is killed at any moment leaves either the old result or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import duckdb

from pipeline.config import ShardsConfig
from pipeline.context import Context, Counts, Stage
from pipeline.engine import connect, engine_errors, sql_text
from pipeline.files import InputDigests
from pipeline.parts import Part, file_ranges, key_parts, link_standing, make_all
from wit.config import fingerprint, write_json
from wit.progress import Progress
from wit.schema import Reason

MARKER = "stage.json"
FIRST = "10_ingest"  # the stage whose files the others are cut by
FORMAT = 2  # of the work tables; raise it to rebuild every corpus


@dataclass(frozen=True)
class Result:
    """A stage that stands: its fingerprint, its folder, its counts."""

    name: str
    fingerprint: str
    folder: Path
    counts: Counts
    built: bool
    seconds: float = 0.0
    parts: Mapping[str, str] = field(default_factory=dict)


class Runner:
    """Runs stages in order on one corpus directory; keeps the results of earlier ones."""

    def __init__(self, config: ShardsConfig, stream: TextIO | None = None) -> None:
        """With `stream`, progress goes there in place of stderr."""
        self.config, self.corpus, self._stream = config, config.corpus, stream
        self.stages = config.corpus / "stages"
        self.stages.mkdir(parents=True, exist_ok=True)
        self.results: dict[str, Result] = {}
        self._digests = InputDigests(self.stages / "inputs.json")

    def run(self, stage: Stage) -> Result:
        """Bring one stage up to date.

        Raises:
            WitError: bad input, full disk, too little memory.
            AssertionError: the stage lost or invented a row; a bug.
        """
        digests, identity = self._look(stage)
        print_as = fingerprint(identity)
        folder = self.stages / stage.name
        if (standing := self._standing(stage, folder, print_as)) is not None:
            _publish(stage, folder, self.corpus)
            result = standing
        else:
            # From here on the corpus is not what its manifest says.
            (self.corpus / "manifest.json").unlink(missing_ok=True)
            result = self._build(stage, folder, print_as, identity, digests)
        self.results[stage.name] = result
        return result

    def take_up(self, stage: Stage) -> bool:
        """Take the result of a stage that stands; False if it is still to be built."""
        print_as = fingerprint(self._look(stage)[1])
        standing = self._standing(stage, self.stages / stage.name, print_as)
        if standing is not None:
            self.results[stage.name] = standing
        return standing is not None

    def context(self, stage: Stage) -> Context:
        """What a stage that is to be built gets; its folder may hold the work of other runs."""
        digests, identity = self._look(stage)
        folder = self.stages / stage.name
        return self._context(stage, folder, fingerprint(identity), digests)

    def _look(self, stage: Stage) -> tuple[dict[Path, str], dict[str, Any]]:
        digests = {path: self._digests(path) for path in stage.files(self.config)}
        return digests, self._identity(stage, list(digests.values()))

    def _identity(self, stage: Stage, digests: list[str]) -> dict[str, Any]:
        files = list(digests)
        inputs = {name: self.results[name].folder for name in stage.inputs}
        with engine_errors(stage.name, self.config.engine):
            images = stage.images(self.config, inputs)
        if images:
            files.append(self._digests.images(images, self.config.fetch.max_bytes))
        own = (stage.build,) if isinstance(stage.build, str) else ()
        return {
            "format": FORMAT,
            "name": stage.name,
            "version": stage.version,
            "sql": [sql_text(file) for file in (*own, *stage.sql)],
            "macros": stage.macros(self.config),
            "params": stage.params(self.config),
            "files": files,
            "inputs": {name: self.results[name].fingerprint for name in stage.inputs},
        }

    def _standing(self, stage: Stage, folder: Path, print_as: str) -> Result | None:
        temporary = self._temporary(stage, print_as)
        if (temporary / MARKER).exists():  # killed between the last check and the rename
            _replace(temporary, folder)
        record = _read_marker(folder)
        if record.get("fingerprint") != print_as:
            return None
        for name, size in record["files"].items():
            if not _has(folder / name, size) and not _has(self.corpus / name, size):
                return None
        counts = Counts(record["rows_in"], record["rows_out"], record["reasons"])
        parts = record["parts"]
        return Result(stage.name, print_as, folder, counts, built=False, parts=parts)

    def _build(
        self,
        stage: Stage,
        folder: Path,
        print_as: str,
        identity: dict[str, Any],
        digests: Mapping[Path, str],
    ) -> Result:
        context = self._context(stage, folder, print_as, digests)
        out, progress = context.out, context.progress
        with engine_errors(stage.name, self.config.engine):
            counts = self._produce(stage, context, identity)
        _remove_scratch(out)
        files = _sync(out)
        record = {
            "name": stage.name,
            "fingerprint": print_as,
            "rows_in": counts.rows_in,
            "rows_out": counts.rows_out,
            "reasons": dict(counts.reasons),
            "files": files,
            "parts": context.parts,
        }
        write_json(record, out / MARKER)
        _sync_folder(out)
        _replace(out, folder)
        for stale in sorted(self.stages.glob(f"{stage.name}.*.tmp")):
            _remove(stale)
        _publish(stage, folder, self.corpus)
        dropped = counts.rows_in - counts.rows_out
        rows = f"{counts.rows_in:>13,} rows {f'{dropped:,} dropped' if dropped else '':>20}"
        progress.finish(f"{rows} {progress.seconds:8.1f} s")
        return Result(stage.name, print_as, folder, counts, True, progress.seconds, context.parts)

    def _context(
        self, stage: Stage, folder: Path, print_as: str, digests: Mapping[Path, str]
    ) -> Context:
        out = self._temporary(stage, print_as)
        out.mkdir(exist_ok=True)
        return Context(
            self.config,
            stage.params(self.config),
            {name: self.results[name].folder for name in stage.inputs},
            out,
            self.corpus,
            Progress(stage.name, self._stream),
            digests,
            rows=self.results[FIRST].counts.rows_out if FIRST in self.results else 0,
            standing=_read_marker(folder).get("parts", {}),
            folder=folder,
        )

    def _produce(self, stage: Stage, context: Context, identity: dict[str, Any]) -> Counts:
        if isinstance(stage.build, str):
            parts = self._parts(stage, context, identity)
            make_all(parts, self.config.engine, context.progress, stage.python)
            counts = None
        else:
            counts = stage.build(context)
        _remove_scratch(context.out)  # before counting: a glob finds hidden files too
        with connect(self.config.engine, context.out / ".spill") as con:
            table = str(context.out / stage.table)
            counted = counts or count(con, table, self.config.drop)
            if stage.judges:
                judged = str(self.results[stage.judges].folder / "*.parquet")
                check_coverage(con, stage, judged, table, counted)
        return counted

    def _parts(self, stage: Stage, context: Context, identity: dict[str, Any]) -> list[Part]:
        """How the work of a SQL stage is cut (`Stage.split`)."""
        macros = stage.macros(self.config)
        tables = {_short(name): context.table(name) for name in stage.inputs}

        def part(name: str, params: dict[str, Any]) -> Part:
            given = {**tables, **context.params, **params}
            target = context.out / name
            given = {"file": stage.build, "macros": macros, "params": given}
            return Part(target, stage.make(self.config), given)

        if stage.split == "":
            return [part("rows.parquet", {})]
        ingest = self.results[FIRST]
        if stage.split == "keys":
            return [part(*each) for each in key_parts(context.rows, self.config.engine).items()]
        aligned = [name for name in stage.inputs if self.results[name].parts]
        found = []
        for name, (first, last) in file_ranges(ingest.folder).items():
            files = {_short(each): str(context.inputs[each] / name) for each in aligned}
            prints = {
                each: self.results[each].parts[name] if each in aligned else whole
                for each, whole in identity["inputs"].items()
            }
            context.parts[name] = fingerprint({**identity, "inputs": prints})
            link_standing(context, context.out / name)
            found.append(part(name, {**files, "first": first, "last": last}))
        return found

    def _temporary(self, stage: Stage, print_as: str) -> Path:
        return self.stages / f"{stage.name}.{print_as}.tmp"


def _short(stage_name: str) -> str:
    return stage_name.partition("_")[2]


def count(con: duckdb.DuckDBPyConnection, table: str, custom: Iterable[str] = ()) -> Counts:
    """Rows of a work table: those without a reason go on, the others are counted by reason.

    Raises:
        AssertionError: a reason outside `wit.schema.Reason` and the user's own.
    """
    rows = con.read_parquet(table)
    if "reason" not in rows.columns:
        total = rows.count("*").fetchall()[0][0]
        return Counts(total, total)
    groups = rows.aggregate("reason, count(*)", "reason").order("reason").fetchall()
    known = {*Reason, *custom}
    reasons = {reason: number for reason, number in groups if reason is not None}
    assert reasons.keys() <= known, f"unknown reasons: {sorted(reasons.keys() - known)}"
    total = sum(number for _, number in groups)
    return Counts(total, total - sum(reasons.values()), reasons)


def check_coverage(
    con: duckdb.DuckDBPyConnection, stage: Stage, judged: str, table: str, counts: Counts
) -> None:
    """Assert that a decision stage wrote one line for each row that reached it, no other."""
    received = con.read_parquet(judged)
    if "reason" in received.columns:
        received = received.filter("reason IS NULL")
    received.select("row").create_view("received")
    con.read_parquet(table).select("row").create_view("decided")
    wanted, got, missing, twice = con.execute(sql_text("check_coverage.sql")).fetchall()[0]
    assert (got, missing, twice) == (wanted, 0, 0), (
        f"{stage.name}: {wanted} rows came, {got} were judged, {missing} are missing,"
        f" {twice} stand twice"
    )
    assert counts.rows_in == wanted, f"{stage.name}: counted {counts.rows_in} of {wanted} rows"


def _read_marker(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / MARKER).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return record


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_scratch(folder: Path) -> None:
    """Hidden files, and what a kill left of a marker that was being written."""
    for path in sorted([*folder.glob(".*"), *folder.glob(f"{MARKER}.*.tmp")]):
        _remove(path)


def _replace(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an older one."""
    if old.exists():
        shutil.rmtree(old)
    new.rename(old)
    _sync_folder(old.parent)


def _publish(stage: Stage, folder: Path, corpus: Path) -> None:
    """Move the public parts to the top of the corpus; harmless to repeat after a kill."""
    for name in stage.publish:
        if (folder / name).exists():
            _remove(corpus / name)
            (folder / name).rename(corpus / name)
            _sync_folder(corpus)


def _sync(folder: Path) -> Mapping[str, int]:
    """fsync everything below a folder; returns relative path -> bytes."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            _sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
