"""`wit compare RUN_A RUN_B`: two models on the same samples, set by set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import InputError
from wit.progress import Progress

if TYPE_CHECKING:
    from eval.results import Stored

UNIT = "in per cent and points; intervals are 95%"


class CompareConfig(Settings):
    """Compare two evaluated models with paired tests on their predictions, and their averages."""

    first: CliPositionalArg[Path]
    """run directory, or folder of results, of the first model"""
    second: CliPositionalArg[Path]
    """of the second model; differences are second minus first"""
    also_first: list[Path] = Field(default=[])
    """A further run of the first recipe with another training seed; once for each."""
    also_second: list[Path] = Field(default=[])
    """A further run of the second recipe; with these the spread over seeds is reported too."""
    every: bool = False
    """All metrics of each set instead of the one that stands for it."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""
    as_json: bool = Field(default=False, alias="json")
    """Print one JSON object instead of tables."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(CompareConfig, argv, prog="wit compare")
    found = compare(config)
    if config.as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _print(found)
    return 0


def compare(config: CompareConfig) -> dict[str, Any]:
    """Everything that is printed, as plain data: rows, what was not compared, averages, seeds."""
    from eval import results

    first = {stored.name: stored for stored in results.load(config.first)}
    second = {stored.name: stored for stored in results.load(config.second)}
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    names, progress = sorted(first.keys() | second.keys()), Progress("compare")
    for done, name in enumerate(names):
        progress(done, len(names), "results")
        reason = _why_not(first.get(name), second.get(name))
        pairs = [] if reason else _rows(first[name], second[name], config)
        if pairs:
            rows += pairs
        else:
            skipped.append(
                {"set": name[0], "task": name[1], "why": reason or "its predictions have no test"}
            )
    progress.clear()
    if not rows:
        why = "; ".join(f"{entry['set']}: {entry['why']}" for entry in skipped)
        raise InputError(f"{config.first}, {config.second}: nothing to compare ({why})")
    for row, p in zip(rows, _holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return {
        "first": str(config.first),
        "second": str(config.second),
        "rows": rows,
        "not_compared": skipped,
        "averages": _averages(rows),
        "seeds": _seeds(config, rows),
    }


def _why_not(first: Stored | None, second: Stored | None) -> str | None:
    """Why two results can't be compared; None where they can."""
    if first is None or second is None:
        return f"the {'first' if first is None else 'second'} model has no such result"
    if first.data["protocol_hash"] == second.data["protocol_hash"]:
        return None
    one, two = first.data["protocol"], second.data["protocol"]
    keys = [key for key in sorted(one.keys() | two.keys()) if one.get(key) != two.get(key)]
    # Models may want pictures of different sizes: that is a part of the model.
    sizes = [p["preprocessing"] | {"image_size": 0} for p in (one, two)]
    if keys == ["preprocessing"] and sizes[0] == sizes[1]:
        return None
    return f"other protocol: {', '.join(keys)}"


def _rows(first: Stored, second: Stored, config: CompareConfig) -> list[dict[str, Any]]:
    """One row for each metric."""
    import numpy as np

    from eval import metrics, results, stats

    keys = [set(results.measures(stored).key_N.tolist()) for stored in (first, second)]
    shared = np.array(sorted(keys[0] & keys[1]))
    if not len(shared):
        return []
    one, two = (results.measures(stored, shared) for stored in (first, second))
    wanted = [first.data["main"]] if not config.every else list(first.data["metrics"])
    rows = []
    for name in wanted:
        if name not in one.values or name not in two.values:
            continue
        paired = stats.paired_bootstrap(
            one.values[name], two.values[name], one.cluster_N, config.resamples, config.seed
        )
        p, test = paired.p, paired.interval.method
        if name in one.hits:
            p, test = stats.mcnemar(one.hits[name], two.hits[name]), "McNemar, exact"
        rows.append(
            {
                "set": first.name[0],
                "task": first.name[1],
                "suite": first.suite,
                "metric": name,
                "main": name == first.data["main"],
                "n": len(shared),
                "left_out": len(keys[0] | keys[1]) - len(shared),
                "first": metrics.plain(one.values[name], len(shared)),
                "second": metrics.plain(two.values[name], len(shared)),
                "difference": paired.difference,
                "interval_95": [paired.interval.low, paired.interval.high],
                "p": p,
                "test": test,
            }
        )
    return rows


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment (1979): the chance of even one false alarm stays below the level."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, most = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = most
    return adjusted


def _averages(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each suite of several sets, the mean difference of these sets, and of sets like them."""
    import numpy as np

    from eval import stats
    from eval.stats import Interval

    found = []
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite and row["main"]]
        if len(mine) < 2:
            continue
        difference_S = [row["difference"] for row in mine]
        intervals = [Interval(row["interval_95"][0], row["interval_95"][1], "") for row in mine]
        fixed = stats.mean_of_sets(difference_S, intervals)
        drawn = stats.t_interval(np.array(difference_S)) if len(mine) > 2 else None
        found.append(
            {
                "suite": suite,
                "sets": len(mine),
                "first": float(np.mean([row["first"] for row in mine])),
                "second": float(np.mean([row["second"] for row in mine])),
                "difference": float(np.mean(difference_S)),
                "interval_95": [fixed.low, fixed.high],
                "interval_95_other_sets": drawn and [drawn.low, drawn.high],
            }
        )
    return found


def _seeds(config: CompareConfig, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spread over training seeds: mean and standard deviation of both, Welch's interval."""
    import numpy as np
    from scipy.stats import ttest_ind

    from eval import results

    if not config.also_first or not config.also_second:
        return []
    sides = [[config.first, *config.also_first], [config.second, *config.also_second]]
    read = [[{r.name: r for r in results.load(run)} for run in side] for side in sides]
    found = []
    for row in rows:
        values = []
        for side in read:
            values.append(
                [
                    run[row["set"], row["task"]].data["metrics"][row["metric"]]["value"]
                    for run in side
                    if (row["set"], row["task"]) in run
                ]
            )
        if min(map(len, values)) < 2:
            continue
        entry: dict[str, Any] = {key: row[key] for key in ("set", "task", "metric")}
        for name, value in zip(("first", "second"), values, strict=True):
            entry[name] = {
                "seeds": len(value), "mean": float(np.mean(value)),
                "standard_deviation": float(np.std(value, ddof=1))}  # fmt: skip
        if all(entry[name]["standard_deviation"] for name in ("first", "second")):
            test = ttest_ind(values[1], values[0], equal_var=False)
            low, high = test.confidence_interval(0.95)
            entry |= {"interval_95": [float(low), float(high)], "p": float(test.pvalue)}
        found.append(entry)
    return found


def _print(found: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"first: {found['first']}\nsecond: {found['second']}", highlight=False)
    table = Table(title=UNIT, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("set, metric", overflow="fold")
    for column in ("first", "second", "change", "interval", "p", "p, Holm"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found["rows"]:
        name = f"{row['set']} {row['task']}, {row['metric']}"
        table.add_row(name, *_numbers(row), f"{row['p']:.2g}", f"{row['p_holm']:.2g}")
    for row in found["averages"]:
        name = f"average of {row['sets']} sets: {row['suite']}"
        table.add_row(name, *_numbers(row), "", "")
    console.print(table)
    for row in found["averages"]:
        if row["interval_95_other_sets"] is None:
            continue
        low, high = (100 * end for end in row["interval_95_other_sets"])
        console.print(
            f"{row['suite']}: over other sets like these the average would differ by"
            f" {low:+.1f} to {high:+.1f}",
            highlight=False,
        )
    for row in found["seeds"]:
        sides = [
            f"{100 * row[n]['mean']:.1f} ± {100 * row[n]['standard_deviation']:.1f}"
            f" over {row[n]['seeds']} seeds"
            for n in ("first", "second")
        ]
        end = ""
        if "interval_95" in row:
            low, high = (100 * end for end in row["interval_95"])
            end = f"; difference {low:+.1f} to {high:+.1f}, p {row['p']:.3g} (Welch)"
        console.print(f"{row['set']}, {row['metric']}: {' and '.join(sides)}{end}", highlight=False)
    for row in found["rows"]:
        if row["left_out"]:
            console.print(f"{row['set']}: {row['left_out']} samples only one of the two has")
    for row in found["not_compared"]:
        console.print(f"{row['set']} {row['task']}: not compared: {row['why']}", highlight=False)


def _numbers(row: dict[str, Any]) -> list[str]:
    low, high = (100 * end for end in row["interval_95"])
    return [f"{100 * row['first']:.1f}", f"{100 * row['second']:.1f}",
            f"{100 * row['difference']:+.1f}", f"{low:+.1f} – {high:+.1f}"]  # fmt: skip
