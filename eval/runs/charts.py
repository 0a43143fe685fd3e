"""The charts of runs: one line for each run, over steps, or samples where batches differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.runs.history import History, Points, step_of
from wit.charts import MUTED, SERIES, chart, label, legend_above, logarithmic, plain_numbers

MOST = 300  # points of a line
SMOOTH = 40  # parts of a run over each of which the thick line is the mean
SETS = 6  # that one chart of evaluations holds
LINES = ("-", "--", ":", "-.")
MARKS = "os^Dv*"
# metric, caption, label of the axis, factor, logarithmic
METRICS = (
    ("loss", "Loss", "loss", 1, False),
    ("accuracy", "Accuracy within the batch", "%", 100, False),
    ("scale", "Scale of the logits", "1 / temperature", 1, False),
    ("lr", "Learning rate", "learning rate", 1, False),
    ("grad_norm", "Norm of the gradient, before clipping", "norm", 1, True),
    ("samples_per_second", "Throughput", "samples per second", 1, False),
    ("data_wait", "Time spent waiting for data", "%", 100, False),
    ("mfu", "Model FLOP utilisation (MFU)", "% of what the device can do", 100, False),
)


def colour(place: int) -> str:
    """Of the line of run number `place`."""
    return SERIES[place % len(SERIES)]


def over_steps(runs: Sequence[History]) -> tuple[list[int], str]:
    """What a step counts for in each run, and the name of that axis."""
    batches = [run.batch for run in runs]
    return ([1] * len(runs), "step") if len(set(batches)) == 1 else (batches, "samples seen")


def metric(
    runs: Sequence[History], key: str, words: str, factor: float, log: bool
) -> Figure | None:
    """One metric of all runs; None where no run has it."""
    return _lines(runs, [run.points(key) for run in runs], words, factor, log, key in _NOISY)


_NOISY = {"loss", "accuracy", "grad_norm", "samples_per_second", "data_wait"}


def arithmetic(runs: Sequence[History]) -> Figure | None:
    """TFLOP/s, for runs that don't record their MFU."""
    return _lines(runs, [run.arithmetic() for run in runs], "TFLOP/s", 1, False, True)


def _lines(
    runs: Sequence[History],
    points: Sequence[Points],
    words: str,
    factor: float,
    log: bool,
    noisy: bool,
) -> Figure | None:
    if not any(points):
        return None
    figure, axes = chart()
    units, x = over_steps(runs)
    for i, (run, mine) in enumerate(zip(runs, points, strict=True)):
        if not mine:
            continue
        x_N, y_N = (np.array(column, np.float64) for column in zip(*mine, strict=True))
        x_N, y_N = x_N * units[i], y_N * factor
        name = label(run.name) if len(runs) > 1 else None
        thin = slice(None, None, max(1, -(-len(x_N) // MOST)))
        if noisy and len(x_N) > 2 * SMOOTH:
            axes.plot(x_N[thin], y_N[thin], lw=0.6, color=colour(i), alpha=0.35)
            parts = list(zip(np.array_split(x_N, SMOOTH), np.array_split(y_N, SMOOTH), strict=True))
            x_N, y_N = (np.array([part[k].mean() for part in parts]) for k in (0, 1))
            thin = slice(None)
        axes.plot(x_N[thin], y_N[thin], lw=1.8, color=colour(i), label=name,
                  marker="o" if len(x_N) == 1 else None)  # fmt: skip
    _finish(figure, axes, x, words)
    if log:
        logarithmic(axes, "y")
    elif (low := axes.get_ylim()[0]) < 0 or low < 0.4 * axes.get_ylim()[1]:
        axes.set_ylim(0)
    return figure


def _finish(figure: Figure, axes: Axes, x: str, words: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(words)
    plain_numbers(axes.xaxis)
    legend_above(figure)


def measured(runs: Sequence[History], names: Sequence[str], words: str) -> Figure:
    """Values that were measured while training: a colour for each run, a stroke for each name."""
    figure, axes = chart()
    units, x = over_steps(runs)
    for i, run in enumerate(runs):
        for k, name in enumerate(names):
            mine = run.points(name)
            if mine:
                axes.plot([s * units[i] for s, _ in mine], [v for _, v in mine], lw=1.5, ms=3,
                          marker=MARKS[k % len(MARKS)], ls=LINES[k % len(LINES)],
                          color=colour(i if len(runs) > 1 else k),
                          label=_both(runs, run, name))  # fmt: skip
    _finish(figure, axes, x, words)
    return figure


def evaluations(runs: Sequence[History], names: Sequence[tuple[str, str]]) -> Figure:
    """Main metric of some (set, task) at every checkpoint that was evaluated, with its interval."""
    figure, axes = chart(3.4)
    units, x = over_steps(runs)
    for i, run in enumerate(runs):
        for k, name in enumerate(names):
            mine = [stored for stored in run.evaluations if stored.name == name]
            if not mine:
                continue
            value_S = np.array([100 * stored.main["value"] for stored in mine])
            ends_S2 = 100 * np.array([stored.main["interval_95"] for stored in mine])
            ends = np.abs(np.array([value_S - ends_S2[:, 0], ends_S2[:, 1] - value_S]))
            axes.errorbar([step_of(stored) * units[i] for stored in mine], value_S, ends,
                          marker=MARKS[k % len(MARKS)], ms=4, lw=1.4, elinewidth=1,
                          ls=LINES[k % len(LINES)], color=colour(i if len(runs) > 1 else k),
                          label=_both(runs, run, " ".join(name)))  # fmt: skip
    chance = {
        round(100 * s.main["chance"], 1) for run in runs for s in run.evaluations if s.name in names
    }
    for value in sorted(chance):
        axes.axhline(value, color=MUTED, lw=0.8, ls=":")
    _finish(figure, axes, x, "main metric, %; dotted: chance")
    axes.set_ylim(0, 100)
    axes.margins(x=0.15)
    return figure


def _both(runs: Sequence[History], run: History, name: str) -> str:
    return label(f"{run.name}: {name}" if len(runs) > 1 else name, 36)
