"""Accuracies under all shifts side by side, as in table 16 of the CLIP paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval import registry
from eval.figures import model_of, models_of, of_task, published, title_of
from eval.report import Table
from eval.results import Stored
from eval.shift import FITTED, NAMES, OWN, REFERENCE

WAYS = {"zero-shot": (OWN, NAMES), "fitted to the reference": (FITTED, FITTED)}
FRAMES = ("pm-0", "pm-10")


def table(results: Sequence[Stored], with_published: bool = True) -> Table:
    """A row for each model and way to answer, a column for each set; of clips, pm-0 and pm-10.

    Zero-shot answers by each set's own names. `reference` is of all its classes; it is the same
    in every result of a model. Published rows are marked so.
    """
    found = of_task(results, "shift")
    columns = _columns(found)
    rows: list[tuple[Any, ...]] = []
    for model in models_of(found):
        mine = {title_of(stored): stored.data for stored in found if model_of(stored) == model}
        for way, (metric, on_reference) in WAYS.items():
            row = [_reference(mine, on_reference)]
            row += [_value(mine.get(name), metric, frames) for name, frames in columns]
            if any(value is not None for value in row):
                rows.append((f"{model}: {way}", *row))
    if with_published:
        for name, values in published()["shift"].items():
            known = [values.get(" ".join(column).strip()) for column in columns]
            if any(value is not None for value in known):
                known = [values["imagenet"], *known]
                rows.append(
                    (f"published: {name}", *(None if v is None else v / 100 for v in known))
                )
    heads = [" ".join(column).strip() + " %" for column in columns]
    return Table("shifts", ("", "reference %", *heads), tuple(rows))


def _columns(found: Sequence[Stored]) -> list[tuple[str, str]]:
    """Set and, where it is of clips, which frames count; the paper's sets in its order."""
    order = list(registry.read().entries)
    names = sorted(
        {title_of(stored) for stored in found},
        key=lambda name: (order.index(name) if name in order else len(order), name),
    )
    of_clips = {
        title_of(stored) for stored in found if f"{OWN}, {FRAMES[0]}" in stored.data["metrics"]
    }
    return [(name, frames) for name in names for frames in (FRAMES if name in of_clips else ("",))]


def _value(data: Mapping[str, Any] | None, metric: str, frames: str) -> float | None:
    if data is None:
        return None
    found = data["metrics"].get(f"{metric}, {frames}" if frames else metric)
    return None if found is None else float(found["value"])


def _reference(mine: Mapping[str, Mapping[str, Any]], way: str) -> float | None:
    for data in mine.values():
        for one in data["tables"]:
            for row in one["rows"]:
                if one["title"] == REFERENCE and row[0] == way:
                    return float(row[1])
    return None
