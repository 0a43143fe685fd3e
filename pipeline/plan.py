"""`wit balance plan`: the cap for a corpus of a wanted size, or for a wanted share of the tail.

It reads the work tables of a build up to 40_dedupe, so a cap can be chosen before anything is
downloaded. The curve of bottom-k is that of uniform ranks, within about a per cent of the truth;
the size at the cap that is answered is counted.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from pipeline.config import EngineConfig
from wit.config import Settings, load
from wit.errors import ConfigError, CorpusError
from wit.progress import Progress

if TYPE_CHECKING:
    import duckdb

_STEPS = 64  # of an octave of the cap, in plan_needed.sql
_SERIES = (1, 2, 5)
_BAR = 30


class PlanConfig(Settings):
    """Choose balance.cap: for a size of the corpus, or for the share of matches in the tail.

    Without --size and --tail the curve alone is printed.
    """

    action: CliPositionalArg[Literal["plan"]]
    """plan"""
    corpus: Path = Path("data/corpus")
    """corpus directory, built at least up to 40_dedupe"""
    size: Annotated[int, Field(ge=1)] | None = None
    """pairs that the corpus shall have after the cap"""
    tail: Annotated[float, Field(gt=0, lt=1)] | None = None
    """share of all matches that queries with fewer pairs than the cap shall hold"""
    method: Literal["bottom_k", "independent"] = "bottom_k"
    """as balance.method"""
    csv: bool = False
    """print the curve as CSV"""
    as_json: Annotated[bool, Field(alias="json")] = False
    """print one JSON object"""
    engine: EngineConfig = EngineConfig()


@dataclass(frozen=True)
class Point:
    """What a cap does.

    Attributes:
        cap: pairs that one query may bring in.
        pairs: pairs that stay.
        share: of the pairs that reach the cap.
        tail_queries: queries with fewer pairs than the cap.
        tail_share: of all matches, those of such queries.
    """

    cap: int
    pairs: int
    share: float
    tail_queries: int
    tail_share: float


class Plan:
    """The curve of a corpus: sizes, and tails, against the cap."""

    def __init__(self, corpus: Path, method: str, con: duckdb.DuckDBPyConnection) -> None:
        from pipeline.engine import execute, sql_text

        self._method, self._con = method, con
        names = {"match": "20_match", "dedupe": "40_dedupe", "queries": "18_queries"}
        self._tables = {key: _table(corpus, stage) for key, stage in names.items()}
        progress = Progress("balance plan")
        given = {**self._tables, "method": method}
        needed = execute(con, sql_text("plan_needed.sql"), given, progress)
        self._needed: list[tuple[int, int]] = needed.fetchall()
        progress.clear()
        two = {key: self._tables[key] for key in ("match", "dedupe")}
        self._queries: list[tuple[int, int]] = con.execute(
            sql_text("plan_queries.sql"), two
        ).fetchall()
        self.pairs = sum(pairs for _, pairs in self._needed)
        self.matches = sum(pairs * queries for pairs, queries in self._queries)
        if not self.pairs:
            raise CorpusError(f"{corpus}: no pair reaches the cap: look at `wit stats` first")

    def point(self, cap: int, counted: bool = False) -> Point:
        """What a cap does, by the curve or `counted`."""
        if counted:
            kept = self._count(cap)
        else:
            last = _STEPS * math.log2(cap)
            kept = sum(pairs for step, pairs in self._needed if step <= last)
        few = [(pairs, queries) for pairs, queries in self._queries if pairs < cap]
        tail = sum(pairs * queries for pairs, queries in few) / self.matches
        return Point(cap, kept, kept / self.pairs, sum(queries for _, queries in few), tail)

    def curve(self) -> list[Point]:
        """Caps of 1, 2, 5, 10, … up to the largest query."""
        largest, points = self._queries[-1][0], []
        for power in range(20):
            for first in _SERIES:
                points.append(self.point(first * 10**power))
                if points[-1].cap >= largest:
                    return points
        return points

    def cap_for_size(self, size: int) -> int:
        """The smallest cap that keeps `size` pairs.

        Raises:
            ConfigError: there are not so many.
        """
        if size > self.pairs:
            raise ConfigError(
                f"size = {size:,} is more than the {self.pairs:,} pairs that reach the cap: give"
                " more input, or ask for less"
            )
        so_far = 0
        for step, pairs in self._needed:
            so_far += pairs
            if so_far >= size:
                return math.ceil(2 ** (step / _STEPS))
        raise AssertionError("the steps hold all pairs")

    def cap_for_tail(self, share: float) -> int:
        """The smallest cap under which queries hold `share` of all matches."""
        so_far = 0
        for pairs, queries in self._queries:
            so_far += pairs * queries
            if so_far >= share * self.matches:
                return pairs + 1
        raise AssertionError("the queries hold all matches")

    def _count(self, cap: int) -> int:
        from pipeline.balance import BRING
        from pipeline.engine import copy

        params = {**self._tables, "standing": self._tables["dedupe"]}
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "brought.parquet"
            copy(
                self._con,
                BRING[self._method],
                {**params, "cap": cap, "part": 0, "parts": 1},
                target,
            )
            return int(self._con.read_parquet(str(target)).count("*").fetchall()[0][0])


def main(argv: Sequence[str]) -> int:
    """Print the curve, and the cap that was asked for."""
    config = load(PlanConfig, argv, prog="wit balance")
    from pipeline.engine import connect, engine_errors

    if config.size and config.tail:
        raise ConfigError("size and tail both ask for a cap: give one of them")
    with (
        tempfile.TemporaryDirectory(prefix="wit-plan-") as spill,
        engine_errors("wit balance plan", config.engine),
        connect(config.engine, Path(spill)) as con,
    ):
        plan = Plan(config.corpus, config.method, con)
        answer = None
        if config.size:
            answer = plan.point(plan.cap_for_size(config.size), counted=True)
        elif config.tail:
            answer = plan.point(plan.cap_for_tail(config.tail), counted=True)
        _print(config, plan, answer)
    return 0


def _print(config: PlanConfig, plan: Plan, answer: Point | None) -> None:
    points = plan.curve()
    if config.as_json:
        found: dict[str, Any] = {"pairs": plan.pairs, "matches": plan.matches}
        found |= {"curve": [asdict(point) for point in points]}
        found |= {"answer": asdict(answer) if answer else None}
        print(json.dumps(found))
        return
    names = ["cap", "pairs", "share", "tail_queries", "tail_share"]
    if config.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([asdict(point)[name] for name in names] for point in points)
        return
    from pipeline.sql_command import table

    print(f"{plan.pairs:,} pairs reach the cap, in {plan.matches:,} matches; {config.method}\n")
    shown = [
        [*(asdict(point)[name] for name in names), "█" * round(_BAR * point.share)]
        for point in points
    ]
    print(table([*names, ""], shown))
    if answer:
        print(
            f"\n--balance.cap {answer.cap} keeps {answer.pairs:,} pairs ({answer.share:.1%});"
            f" {answer.tail_queries:,} queries have fewer and hold {answer.tail_share:.1%} of the"
            " matches"
        )


def _table(corpus: Path, stage: str) -> str:
    folder = corpus / "stages" / stage
    if not (folder / "stage.json").exists():
        raise CorpusError(
            f"{folder}: not built: run `wit shards --corpus {corpus} --until 40_dedupe` first"
        )
    return str(folder / "*.parquet")
