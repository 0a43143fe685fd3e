"""The report's figures, drawn in the style of wit/charts.py.

A figure is a function of the results and the published numbers that gives a matplotlib figure, or
None where there is nothing to draw; `FIGURES` lists them in the order of the page. Published
numbers are hollow diamonds, and the legend says that they are published.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval import metrics
from eval.results import Stored
from wit.charts import INK, MUTED, SERIES, logarithmic, style, svg

PAPER = Path(__file__).parent / "published" / "paper.toml"
Draw = Callable[[Sequence[Stored], Mapping[str, Any]], Figure | None]


def published() -> dict[str, Any]:
    """The paper's numbers, in per cent."""
    return tomllib.loads(PAPER.read_text("utf-8"))


def model_of(stored: Stored) -> str:
    """What a model is called in figures: its name, run and step."""
    model = stored.data["model"]
    run = Path(str(model.get("run", "?"))).name
    return f"{model.get('name', 'model')} ({run}, step {model.get('step', '?')})"


def models_of(results: Sequence[Stored]) -> list[str]:
    """The models of some results, in order."""
    return list(dict.fromkeys(map(model_of, results)))


def of_task(results: Sequence[Stored], task: str) -> list[Stored]:
    return [stored for stored in results if stored.data["task"] == task]


def title_of(stored: Stored) -> str:
    return str(stored.data["entry"] or stored.data["set"])


def draw(results: Sequence[Stored]) -> list[tuple[str, str]]:
    """Caption and SVG of every figure that has something to show."""
    from eval.probe_figures import FIGURES as of_probes  # which draws with the parts above

    paper = published()
    with style():
        return as_svg((caption, of(results, paper)) for of, caption in (*FIGURES, *of_probes))


def as_svg(figures: Iterable[tuple[str, Figure | None]]) -> list[tuple[str, str]]:
    """Caption and SVG of the figures that there are."""
    with style():
        return [(caption, svg(figure, caption)) for caption, figure in figures if figure]


def _dots(
    axes: Axes, results: Sequence[Stored], metric: str | None, reference: Mapping[str, float]
) -> None:
    """One line for each set, one dot with its interval for each model."""
    sets = list(dict.fromkeys(title_of(stored) for stored in results))
    models = models_of(results)
    for i, model in enumerate(models):
        mine = [stored for stored in results if model_of(stored) == model]
        chosen = [s.data["metrics"][metric] if metric else s.main for s in mine]
        y = [sets.index(title_of(s)) + 0.18 * (i - (len(models) - 1) / 2) for s in mine]
        x = [100 * m["value"] for m in chosen]
        ends = [[max(0.0, 100 * (m["value"] - m["interval_95"][0])) for m in chosen],
                [max(0.0, 100 * (m["interval_95"][1] - m["value"])) for m in chosen]]  # fmt: skip
        axes.errorbar(x, y, xerr=ends, fmt="o", ms=4, lw=1.2, label=model,
                      color=SERIES[i % len(SERIES)])  # fmt: skip
    chance = [100 * next(s.main["chance"] for s in results if title_of(s) == name) for name in sets]
    if metric is None:
        axes.plot(chance, range(len(sets)), "|", color=MUTED, ms=9, label="chance")
    known = [(reference[name], i) for i, name in enumerate(sets) if name in reference]
    if known:
        axes.plot(*zip(*known, strict=True), "D", mfc="none", mec=INK, ms=6, ls="none",
                  label="published: ViT-L/14")  # fmt: skip
    axes.set_yticks(range(len(sets)), sets)
    axes.set_ylim(len(sets) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def scores(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Zero-shot scores by set, beside table 11."""
    found = of_task(results, "zeroshot")
    if not found:
        return None
    sets = {title_of(stored) for stored in found}
    figure = Figure(figsize=(7, 1.0 + 0.3 * len(sets)))
    axes = figure.subplots()
    _dots(axes, found, None, paper["zeroshot"]["ViT-L/14"])
    axes.set_xlabel("score of each set's own metric, %")
    return figure


def prompts(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Class name only, one prompt, ensemble (figure 4)."""
    found = of_task(results, "zeroshot")
    if not found:
        return None
    found = [s for s in found if model_of(s) == model_of(found[0])]
    figure = Figure(figsize=(7, 1.0 + 0.3 * len(found)))
    axes = figure.subplots()
    for i, label in enumerate(("class name only", "a photo of a {c}.", "ensemble")):
        rows = [next(t for t in s.data["tables"] if t["title"] == "prompts")["rows"] for s in found]
        axes.plot([100 * row[i][1] for row in rows], range(len(found)), "os^"[i], ms=5,
                  color=SERIES[i], ls="none", label=label)  # fmt: skip
    axes.set_yticks(range(len(found)), [title_of(s) for s in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"score of each set's own metric, %; {model_of(found[0])}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def scaling(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """ImageNet error against the cost of an image, log-log (figure 9 for one set)."""
    found = [s for s in of_task(results, "zeroshot") if s.data["entry"] == "imagenet"]
    found = [s for s in found if s.data["model"].get("gflop_image")]
    if not found:
        return None
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    known = [(paper["gflop"][name], 100 - top, name) for name, top in paper["imagenet"].items()]
    axes.plot([x for x, _, _ in known], [y for _, y, _ in known], "D", mfc="none", mec=INK,
              ls="none", label="published")  # fmt: skip
    for x, y, name in known:
        axes.annotate(name, (x, y), (4, 4), textcoords="offset points", fontsize=7, color=MUTED)
    for i, stored in enumerate(found):
        top = stored.data["metrics"][metrics.TOP_1]["value"]
        axes.plot([stored.data["model"]["gflop_image"] / 2], [100 * (1 - top)], "o",
                  color=SERIES[i % len(SERIES)], ls="none", label=model_of(stored))  # fmt: skip
    logarithmic(axes, "x", "y")
    axes.set_xlabel("GFLOP of one image (a multiply-add is one)")
    axes.set_ylabel("zero-shot error on ImageNet, %")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def retrieval(results: Sequence[Stored], paper: Mapping[str, Any]) -> Figure | None:
    """Recall at 1, 5 and 10 in both directions, beside table 13."""
    found = of_task(results, "retrieval")
    if not found:
        return None
    sets = list(dict.fromkeys(map(title_of, found)))
    models = models_of(found)
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(sets)), layout="constrained")
    for axes, side in zip(figure.subplots(1, 2), ("image to text", "text to image"), strict=True):
        for stored in found:
            place = models.index(model_of(stored))
            values = [100 * stored.data["metrics"][f"{side} R@{k}"]["value"] for k in (1, 5, 10)]
            height = sets.index(title_of(stored)) + 0.18 * (place - (len(models) - 1) / 2)
            axes.plot(values, [height] * 3, "o-", ms=4, color=SERIES[place % len(SERIES)],
                      label=model_of(stored))  # fmt: skip
        for i, name in enumerate(sets):
            known = paper["retrieval"]["ViT-L/14@336px"].get(f"{name} {side}")
            if known:
                axes.plot(known, [i] * 3, "D", mfc="none", mec=INK, ls="none",
                          label="published: ViT-L/14@336px")  # fmt: skip
        axes.set_yticks(range(len(sets)), sets)
        axes.set_ylim(len(sets) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"{side}: recall at 1, 5, 10, %")
    named = {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside right upper")
    return figure


# In the order of the page; each with the caption it gets.
FIGURES: list[tuple[Draw, str]] = [
    (scores, "Zero-shot scores with 95% intervals (cf. table 11)"),
    (prompts, "Class name, one prompt, ensemble of prompts (cf. figure 4)"),
    (scaling, "ImageNet error and compute (cf. figure 9)"),
    (retrieval, "Retrieval (cf. table 13)"),
]
