"""Results for other readers: CLIP_benchmark's CSV, a Markdown table, a page with figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eval import figures, metrics, registry, shift_table, stats
from eval.figures import model_of, models_of
from eval.report import cell
from eval.results import Stored
from eval.stats import Interval
from wit import page

# Our metrics by the names that CLIP_benchmark gives them.
NAMES = {
    "zeroshot": ("zeroshot_classification", {
        metrics.TOP_1: "acc1", metrics.TOP_5: "acc5", metrics.PER_CLASS: "mean_per_class_recall",
        metrics.MAP: "mean_average_precision"}),
    "retrieval": ("zeroshot_retrieval", {
        f"{ours} R@{k}": f"{theirs}_retrieval_recall@{k}"
        for ours, theirs in (("text to image", "image"), ("image to text", "text"))
        for k in (1, 5, 10)}),
    "probe": ("linear_probe", {
        metrics.TOP_1: "lp_acc1", metrics.TOP_5: "lp_acc5",
        metrics.PER_CLASS: "lp_mean_per_class_recall"}),
}  # fmt: skip


def write_all(results: Sequence[Stored], out: Path, drawn: Sequence[tuple[str, str]] = ()) -> None:
    """OUT/results.csv, results.md and report.html; the paper's sets in its order, others last.

    Args:
        drawn: captions and SVG of further figures.
    """
    order = list(registry.read().entries)

    def place(stored: Stored) -> int:
        entry = stored.data["entry"]
        return order.index(entry) if entry in order else len(order)

    results = sorted(results, key=place)
    page.write(out / "results.csv", benchmark_csv(results))
    page.write(out / "results.md", markdown(results))
    page.write(out / "report.html", html_page(results, drawn))


def benchmark_csv(results: Iterable[Stored]) -> str:
    """The table that CLIP_benchmark's `build` writes, for the tasks that it has too."""
    rows, columns = [], ["dataset", "model", "pretrained", "task", "language", "model_fullname"]
    for stored in results:
        if stored.data["task"] not in NAMES:
            continue
        task, names = NAMES[stored.data["task"]]
        model = stored.data["model"]
        name, run = str(model.get("name", "")), str(model.get("run", ""))
        row = {"dataset": figures.title_of(stored), "model": name, "pretrained": run,
               "task": task, "language": "en", "model_fullname": f"{name} {run}"}  # fmt: skip
        for ours, metric in stored.data["metrics"].items():
            if ours in names:
                row[names[ours]] = metric["value"]
        columns += [column for column in row if column not in columns]
        rows.append(row)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def averages(results: Sequence[Stored]) -> list[tuple[str, str, int, float, list[Interval]]]:
    """For each model and suite: the mean of the sets' main metrics, of those all models have.

    Returns:
        Model, suite, number of sets, mean, its interval for these sets, and with three sets or
        more the one for sets like them.
    """
    found = []
    for suite in dict.fromkeys(stored.suite for stored in results):
        mine = [stored for stored in results if stored.suite == suite]
        by_model = {model: {s.data["set"]: s for s in mine if model_of(s) == model}
                    for model in models_of(mine)}  # fmt: skip
        shared = set.intersection(*(set(sets) for sets in by_model.values()))
        if len(shared) < 2:
            continue
        for model, sets in by_model.items():
            mains = [sets[name].main for name in sorted(shared)]
            value_S = [main["value"] for main in mains]
            ends = [main["interval_95"] for main in mains]
            intervals = [Interval(low, high, "") for low, high in ends]
            fixed = stats.mean_of_sets(value_S, intervals)
            mean = sum(value_S) / len(value_S)
            spread = [stats.t_interval(np.array(value_S))] if len(value_S) > 2 else []
            found.append((model, suite, len(value_S), mean, [fixed, *spread]))
    return found


def _rows(results: Sequence[Stored]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for stored in results:
        for name, metric in stored.data["metrics"].items():
            low, high = metric["interval_95"]
            rows.append(
                (
                    model_of(stored),
                    figures.title_of(stored),
                    stored.data["task"],
                    name + (" *" if name == stored.data["main"] else ""),
                    f"{100 * metric['value']:.1f}",
                    f"{100 * low:.1f} – {100 * high:.1f}",
                    f"{100 * metric['chance']:.1f}",
                    f"{metric['n']:,}",
                    stored.data["protocol_hash"],
                )
            )
    return rows


COLUMNS = ("model", "set", "task", "metric", "%", "95% interval", "chance", "n", "protocol")
AVERAGE_COLUMNS = ("model", "suite", "sets", "mean, %", "95%, these sets", "95%, sets like them")
SHIFTS = "Accuracies under shifts, as in table 16; rows of the paper are marked as published."
ABOUT = "Numbers compare only where the protocol is equal. * stands for the set in averages."


def _average_rows(results: Sequence[Stored]) -> list[tuple[str, ...]]:
    rows = []
    for model, suite, n, mean, intervals in averages(results):
        ends = [f"{100 * i.low:.1f} – {100 * i.high:.1f}" for i in intervals]
        rows.append((model, suite, str(n), f"{100 * mean:.1f}", *ends, *[""] * (2 - len(ends))))
    return rows


def _shift_rows(results: Sequence[Stored]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of the accuracies under shifts."""
    table = shift_table.table(results)
    rows = [
        tuple(cell(column, value) for column, value in zip(table.columns, row, strict=True))
        for row in table.rows
    ]
    return table.columns, rows


def markdown(results: Sequence[Stored]) -> str:
    """All numbers, and the averages of the suite, as tables."""
    parts = [_markdown_table(COLUMNS, _rows(results)), ABOUT]
    mean_rows = _average_rows(results)
    if mean_rows:
        parts.append(_markdown_table(AVERAGE_COLUMNS, mean_rows))
    if figures.of_task(results, "shift"):
        parts += [SHIFTS, _markdown_table(*_shift_rows(results))]
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in lines)


def html_page(results: Sequence[Stored], drawn: Sequence[tuple[str, str]] = ()) -> str:
    """One HTML file: averages, figures, all numbers, and what stands behind each, folded."""
    models = ", ".join(models_of(results))
    head = f"<h1>Evaluation</h1>\n<p><bdi>{page.text(models, 2000)}</bdi></p>\n"
    parts = []
    mean_rows = _average_rows(results)
    if mean_rows:
        table = page.table(AVERAGE_COLUMNS, mean_rows, "Averages")
        parts.append(page.section("averages", "Averages", [table]))
    shown = [page.figure(svg, caption) for caption, svg in (*figures.draw(results), *drawn)]
    if shown:
        parts.append(page.section("figures", "Figures", shown))
    if figures.of_task(results, "shift"):
        columns, shift_rows = _shift_rows(results)
        table = page.table(columns, shift_rows, "Shifts")
        parts.append(page.section("shifts", "Shifts", [f"<p>{SHIFTS}</p>", table]))
    numbers = [f"<p>{ABOUT}</p>", page.table(COLUMNS, _rows(results), "All numbers")]
    parts.append(page.section("numbers", "All numbers", numbers + [_details(s) for s in results]))
    return page.page("Evaluation", parts, head)


def _details(stored: Stored) -> str:
    """The tables and notes of one result, folded."""
    data = stored.data
    inner = [f"<p>{page.text(note, 2000)}</p>" for note in data["notes"]]
    inner += [
        f"<p>left out: {page.text(bad['key'])} ({page.text(bad['reason'])})</p>"
        for bad in data["bad_samples"]
    ]
    for table in data["tables"]:
        rows = [
            [cell(column, value) for column, value in zip(table["columns"], row, strict=True)]
            for row in table["rows"]
        ]
        title = table["title"]
        inner += [f"<h3>{page.text(title)}</h3>", page.table(table["columns"], rows, title, 2000)]
    title = f"{model_of(stored)}: {figures.title_of(stored)}, {data['task']}"
    return page.folded(title, "".join(inner))
