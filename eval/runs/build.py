"""The page of one run or several: what they are, curves, evaluations, failures. Read this first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.figures import title_of
from eval.results import Stored
from eval.runs import charts
from eval.runs.history import History, Points, read, step_of
from train.runs_command import differences
from wit import page
from wit.charts import style, svg
from wit.errors import CheckpointError, CorpusError, InputError
from wit.progress import Progress, duration
from wit.report_command import ReportConfig

if TYPE_CHECKING:
    from eval.runs.failures import Failure

SHOWN = 12  # failures of a run
WITH_FAILURES = 3  # runs whose failures are looked for: the first ones
LONG = 60  # lines of a table


def write(config: ReportConfig, out: Path) -> None:
    """Write the page of the runs that `config` names.

    Raises:
        InputError: a run without config or metrics.
    """
    runs = read(config.paths)
    several = len(runs) > 1
    sections = [
        ("runs", "The runs" if several else "The run", overview(runs)),
        ("training", "Training", training(runs)),
        ("evaluation", "Evaluation", evaluation(runs)),
        ("failures", "Nearest-neighbour failures", failures(config, runs)),
    ]
    names = ", ".join(f"<bdi>{page.text(run.name, 60)}</bdi>" for run in runs)
    links = page.contents((name, heading) for name, heading, _ in sections)
    cards = "" if several else page.cards(_numbers(runs[0]))
    head = f"<header><h1>{'Runs' if several else 'Run'} {names}</h1>{cards}</header>\n{links}"
    parts = [page.section(*each) for each in sections]
    title = f"{'Runs' if several else 'Run'} {', '.join(run.name for run in runs)}"
    page.write(out, page.page(title[:200], parts, head))


def _numbers(run: History) -> list[tuple[str, str]]:
    last = run.about["metrics"]
    found = [("state", str(run.about["state"]))]
    for key, name, form in (("step", "steps", "{:,.0f}"), ("epoch", "epochs", "{:.1f}"),
                            ("loss", "last loss", "{:.3f}"),
                            ("accuracy", "accuracy in the batch", "{:.1%}"),
                            ("samples_per_second", "samples per second", "{:,.0f}")):  # fmt: skip
        if isinstance(last.get(key), int | float):
            found.append((name, form.format(last[key])))
    if isinstance(last.get("seconds"), int | float):
        found.append(("time in steps", duration(last["seconds"])))
    return found


def overview(runs: Sequence[History]) -> list[str]:
    """Where each run stands, and in what they differ."""
    columns = ("run", "state", "step", "epoch", "loss", "lowest loss", "accuracy %", "samples/s",
               "hours")  # fmt: skip
    rows = []
    for run in runs:
        last = run.about["metrics"]
        values = [last.get(key) for key in ("step", "epoch", "loss")]
        rows.append([run.name, run.about["state"], *values, run.about["lowest_loss"],
                     _times(last.get("accuracy"), 100), last.get("samples_per_second"),
                     _times(last.get("seconds"), 1 / 3600)])  # fmt: skip
    parts = [page.table(columns, rows, "Runs")]
    names = [run.name for run in runs]
    settings = [run.about["settings"] for run in runs]
    if len(runs) > 1:
        changed = differences([run.about for run in runs])
        table = page.table(("setting", *names), [[key, *v] for key, v in changed.items()],
                           "Settings that differ", 120)  # fmt: skip
        parts += ["<h3>Settings that differ</h3>", table if changed else "<p>None.</p>"]
    keys = sorted({key for each in settings for key in each})
    lines = [[key, *(each.get(key, "") for each in settings)] for key in keys]
    table = page.table(("setting", *names), lines, "All settings", 120)
    return [*parts, page.folded("All settings", table)]


def _times(value: object, factor: float) -> float | None:
    return value * factor if isinstance(value, int | float) else None


def training(runs: Sequence[History]) -> list[str]:
    """Loss, accuracy, scale, learning rate, throughput, waiting, use of the device."""
    drawn = []
    with style():
        for key, caption, words, factor, log in charts.METRICS:
            figure = charts.metric(runs, key, words, factor, log)
            if figure is not None:
                lines = _lines([(run.name, run.points(key)) for run in runs], key)
                drawn.append(page.figure(svg(figure, caption), caption, lines))
        if not any(run.points("mfu") for run in runs):
            figure = charts.arithmetic(runs)
            if figure is not None:
                caption = "Arithmetic, by the count of `wit models`; no MFU is recorded"
                lines = _lines([(run.name, run.arithmetic()) for run in runs], "TFLOP/s")
                drawn.append(page.figure(svg(figure, caption), caption, lines))
    if not drawn:
        return ["<p>No step has been logged yet.</p>"]
    return [f'<div class="charts">{"".join(drawn)}</div>']


def _lines(points: Sequence[tuple[str, Points]], what: str) -> str:
    """Some twenty points of each run as a table."""
    rows = []
    for name, mine in points:
        apart = max(1, len(mine) // 20)
        some = mine[::apart] + ([mine[-1]] if (len(mine) - 1) % apart else []) if mine else []
        rows += [[name, step, value] for step, value in some]
    return page.table(("run", "step", what), rows, what)


def evaluation(runs: Sequence[History]) -> list[str]:
    """What was measured while training, and the results of `wit eval`."""
    names = list(dict.fromkeys(name for run in runs for name in run.measured))
    losses = [name for name in names if "loss" in name.rpartition("/")[2]]
    drawn = []
    with style():
        for some, caption, words in ((losses, "Loss on pairs kept for validation", "loss"),
                                     ([n for n in names if n not in losses],
                                      "Measured while training", "value")):  # fmt: skip
            for start in range(0, len(some), charts.SETS):
                part = some[start : start + charts.SETS]
                title = caption if start == 0 else f"{caption} ({start // charts.SETS + 1})"
                rows = [
                    [run.name, n, step, v]
                    for run in runs
                    for n in part
                    for step, v in run.points(n)
                ]
                table = page.table(("run", "what", "step", "value"), rows[-LONG:], title)
                figure = charts.measured(runs, part, words)
                drawn.append(page.figure(svg(figure, title), title, table))
        sets = list(dict.fromkeys(stored.name for run in runs for stored in run.evaluations))
        for start in range(0, min(len(sets), 6 * charts.SETS), charts.SETS):
            part_of = sets[start : start + charts.SETS]
            title = "Results of wit eval over steps" + (
                f" ({start // charts.SETS + 1})" if start else ""
            )
            drawn.append(page.figure(svg(charts.evaluations(runs, part_of), title), title))
    rows = [[run.name, *_result(stored)] for run in runs for stored in run.evaluations]
    if not drawn:
        return ["<p>Nothing was evaluated: <code>wit eval --run RUN --set DIR</code>.</p>"]
    columns = ("run", "set", "task", "step", "metric", "%", "95% interval", "chance %", "n")
    table = page.table(columns, rows, "Results of wit eval") if rows else ""
    return [f'<div class="charts">{"".join(drawn)}</div>', table]


def _result(stored: Stored) -> list[object]:
    """A result of `wit eval` as a line of the table."""
    main = stored.main
    low, high = (100 * end for end in main["interval_95"])
    numbers = [100 * main["value"], f"{low:.1f} – {high:.1f}", 100 * main["chance"], main["n"]]
    name, data = title_of(stored), stored.data
    return [name, data["task"], step_of(stored), data["main"], *numbers]


def failures(config: ReportConfig, runs: Sequence[History]) -> list[str]:
    """Pictures whose nearest captions are wrong, among some pairs of the corpus."""
    if not config.failures:
        return ["<p>They were not looked for.</p>"]
    from eval.runs.failures import find

    parts = [
        "<p>Pictures that the model puts nearer to the captions of other pairs than to their own;"
        " the worst first. A caption that says the same counts as right.</p>"
    ]
    for run in runs[:WITH_FAILURES]:
        if len(runs) > 1:
            parts.append(f"<h3><bdi>{page.text(run.name, 60)}</bdi></h3>")
        shards = config.pairs or Path(str(run.config.get("corpus", "")).split("::")[0])
        progress = Progress("failures")
        try:
            found = find(run.path, shards, config.failures, config.seed, progress)
        except (InputError, CheckpointError, CorpusError) as error:
            parts.append(f'<p class="note">Not looked for: {page.text(error, 400)}</p>')
            continue
        trained = "" if config.pairs else ", on which it was trained"
        lost = f"; {found.unusable:,} more could not be read" if found.unusable else ""
        parts.append(
            f"<p>Among {found.n:,} pairs of <bdi>{page.text(shards, 120)}</bdi>{trained}{lost}:"
            f" {found.right:,} pictures ({found.right / found.n:.1%}) are nearest to their own"
            f" caption; chance would be {1 / found.n:.2%}.</p>"
        )
        items = (_failure(failure, found.n) for failure in found.failures[:SHOWN])
        parts.append(f'<ul class="pairs wide">{"".join(items)}</ul>')
    return parts


def _failure(failure: Failure, n: int) -> str:
    """A picture with its own caption, beside the captions that are nearest."""
    near = "".join(
        f"<li><bdi>{page.text(text, 160)}</bdi> <small>{cosine:.2f}</small></li>"
        for text, cosine in failure.nearest
    )
    own = failure.pair.text
    picture = page.thumbnail(failure.pair.picture, own)
    return (
        f'<li><div class="sides"><div>{picture}<p><b>its caption</b>'
        f" <bdi>{page.text(own, 160)}</bdi></p><small>cosine {failure.own:.2f}, place"
        f" {failure.rank + 1:,} of {n:,}</small></div>"
        f"<div><b>nearest</b><ol>{near}</ol></div></div></li>"
    )
