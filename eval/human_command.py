"""`wit eval human`: name a set's pictures in a browser, and what the answers say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wit.config import Settings, load, write_json
from wit.errors import InputError

PROBABILITY = "probability of the right class"


class HumanConfig(Settings):
    """Serve a page on which people name the pictures of a set, or analyse what they said."""

    set: Path
    """Classification set, of any layout of `wit eval`; pictures of split train help."""
    out: Path = Path("data/human")
    """Folder of the study: answers.jsonl, study.json, human.json."""
    split: str = Field("test", pattern=r"^[A-Za-z0-9_-]+$")
    """Split whose pictures are asked."""
    analyse: bool = False
    """Print the numbers of the answers so far in place of serving the page."""
    model: Path | None = None
    """SET-zeroshot.parquet or SET-probe.parquet of a model, for the comparison by class."""
    people: int = Field(5, ge=1)
    """People who name each picture."""
    check_every: int = Field(20, ge=1)
    """An attention check follows so many pictures."""
    most: int | None = Field(None, ge=1)
    """Pictures of one person in each round (default: as long as there are any)."""
    port: int = Field(0, ge=0, le=65535)
    """Port on 127.0.0.1; 0 takes a free one."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Images that declare more pixels than this are not shown."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0)
    """Seed of the order, of the sample pictures and of the bootstrap."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(HumanConfig, argv, prog="wit eval human")
    from eval.evalset import EvalSet
    from eval.human_study import Study
    from eval.pages.server import serve
    from eval.sets import open_set

    data: EvalSet = open_set(config.set, config.split, ("train",))
    if data.kind != "classification":
        raise InputError(f"{config.set}: a {data.kind} set; people are asked for one class")
    study = Study(data, config.out, config.people, config.check_every, config.most, config.seed)
    if config.analyse:
        report = analyse(study.journal.rows, data.classes, config)
        write_json(report, config.out / "human.json")
        print(f"results: {config.out / 'human.json'}")
        return 0
    actions = {"next": study.next, "answer": study.answer}
    with serve("human", actions, study.picture, config.port, config.max_pixels) as address:
        print(f"open {address}\nctrl-c stops; every answer is kept in {config.out}", flush=True)
        while True:
            time.sleep(3600)


def analyse(
    rows: Sequence[dict[str, Any]], classes: Sequence[str], config: HumanConfig
) -> dict[str, Any]:
    """Print and return the numbers of every round that has answers.

    Raises:
        InputError: no answers yet.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from eval import human_analysis as human

    if not any(not row["check"] for row in rows):
        raise InputError(f"{config.out}: no answers yet; serve the page first, without --analyse")
    table = Table(title="people, in per cent; intervals are 95%", title_justify="left", box=SIMPLE)
    for column in ("sample pictures", *human.NUMBERS):
        table.add_column(column)
    report: dict[str, Any] = {"rounds": {}}
    model = {} if config.model is None else model_by_class(config.model, len(classes))
    for shots in sorted({row["shots"] for row in rows if not row["check"]}):
        answers = human.answers_of(rows, shots, len(classes))
        found = human.numbers(answers, config.resamples, config.seed)
        table.add_row(str(shots), *(
            f"{100 * n.value:.1f} ({100 * n.interval.low:.1f} – {100 * n.interval.high:.1f})"
            for n in found.values()
        ))  # fmt: skip
        entry: dict[str, Any] = {
            name: {
                "value": n.value,
                "interval_95": list(n.interval[:2]),
                "method": n.interval.method,
            }
            for name, n in found.items()
        }
        entry["answers"] = len(answers.said_A)
        entry["people"] = int(answers.person_A.max()) + 1
        by_class = human.accuracy_by_class(answers)
        entry["by_class"] = _named(classes, by_class)
        if model:
            entry["hardness"] = {}
            entry["model_by_class"] = _named(classes, model[PROBABILITY])
        for what, model_C in model.items():
            try:
                entry["hardness"][what] = human.hardness(by_class, model_C)._asdict()
            except ValueError as error:
                entry["hardness"][what] = str(error)
        report["rounds"][str(shots)] = entry
    Console().print(table)
    checks = human.attention(rows)
    if checks is not None:
        passed, total, interval = checks
        report["attention"] = {"passed": passed, "of": total, "interval_95": list(interval[:2])}
        print(f"attention checks: {passed} of {total} passed")
    _print_hardness(report)
    return report


def _named(classes: Sequence[str], value_C: NDArray[np.float64]) -> dict[str, float | None]:
    pairs = zip(classes, value_C, strict=True)
    return {name: None if np.isnan(value) else float(value) for name, value in pairs}


def _print_hardness(report: dict[str, Any]) -> None:
    for shots, entry in report["rounds"].items():
        for what, h in entry.get("hardness", {}).items():
            if isinstance(h, dict):
                print(
                    f"{shots} sample pictures, people's accuracy by class beside the model's"
                    f" {what}: r {h['pearson']:.2f} (p {h['pearson_p']:.2g}), Spearman"
                    f" {h['spearman']:.2f} (p {h['spearman_p']:.2g}), {h['classes']} classes"
                )


def model_by_class(path: Path, classes: int) -> dict[str, NDArray[np.float64]]:
    """A model's accuracy and its mean probability of the right class (figure 16), both by class
    (C,), NaN where it has no picture.

    Raises:
        InputError: not predictions of a classifier, or of another number of classes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["label", "rank", "probability"]
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: can't be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path}: no column {missing[0]}; give predictions of zero-shot or a probe"
        )
    label_N, rank_N, share_N = (table[name].to_numpy() for name in columns)
    if len(label_N) and label_N.max() >= classes:
        raise InputError(f"{path}: has class {label_N.max()}, and the set has {classes} classes")
    count_C = np.bincount(label_N, minlength=classes)

    def mean_C(value_N: NDArray[Any]) -> NDArray[np.float64]:
        total_C = np.bincount(label_N, weights=value_N, minlength=classes)
        return np.where(count_C > 0, total_C / np.maximum(count_C, 1), np.nan)

    return {"accuracy": mean_C(rank_N == 0), PROBABILITY: mean_C(share_N)}
