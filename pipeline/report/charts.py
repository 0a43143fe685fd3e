"""The charts of a corpus: answers of SQL in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wit.charts import (
    GRID,
    INK,
    MUTED,
    SERIES,
    chart,
    label,
    legend_above,
    logarithmic,
    plain_numbers,
)

Row = dict[str, Any]
STORED = "image stored"  # as report_outcomes.sql and report_times.sql call it


def funnel(steps: Sequence[tuple[str, int, int]]) -> Figure:
    """Rows left after each step and rows dropped by it, given as (step, left, dropped)."""
    figure, axes = chart(0.9 + 0.3 * len(steps))
    places = range(len(steps))
    left = [rows for _, rows, _ in steps]
    axes.barh(places, left, color=SERIES[0], height=0.62, label="go on")
    axes.barh(places, [gone for _, _, gone in steps], left=left, color=SERIES[1], height=0.62,
              label="dropped here")  # fmt: skip
    most = max([*left, 1])
    for place, (_, rows, gone) in zip(places, steps, strict=True):
        words = f"{rows:,}" + (f"  −{gone:,}" if gone else "")
        axes.text(rows + gone + most * 0.015, place, words, va="center", fontsize=8)
    axes.set_yticks(places, [name for name, _, _ in steps])
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.set_xlim(0, most * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    plain_numbers(axes.xaxis)
    axes.grid(visible=False, axis="y")
    legend_above(figure)
    return figure


def reasons(rows: Sequence[Row], groups: dict[str, str]) -> Figure:
    """Rows by reason, coloured by the step that dropped them."""
    figure, axes = chart(0.7 + 0.2 * len(rows))
    names = list(dict.fromkeys(groups[row["reason"]] for row in rows))
    for i, name in enumerate(names):
        mine = [
            (place, row["rows"]) for place, row in enumerate(rows) if groups[row["reason"]] == name
        ]
        places, counts = ([each[k] for each in mine] for k in (0, 1))
        colour = SERIES[i % len(SERIES)]
        axes.barh(places, counts, color=colour, height=0.65, label=name)
    for place, row in enumerate(rows):
        axes.text(row["rows"], place, f" {row['rows']:,}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [label(row["reason"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0.8, 4 * max(row["rows"] for row in rows))
    logarithmic(axes, "x")
    axes.set_xlabel("rows, logarithmic")
    axes.grid(visible=False, axis="y")
    legend_above(figure, 3)
    return figure


def queries(rows: Sequence[Row], cap: int) -> Figure:
    """Pairs of a query against its place, log-log: in the input, before the cap, in the shards."""
    figure, axes = chart()
    for i, what in enumerate(dict.fromkeys(row["what"] for row in rows)):
        mine = [row for row in rows if row["what"] == what]
        axes.plot([row["place"] for row in mine], [row["pairs"] for row in mine], lw=1.8,
                  color=(MUTED, *SERIES)[i], label=what)  # fmt: skip
    most = max((row["pairs"] for row in rows), default=1)
    if cap <= 3 * most:
        axes.axhline(cap, color=INK, lw=0.8, ls="--", label=f"cap: {cap:,}")
    axes.set_xlabel("place of the query, by its number of pairs")
    axes.set_ylabel("pairs whose caption holds it")
    logarithmic(axes, "x", "y")
    legend_above(figure, 4)
    return figure


def curve(points: Sequence[tuple[int, int, float]], cap: int) -> Figure:
    """Pairs kept, and the share of matches in the tail, against the cap: (cap, pairs, share)."""
    figure, axes = chart()
    axes.plot([at for at, _, _ in points], [pairs for _, pairs, _ in points], "o-", ms=3, lw=1.8,
              color=SERIES[0], label="pairs")  # fmt: skip
    other = axes.twinx()
    other.plot([at for at, _, _ in points], [100 * share for _, _, share in points], "s-", ms=3,
               lw=1.2, color=SERIES[1], label="matches in the tail")  # fmt: skip
    other.set_ylabel("matches of queries under the cap, %")
    other.set_ylim(0, 105)
    other.grid(visible=False)
    first, last = points[0][0], points[-1][0]
    if first <= cap <= last:
        axes.axvline(cap, color=INK, lw=0.8, ls="--", label=f"this corpus: {cap:,}")
    axes.set_xlabel("cap: pairs that one query may bring in")
    axes.set_ylabel("pairs that stay")
    logarithmic(axes, "x", "y")
    legend_above(figure, 3)
    return figure


def domains_curve(rows: Sequence[Row]) -> Figure:
    """Pairs of a domain against its place, log-log."""
    figure, axes = chart()
    axes.plot([row["place"] for row in rows], [row["pairs"] for row in rows], "o-", ms=2.5, lw=1.5,
              color=SERIES[0])  # fmt: skip
    axes.set_xlabel("place of the domain, by its number of pairs")
    axes.set_ylabel("pairs in the shards")
    logarithmic(axes, "x", "y")
    return figure


def shares(rows: Sequence[Row], name: str, log: bool = False) -> Figure:
    """Rows and those in the shards, of each value of the column `name`."""
    figure, axes = chart(0.8 + 0.24 * len(rows))
    places = np.arange(len(rows))
    axes.barh(places - 0.18, [row["rows"] for row in rows], color=MUTED, height=0.34, label="input")
    axes.barh(places + 0.18, [row["kept"] for row in rows], color=SERIES[0], height=0.34,
              label="in the shards")  # fmt: skip
    axes.set_yticks(places, [label(row[name]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if log:
        axes.set_xlim(0.8, 1.5 * max(row["rows"] for row in rows))
        logarithmic(axes, "x")
        axes.set_xlabel("rows, logarithmic")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
        plain_numbers(axes.xaxis)
    legend_above(figure)
    return figure


def lengths(rows: Sequence[Row], name: str, words: str, log: bool) -> Figure:
    """How long captions are, in the input and in the shards, as shares of each."""
    figure, axes = chart()
    at = [row[name] for row in rows]
    for what, text, colour in (("rows", "input", MUTED), ("kept", "in the shards", SERIES[0])):
        total = max(sum(row[what] for row in rows), 1)
        axes.step(at, [100 * row[what] / total for row in rows], where="mid", lw=1.8, color=colour,
                  label=text)  # fmt: skip
    if log:
        logarithmic(axes, "x")
    axes.set_ylim(0)
    axes.set_xlabel(words)
    axes.set_ylabel("captions, %")
    legend_above(figure)
    return figure


def shapes(rows: Sequence[Row]) -> Figure:
    """Width against height of the downloaded images; the area of a square says how many."""
    figure, axes = chart()
    most = max(row["pairs"] for row in rows)
    x, y = (
        [2 ** ((row[side] + 0.5) / 4) for row in rows] for side in ("width_class", "height_class")
    )
    sizes = [3 + 150 * row["pairs"] / most for row in rows]
    axes.scatter(x, y, s=sizes, marker="s", color=SERIES[0], alpha=0.75, linewidths=0)
    ends = min(*x, *y) / 1.4, max(*x, *y) * 1.4
    axes.plot(ends, ends, color=MUTED, lw=0.7, ls=":")
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_xlabel("width, pixels")
    axes.set_ylabel("height, pixels")
    logarithmic(axes, "x", "y")
    return figure


def outcomes(rows: Sequence[Row]) -> Figure:
    """URLs by what came of them."""
    figure, axes = chart(0.7 + 0.2 * len(rows))
    colours = [SERIES[0] if row["outcome"] == STORED else SERIES[1] for row in rows]
    axes.barh(range(len(rows)), [row["urls"] for row in rows], height=0.65, color=colours)
    for place, row in enumerate(rows):
        axes.text(
            row["urls"], place, f" {row['urls']:,} ({row['%']:.3g}%)", va="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), [label(row["outcome"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0.8, 12 * max(row["urls"] for row in rows))
    logarithmic(axes, "x")
    axes.set_xlabel("URLs, logarithmic")
    axes.grid(visible=False, axis="y")
    return figure


def times(rows: Sequence[Row], bins: int, most: int = 5) -> Figure:
    """URLs by what came of them over the time of the download; the rarer outcomes together."""
    figure, axes = chart(3.2)
    first, width = rows[0]["first"], rows[0]["length"] / bins
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["outcome"]] = totals.get(row["outcome"], 0) + row["urls"]
    good = STORED
    failed = sorted((name for name in totals if name != good), key=lambda name: -totals[name])
    shown = [name for name in (good, *failed[:most]) if name in totals]
    shown += ["other failures"] if len(failed) > most else []
    height_OB = np.zeros((len(shown), bins))
    for row in rows:
        name = row["outcome"] if row["outcome"] in shown else "other failures"
        height_OB[shown.index(name), row["bin"]] += row["urls"]
    start = datetime.fromtimestamp(first, UTC)
    at = date2num([start + timedelta(seconds=(i + 0.5) * width) for i in range(bins)])
    base = np.zeros(bins)
    colours = [SERIES[0], *SERIES[1:], MUTED] if good in totals else [*SERIES[1:], MUTED]
    for i, name in enumerate(shown):
        axes.bar(at, height_OB[i] / width, width=0.94 * width / 86_400, bottom=base,
                 color=MUTED if name == "other failures" else colours[i],
                 label=f"{name} ({totals[name]:,})" if name in totals else name)  # fmt: skip
        base += height_OB[i] / width
    locator = AutoDateLocator(maxticks=5)
    axes.xaxis_date(UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_ylabel("URLs per second")
    axes.set_ylim(0)
    legend_above(figure)
    return figure


def order(rows: Sequence[Row]) -> Figure:
    """Place in the input against place in the shards: a good shuffle fills the square evenly."""
    figure, axes = chart()
    axes.plot([100 * row["input"] for row in rows], [100 * row["shards"] for row in rows], ".",
              ms=3, color=SERIES[0], alpha=0.7)  # fmt: skip
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("place in the input, %")
    axes.set_ylabel("place in the shards, %")
    axes.grid(color=GRID)
    return figure
