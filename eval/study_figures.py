"""Figures of what `wit eval human` and `wit eval overlap` found: 16 and 17.

Their reports are files of their own, which `wit eval report` is given.

Shapes: C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eval.figures import as_svg
from wit.charts import INK, MUTED, SERIES, style
from wit.errors import InputError


def draw(human: Path | None, overlap: Path | None) -> list[tuple[str, str]]:
    """Caption and SVG of what the two reports have to show.

    Raises:
        InputError: a file that is not such a report.
    """
    drawn: list[tuple[str, Figure | None]] = []
    with style():
        if human is not None:
            figure = hardness(read(human, "rounds"))
            drawn.append(("People and a model by class (cf. figure 16)", figure))
        if overlap is not None:
            report = read(overlap, "p_bonferroni")
            drawn.append(("Overlap and accuracy (cf. figure 17)", contamination(report)))
    return as_svg(drawn)


def read(path: Path, needs: str) -> dict[str, Any]:
    """A report of one of the two commands.

    Args:
        needs: what makes it one: a key of it, or of each of its values.

    Raises:
        InputError: not such a report.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; check the path") from None
    except ValueError:
        raise InputError(f"{path}: not JSON; analyse again") from None
    values = list(found.values()) if isinstance(found, dict) else []
    if not values or not (
        needs in found or all(isinstance(v, dict) and needs in v for v in values)
    ):
        raise InputError(f"{path}: has no {needs}; give the report of `wit eval human` or overlap")
    report: dict[str, Any] = found
    return report


def hardness(report: Mapping[str, Any]) -> Figure | None:
    """Classes by the model's probability of the right one, and people's accuracies (figure 16)."""
    rounds = {
        shots: entry for shots, entry in report["rounds"].items() if entry.get("model_by_class")
    }
    if not rounds:
        return None
    model = next(iter(rounds.values()))["model_by_class"]
    names = sorted((n for n, v in model.items() if v is not None), key=lambda n: -model[n])
    figure = Figure(figsize=(max(5.0, 1.5 + 0.22 * len(names)), 4))
    axes = figure.subplots()
    axes.plot(range(len(names)), [100 * model[name] for name in names], "D", mfc="none", mec=INK,
              ls="none", label="model: probability of the right class")  # fmt: skip
    for i, (shots, entry) in enumerate(rounds.items()):
        known = [(x, entry["by_class"][n]) for x, n in enumerate(names)]
        known = [(x, 100 * value) for x, value in known if value is not None]
        label = f"people, {shots} sample pictures"
        found = entry["hardness"].get("probability of the right class")
        if isinstance(found, dict):
            label += f": r {found['pearson']:.2f} (p {found['pearson_p']:.2g})"
        axes.plot(*zip(*known, strict=True), "o", color=SERIES[i % len(SERIES)], ms=4, ls="none",
                  label=label)  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("%")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)
    return figure


def contamination(report: Mapping[str, Any]) -> Figure:
    """Overlap's accuracy less Clean's with its interval, and what it adds to All (figure 17)."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.axhline(0, color=MUTED, lw=0.8)
        axes.set_xlabel("share of the test images that overlap, %")
    for name, found in report.items():
        x = 100 * found["share"]
        if found["accuracy_overlap"] is not None and found["accuracy_clean"] is not None:
            clean = found["accuracy_clean"]
            y, (low, high, _) = found["accuracy_overlap"] - clean, found["interval"]
            significant = not low - clean <= 0 <= high - clean
            ends = np.array([[y - (low - clean)], [high - clean - y]])
            left.errorbar([x], [100 * y], yerr=100 * ends.clip(0), fmt="o", ms=4, lw=1,
                          color=SERIES[1 if significant else 0])  # fmt: skip
            left.annotate(name, (x, 100 * y), (4, 4), textcoords="offset points", fontsize=7,
                          color=MUTED)  # fmt: skip
        right.plot([x], [100 * found["shift"]], "o", ms=4,
                   color=SERIES[1 if found["p_bonferroni"] < 0.05 else 0])  # fmt: skip
        right.annotate(name, (x, 100 * found["shift"]), (4, 4), textcoords="offset points",
                       fontsize=7, color=MUTED)  # fmt: skip
    left.set_ylabel("accuracy on Overlap less Clean, points (99.5% interval)")
    right.set_ylabel("accuracy on All less Clean, points")
    return figure
