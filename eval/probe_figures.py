"""Figures of the report that need probes, shifts, or several models: 5 to 9, 12 and 13.

As in eval/figures.py, a figure is a function of the results and the published numbers, and None
where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval import fits
from eval.fewshot import CURVE, EFFICIENCY
from eval.figures import Draw, model_of, models_of, of_task, title_of
from eval.results import Stored
from wit.charts import INK, MUTED, SERIES

RESAMPLES = 1000
FEWEST = 3  # points under a line


def supervised(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Zero-shot against the probe on the same features, a point for each set (figure 8)."""
    zero, full = _by_model(results, "zeroshot"), _by_model(results, "probe")
    shared = {m: sorted(zero[m].keys() & full[m].keys()) for m in zero if m in full}
    shared = {model: names for model, names in shared.items() if names}
    if not shared:
        return None
    figure = Figure(figsize=(5.5, 5))
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=MUTED, lw=0.8, label="as good as the probe")
    known = sorted(paper["zeroshot"]["ViT-L/14"].keys() & paper["probe"]["ViT-L/14"].keys())
    points = [[paper[kind]["ViT-L/14"][name] for name in known] for kind in ("probe", "zeroshot")]
    axes.plot(*points, "D", mfc="none", mec=INK, ms=4, ls="none", label="published: ViT-L/14")
    for i, (model, names) in enumerate(shared.items()):
        x_N = 100 * np.array([full[model][name].main["value"] for name in names])
        y_N = 100 * np.array([zero[model][name].main["value"] for name in names])
        colour, label = SERIES[i % len(SERIES)], model
        if len(names) >= FEWEST and np.ptp(x_N) > 0:
            fit = fits.line(x_N, y_N, RESAMPLES)
            low, high, _ = fit.slope_interval
            label += f": r {fit.r:.2f}, slope {fit.slope:.2f} ({low:.2f} to {high:.2f})"
            _line(axes, fit, x_N, colour)
        axes.plot(x_N, y_N, "o", ms=4, color=colour, ls="none", label=label)
        for name, x, y in zip(names, x_N, y_N, strict=True):
            axes.annotate(name, (x, y), (3, 3), textcoords="offset points", fontsize=6,
                          color=MUTED)  # fmt: skip
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("linear probe, %")
    axes.set_ylabel("zero-shot, %")
    _legend(axes)
    return figure


def few_shots(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Mean score over the sets that every model has, by images of a class (figure 6)."""
    by_model = _by_model(results, "fewshot")
    if not by_model:
        return None
    names = set.intersection(*(set(found) for found in by_model.values()))
    if not names:
        return None
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for i, (model, found) in enumerate(by_model.items()):
        rows = [{str(row[0]): row[1] for row in _rows(found[n], CURVE)} for n in names]
        shots = sorted({int(key) for row in rows for key in row if key.isdigit()})
        shots = [count for count in shots if all(str(count) in row for row in rows)]
        values = [100 * np.mean([row[str(count)] for row in rows]) for count in shots]
        colour = SERIES[i % len(SERIES)]
        axes.plot(shots, values, "o-", ms=4, color=colour, label=f"{model}: probe")
        zero = [row["zero-shot"] for row in rows if "zero-shot" in row]
        if len(zero) == len(rows):
            axes.axhline(100 * float(np.mean(zero)), color=colour, ls="--", lw=1,
                         label=f"{model}: zero-shot")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xlabel("training images of a class")
    axes.set_ylabel(f"mean score over {len(names)} sets, %")
    _legend(axes)
    return figure


def efficiency(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Images of a class at which a probe is as good as zero-shot, by set (figure 7)."""
    points = [
        (title_of(stored), model_of(stored), row[1])
        for stored in of_task(results, "fewshot")
        for row in _rows(stored, EFFICIENCY)
        if row[1] is not None
    ]
    if not points:
        return None
    names = list(dict.fromkeys(name for name, _, _ in points))
    models = list(dict.fromkeys(model for _, model, _ in points))
    figure = Figure(figsize=(7, 1.0 + 0.3 * len(names)))
    axes = figure.subplots()
    for i, model in enumerate(models):
        mine = [(images, names.index(name)) for name, of, images in points if of == model]
        middle = np.median([images for images, _ in mine])
        mean = np.mean([images for images, _ in mine])
        axes.plot(*zip(*mine, strict=True), "o", color=SERIES[i % len(SERIES)], ls="none",
                  label=f"{model}: median {middle:.2g}, mean {mean:.2g}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("training images of a class that match zero-shot (published: median 5.4)")
    _legend(axes)
    return figure


def against_probes(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Zero-shot of the first model less the probe of others, such as ResNet-50 (figure 5)."""
    zero, full = _by_model(results, "zeroshot"), _by_model(results, "probe")
    if not zero:
        return None
    model, scores = next(iter(zero.items()))
    others = {m: found for m, found in full.items() if m != model and found.keys() & scores.keys()}
    if not others:
        return None
    names = sorted({name for found in others.values() for name in found.keys() & scores.keys()})
    figure = Figure(figsize=(7, 1.0 + 0.3 * len(names)))
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, lw=0.8)
    for i, (other, found) in enumerate(others.items()):
        shared = [name for name in names if name in found]
        gain = [100 * (scores[n].main["value"] - found[n].main["value"]) for n in shared]
        wins = sum(value > 0 for value in gain)
        axes.plot(gain, [names.index(name) for name in shared], "o", ls="none",
                  color=SERIES[i % len(SERIES)],
                  label=f"less the probe of {other}: above on {wins} of {len(shared)}")  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(f"zero-shot of {model}, difference in points")
    _legend(axes)
    return figure


def suite_scaling(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Mean zero-shot error against the cost of an image, log-log, over models (figure 9)."""
    by_model = _by_model(results, "zeroshot")
    costs = {
        model: next(iter(found.values())).data["model"].get("gflop_image")
        for model, found in by_model.items()
    }
    by_model = {model: found for model, found in by_model.items() if costs[model]}
    if len(by_model) < 2:
        return None
    names = set.intersection(*(set(found) for found in by_model.values()))
    if not names:
        return None
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    x_N = np.array([costs[model] / 2 for model in by_model])
    y_N = np.array(
        [
            100 - 100 * np.mean([found[n].main["value"] for n in names])
            for found in by_model.values()
        ]
    )
    if len(x_N) >= FEWEST and np.ptp(x_N) > 0 and (y_N > 0).all():
        fit = fits.line(np.log(x_N), np.log(y_N), RESAMPLES)
        ends = np.array([x_N.min(), x_N.max()])
        low, high, _ = fit.slope_interval
        axes.plot(ends, np.exp(fit.at(np.log(ends))), color=MUTED, lw=1,
                  label=f"log-log slope {fit.slope:.3f} ({low:.3f} to {high:.3f})")  # fmt: skip
    for i, (model, x, y) in enumerate(zip(by_model, x_N, y_N, strict=True)):
        axes.plot([x], [y], "o", color=SERIES[i % len(SERIES)], ls="none", label=model)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("GFLOP of one image (a multiply-add is one)")
    axes.set_ylabel(f"mean zero-shot error over {len(names)} sets, %")
    _legend(axes)
    return figure


def transfer(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Mean probe score over the other sets against ImageNet's, over models (figure 12)."""
    by_model = {m: f for m, f in _by_model(results, "probe").items() if "imagenet" in f}
    if not by_model:
        return None
    names = set.intersection(*(set(found) for found in by_model.values())) - {"imagenet"}
    if not names:
        return None
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    x_N = 100 * np.array([found["imagenet"].main["value"] for found in by_model.values()])
    y_N = 100 * np.array(
        [np.mean([found[name].main["value"] for name in names]) for found in by_model.values()]
    )
    if len(x_N) >= FEWEST and np.ptp(x_N) > 0:
        fit = fits.line(x_N, y_N, RESAMPLES)
        _line(axes, fit, x_N, MUTED, f"r {fit.r:.2f}, slope {fit.slope:.2f}")
    for i, (model, x, y) in enumerate(zip(by_model, x_N, y_N, strict=True)):
        axes.plot([x], [y], "o", color=SERIES[i % len(SERIES)], ls="none", label=model)
    axes.set_xlabel("linear probe on ImageNet, %")
    axes.set_ylabel(f"mean of the probes on {len(names)} other sets, %")
    _legend(axes)
    return figure


def shifts(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Accuracy under each shift against the reference's, same classes, in logits (figure 13)."""
    found = of_task(results, "shift")
    if not found:
        return None
    figure = Figure(figsize=(5.5, 5))
    axes = figure.subplots()
    ticks = np.array([5, 10, 25, 50, 75, 90, 95])
    at = fits.logit(ticks / 100)
    axes.plot(at[[0, -1]], at[[0, -1]], color=MUTED, lw=0.8, label="no loss under the shift")
    models = models_of(found)
    for stored in found:
        table, colour = stored.data["metrics"], SERIES[models.index(model_of(stored)) % len(SERIES)]
        x = table["reference, these classes"]
        for name, mark in (("own names", "o"), ("fitted to the reference", "^")):
            if name in table:
                y = table[name]
                at_x, at_y = (_place(metric) for metric in (x, y))
                axes.plot([at_x], [at_y], mark, ms=5, color=colour, ls="none",
                          label=f"{model_of(stored)}: {name}")  # fmt: skip
                axes.annotate(title_of(stored), (at_x, at_y), (4, 4), fontsize=7, color=MUTED,
                              textcoords="offset points")  # fmt: skip
    axes.set_xticks(at, [str(tick) for tick in ticks])
    axes.set_yticks(at, [str(tick) for tick in ticks])
    axes.set_xlabel("reference set, classes of the shifted set, %")
    axes.set_ylabel("shifted set, %")
    _legend(axes)
    return figure


def _place(metric: Mapping[str, Any]) -> float:
    """A share as a logit; 0 and 1 are drawn half a sample away from it."""
    return float(fits.logit(np.array([metric["value"]]), metric["n"])[0])


def _by_model(results: Sequence[Stored], task: str) -> dict[str, dict[str, Stored]]:
    """Results of a task by model and set."""
    found: dict[str, dict[str, Stored]] = {}
    for stored in of_task(results, task):
        found.setdefault(model_of(stored), {})[title_of(stored)] = stored
    return found


def _rows(stored: Stored, title: str) -> list[list[Any]]:
    """The rows of one of a result's tables; none where it has no such table."""
    found = (table["rows"] for table in stored.data["tables"] if table["title"] == title)
    return next(found, [])


def _line(
    axes: Axes, fit: fits.Line, x_N: fits.Floats, colour: str, label: str | None = None
) -> None:
    x_G = np.linspace(x_N.min(), x_N.max(), 50)
    low_G, high_G = fit.band(x_G)
    axes.fill_between(x_G, low_G, high_G, color=colour, alpha=0.15, lw=0)
    axes.plot(x_G, fit.at(x_G), color=colour, lw=1, label=label)


def _legend(axes: Axes) -> None:
    """Beside the picture, each name once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)


FIGURES: list[tuple[Draw, str]] = [
    (against_probes, "Zero-shot against the probes of other models (cf. figure 5)"),
    (supervised, "Zero-shot against fully supervised (cf. figure 8)"),
    (few_shots, "Zero-shot against few-shot probes (cf. figure 6)"),
    (efficiency, "Data efficiency of zero-shot (cf. figure 7)"),
    (suite_scaling, "Error of the suite and compute (cf. figure 9)"),
    (transfer, "Transfer against the ImageNet score (cf. figure 12)"),
    (shifts, "Accuracy under shifts (cf. figure 13)"),
]
