"""What a stage is, and what a stage function gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config import ShardsConfig
from pipeline.parts import Make, make_sql
from wit.progress import Progress

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Counts:
    """What went into a stage, what came out, and why the rest did not.

    Raises:
        AssertionError: in != out + sum(reasons); a bug of the stage.
    """

    rows_in: int
    rows_out: int
    reasons: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lost = sum(self.reasons.values())
        assert self.rows_in == self.rows_out + lost, f"{self.rows_in} != {self.rows_out} + {lost}"


@dataclass(frozen=True)
class Context:
    """What a stage function works with.

    Attributes:
        config: the whole config; a key that changes the result must be in `params` too.
        params: what `Stage.params` returned, part of the fingerprint.
        inputs: stage name -> folder that holds its *.parquet.
        out: folder to write into. It may hold the partial work of a killed run that had the
            same fingerprint; files whose name starts with "." are not part of the result.
        corpus: top of the corpus, where the published parts of earlier stages lie.
        progress: `progress(done, total)` reports rows while they are worked on.
        digests: the user's files that the stage reads -> sha256.
        rows: rows of the whole input; 0 while it is read.
        standing: work file -> fingerprint, of the result that stands from an earlier run.
        parts: work file -> fingerprint; filled by a function that cuts its work into files.
        folder: where the result that stands lies, and where `out` goes at the end.
    """

    config: ShardsConfig
    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    out: Path
    corpus: Path
    progress: Progress
    digests: Mapping[Path, str] = field(default_factory=dict)
    rows: int = 0
    standing: Mapping[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()

    def table(self, stage: str) -> str:
        """Glob of the work table of an input stage, for `read_parquet($name)`."""
        return str(self.inputs[stage] / "*.parquet")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the configured memory and threads, spilling inside `out`."""
        from pipeline.engine import connect

        return connect(self.config.engine, self.out / ".spill")


StageFunction = Callable[[Context], Counts | None]
Split = Literal["", "files", "keys"]


def _no_params(config: ShardsConfig) -> dict[str, Any]:
    return {}


def _no_files(config: ShardsConfig) -> list[Path]:
    return []


@dataclass(frozen=True)
class LocalImage:
    """A path that the metadata names, below the folder of the metadata; nothing is sure of it."""

    root: Path
    source: str
    path: str


def _no_macros(config: ShardsConfig) -> str:
    return ""


def _run_sql(config: ShardsConfig) -> Make:
    return make_sql


def _no_images(config: ShardsConfig, inputs: Mapping[str, Path]) -> list[LocalImage]:
    return []


@dataclass(frozen=True)
class Stage:
    """One step of the build; its result is the folder CORPUS/stages/NAME.

    Attributes:
        name: NN_name. The SQL of a stage sees an input `40_dedupe` as `$dedupe`.
        inputs: names of the stages whose work tables it reads.
        build: a file in pipeline/sql (one SELECT, written to `rows.parquet`), or a function
            that writes *.parquet into `ctx.out`. It returns its counts, or None to have them
            taken from the table: a row whose `reason` is null goes on.
        params: the config values it depends on; the `$params` of its SQL.
        files: files of the user that it reads; their content is part of the fingerprint.
        images: local images that it reads, as its inputs (stage name -> folder) name them; their
            content is part of the fingerprint, and where they lie is not.
        split: how the work of a SQL file is cut into parts that are made, and made again after a
            failure, by themselves. "files": one for each file of `10_ingest`; it reads the file of
            that name of the inputs that are cut so, all of the others, and sees the range of its
            rows as `$first` and `$last`. "keys": it is given `$part` of `$parts` and takes the keys
            of which `key % $parts = $part`.
        python: its SQL calls functions in Python, so parts are made in several processes.
        macros: SQL that defines the macros that its SQL calls.
        make: the function that makes a part, where there is more to it than to run the SQL.
        judges: the stage whose surviving rows it decides about. It must then write exactly
            one line for each of them, with the columns `row` and (if it drops any) `reason`.
        sql: more files of pipeline/sql that it runs; their text is part of the fingerprint.
        publish: files and folders in `ctx.out` that are moved to the top of the corpus.
        table: glob of the work table below its folder.
        version: raise it when the code of a function stage changes its result.
    """

    name: str
    inputs: tuple[str, ...]
    build: str | StageFunction
    params: Callable[[ShardsConfig], dict[str, Any]] = _no_params
    files: Callable[[ShardsConfig], list[Path]] = _no_files
    images: Callable[[ShardsConfig, Mapping[str, Path]], list[LocalImage]] = _no_images
    split: Split = ""
    python: bool = False
    macros: Callable[[ShardsConfig], str] = _no_macros
    make: Callable[[ShardsConfig], Make] = _run_sql
    judges: str = ""
    sql: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    table: str = "*.parquet"
    version: int = 1
