"""`wit eval overlap`: All, Overlap and Clean of evaluated sets, and a page to choose thresholds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from wit.config import Settings, load, write_json
from wit.errors import InputError, MissingExtra

COLUMNS = ("set", "key", "match", "score")
# The table of a corpus: hashes of 64 bits, none of which differ where the bytes are the same.
CATALOGUE = """
SELECT set, key, uid AS match, 1 - coalesce(distance, 0) / 64.0::DOUBLE AS score
FROM eval_overlaps
"""


class OverlapConfig(Settings):
    """What images that are in the corpus too do to a model's scores; or, with --label SET, a page
    that asks of a sample of pairs whether they are the same picture, to choose a threshold."""

    run: Path = Path("data/run")
    """Run directory, or folder of results, with results of task zeroshot."""
    overlaps: Path
    """CORPUS/corpus.duckdb of a corpus built with --dedupe.evaluation; or a Parquet file, or a
    DuckDB file with a table `overlaps`: columns set, key (of the test image), match (key or uid of
    the corpus image), score (how alike, the higher the more)."""
    threshold: float | None = None
    """Pairs of this score or more overlap, in every set without a threshold of its own."""
    thresholds: Path = Path("data/overlap/thresholds.json")
    """JSON file {"set": threshold}; --label writes it."""
    out: Path = Path("data/overlap")
    """Folder for overlap.json and for labels."""
    label: str | None = None
    """Name of the set whose pairs are to be labelled."""
    set: Path | None = None
    """With --label: the evaluation set, for its pictures."""
    corpus: Path = Path("data/corpus")
    """With --label: the corpus, for its pictures."""
    split: str = Field("test", pattern=r"^[A-Za-z0-9_-]+$")
    """Split of the evaluation set."""
    pairs: int = Field(100, ge=10)
    """With --label: pairs to label."""
    port: int = Field(0, ge=0, le=65535)
    """Port of the page on 127.0.0.1; 0 takes a free one."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Images that declare more pixels than this are not shown."""
    seed: int = Field(0, ge=0)
    """Seed of the pairs that are labelled."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(OverlapConfig, argv, prog="wit eval overlap")
    pairs = read_pairs(config.overlaps)
    if config.label is not None:
        return _label(pairs, config)
    report = analyse(pairs, config)
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(report, config.out / "overlap.json")
    print(f"results: {config.out / 'overlap.json'}")
    return 0


def read_pairs(path: Path) -> pa.Table:
    """The best pair of each test image: columns set, key, match, score.

    Raises:
        InputError: unreadable, or a column is missing or of the wrong type.
        MissingExtra: a DuckDB file, and duckdb is not installed.
    """
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_duckdb(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: can't be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]}; pairs have {', '.join(COLUMNS)}")
    table = table.select(COLUMNS).drop_null()
    try:
        scores = table["score"].cast(pa.float64())
    except pa.ArrowInvalid:
        raise InputError(f"{path}: column score is {table['score'].type}, not numbers") from None
    table = table.set_column(3, "score", scores)
    order = [("set", "ascending"), ("key", "ascending"), ("score", "descending"),
             ("match", "ascending")]  # fmt: skip
    table = table.sort_by(order)
    names = list(zip(table["set"].to_pylist(), table["key"].to_pylist(), strict=True))
    first = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return table.take(pa.array(first, pa.int64()))


def _read_duckdb(path: Path) -> pa.Table:
    try:
        import duckdb
    except ModuleNotFoundError:
        raise MissingExtra("duckdb", "pipeline") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file; check --overlaps")
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            names = {name for (name,) in con.sql("SHOW TABLES").fetchall()}
            query = CATALOGUE if "eval_overlaps" in names else 'SELECT * FROM "overlaps"'
            return con.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None


def analyse(pairs: pa.Table, config: OverlapConfig) -> dict[str, Any]:
    """Print and return the numbers of every zero-shot result whose set is in the pairs.

    Raises:
        InputError: no such result, no threshold for a set, or keys that are none of the set's.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from eval import overlap, results

    found = {}
    for stored in results.load(config.run):
        name, task = stored.name
        mine = pairs.filter(pa.compute.equal(pairs["set"], name))
        if task == "zeroshot" and len(mine) and "rank" in stored.predictions.column_names:
            predictions = stored.predictions
            scores = dict(zip(mine["key"].to_pylist(), mine["score"].to_pylist(), strict=True))
            keys = predictions["key"].to_pylist()
            unknown = sorted(scores.keys() - set(keys))
            if unknown:
                raise InputError(
                    f"{config.overlaps}: {unknown[0]} is no image of {name} in {stored.path}"
                )
            least = threshold_of(name, config)
            overlap_N = np.array([scores.get(key, -np.inf) >= least for key in keys])
            hit_N = predictions["rank"].to_numpy() == 0
            numbers = overlap.analyse(hit_N, overlap_N, predictions["label"].to_numpy())
            found[name] = (least, numbers)
    if not found:
        sets = ", ".join(sorted(set(pairs["set"].to_pylist()))) or "none"
        raise InputError(
            f"{config.run}: no zero-shot result of a set in {config.overlaps} (sets: {sets})"
        )
    table = Table(title="overlap, in per cent", title_justify="left", box=SIMPLE)
    table.add_column("set", overflow="fold")
    for column in ("overlap", "all", "on overlap", "99.5%", "clean", "matched", "all - clean",
                   "p", "p corrected"):  # fmt: skip
        table.add_column(column, justify="right")
    report = {}
    for name, (least, n) in found.items():
        corrected = overlap.bonferroni(n.p, len(found))
        interval = "" if n.interval is None else _range(n.interval.low, n.interval.high)
        shares = [_cent(v) for v in (n.share, n.accuracy_all, n.accuracy_overlap)]
        rest = [_cent(v) for v in (n.accuracy_clean, n.matched, n.shift)]
        table.add_row(name, *shares, interval, *rest, f"{n.p:.3g}", f"{corrected:.3g}")
        report[name] = asdict(n) | {"threshold": least, "share": n.share, "p_bonferroni": corrected}
    Console().print(table)
    return report


def threshold_of(name: str, config: OverlapConfig) -> float:
    """The threshold of a set.

    Raises:
        InputError: there is none.
    """
    own = _read_thresholds(config.thresholds).get(name, config.threshold)
    if own is None:
        raise InputError(
            f"{config.thresholds}: no threshold for {name}; choose one with --label {name}, or give"
            " --threshold"
        )
    return own


def _read_thresholds(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, int | float) for v in found.values()):
        raise InputError(f'{path}: must be of the form {{"set": threshold}}; mend or remove it')
    return found


def _label(pairs: pa.Table, config: OverlapConfig) -> int:
    from eval.overlap_labels import Labelling
    from eval.pages.server import serve
    from eval.sets import open_set

    if config.set is None:
        raise InputError("--label shows pictures of the evaluation set: give --set DIR")
    mine = pairs.filter(pa.compute.equal(pairs["set"], config.label))
    if not len(mine):
        raise InputError(f"{config.overlaps}: no pair of set {config.label}")
    labelling = Labelling(
        mine,
        open_set(config.set, config.split),
        config.corpus,
        config.out,
        config.thresholds,
        config.pairs,
        config.seed,
    )
    actions = {"next": labelling.next, "answer": labelling.answer}
    with serve("overlap", actions, labelling.picture, config.port, config.max_pixels) as address:
        print(f"open {address}\nctrl-c stops; every answer is kept in {config.out}", flush=True)
        while True:
            time.sleep(3600)


def _cent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} – {100 * high:.1f}"
