"""What training runs left behind: metrics by step, settings, results of evaluations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval import results
from eval.results import Stored
from train import cost
from train.config import ModelConfig
from train.runs_command import describe
from wit.errors import InputError

PASSES = 3  # of a training step: forward, and backward for weights and for activations
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class History:
    """One run.

    Attributes:
        path: its folder.
        name: what it is called beside the others.
    """

    path: Path
    name: str

    @cached_property
    def about(self) -> dict[str, Any]:
        """As `wit runs --json` has it."""
        return describe(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "config.json").read_bytes())["config"]
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that are whole, by step."""
        found = []
        for line in (self.path / "metrics.jsonl").read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # it is being written, or a crash cut it off
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int | float):
                found.append(row)
        return sorted(found, key=lambda row: float(row["step"]))

    def points(self, key: str) -> Points:
        """(step, value) of a metric."""
        return [(row["step"], row[key]) for row in self.rows if _number(row.get(key))]

    @property
    def measured(self) -> list[str]:
        """Names of what was evaluated while training: they stand in lines without a loss."""
        names = [key for row in self.rows if "loss" not in row for key in row if key != "step"]
        return list(dict.fromkeys(names))

    @property
    def batch(self) -> int:
        """Samples of a step."""
        return int(self.config.get("batch", 1))

    def arithmetic(self) -> Points:
        """(step, TFLOP/s) that the rate of samples comes to, by the published model's count."""
        try:
            model = ModelConfig.model_validate(self.config["model"])
        except (KeyError, ValidationError):
            return []
        flops = PASSES * (cost.image_cost(model).flops + cost.text_cost(model).flops)
        return [(step, rate * flops / 1e12) for step, rate in self.points("samples_per_second")]

    @cached_property
    def evaluations(self) -> list[Stored]:
        """Results of `wit eval` of every checkpoint that was evaluated, also of those put aside."""
        inside = self.path / "eval"
        folders = [inside, *sorted(path for path in inside.glob("*") if path.is_dir())]
        found = []
        for folder in folders:
            try:
                found += results.load(folder, skip_older=True)
            except InputError:  # none there
                continue
        return sorted(found, key=lambda stored: (stored.name, step_of(stored)))


def step_of(stored: Stored) -> int:
    """The step of the checkpoint that was evaluated."""
    step = stored.data["model"].get("step", 0)
    return int(step) if _number(step) else 0


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read(paths: Sequence[Path]) -> list[History]:
    """The runs, each under the shortest name that tells it from the others.

    Raises:
        InputError: no config or no metrics, or damaged.
    """
    paths = list(dict.fromkeys(paths))
    for path in paths:
        for name, mend in (("config.json", "give a run of `wit train`"),
                           ("metrics.jsonl", "train some steps first")):  # fmt: skip
            if not (path / name).is_file():
                raise InputError(f"{path / name}: no such file; {mend}")
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    found = [History(path, name) for path, name in zip(paths, names, strict=True)]
    for history in found:
        history.about  # noqa: B018  says what is damaged before anything is drawn
    return found
