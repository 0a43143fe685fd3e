"""Checkpoints that are whole or not there: RUN/checkpoints/step_00000500.pt with its .json.

The .json is written after the .pt is on disk and holds its sha256, so a checkpoint that a crash
or a full disk cut short is recognised, and the one before it is used. RUN/latest.json names the
newest, RUN/best.json the best by a metric. Files are read with weights_only: no code in them can
run. `Writer` writes in a thread, from a copy, while training goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wit.config import write_json
from wit.errors import CheckpointError, ConfigError

State = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """What a checkpoint is judged by; of a metric whose name ends in `loss`, less is better."""

    metric: str
    value: float

    @property
    def rank(self) -> float:
        """The smallest is the best."""
        return self.value if self.metric.endswith("loss") else -self.value


def score_of(found: Mapping[str, float], metric: str) -> Score | None:
    """What an evaluation says of a checkpoint; None where there was none, or no metric is asked.

    Raises:
        ConfigError: the evaluation has no such metric.
    """
    if not metric or not found:
        return None
    if metric not in found:
        raise ConfigError(f"loop.keep_best = {metric} is not one of {', '.join(sorted(found))}")
    return Score(metric, found[metric])


def save(run: Path, step: int, state: State, keep: int, score: Score | None = None) -> Path:
    """Write the state after `step` steps durably, name it in latest.json, delete old ones.

    Args:
        keep: the newest that stay; the best by `score` stays besides.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    temporary = path.with_suffix(".pt.tmp")
    try:
        with temporary.open("w+b") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk would stay full
        raise
    temporary.replace(path)
    mark = {"step": step, "file": path.name, "bytes": path.stat().st_size, "sha256": digest}
    if score is not None:
        mark |= {"metric": score.metric, "value": score.value}
    write_json(mark, path.with_suffix(".json"))
    write_json({"step": step, "checkpoint": f"checkpoints/{path.name}"}, run / "latest.json")
    kept = [mark for mark in marks(run) if mark.stem <= path.stem]
    best = _best(kept)
    if best is not None and (score is not None or best.stem == path.stem):
        about = {"checkpoint": f"checkpoints/{best.stem}.pt"}
        write_json(json.loads(best.read_text("utf-8")) | about, run / "best.json")
    stay = {*kept[:keep], *([best] if best is not None else [])}
    for old in set(marks(run)) - stay:  # later steps are damaged ones that were passed over
        old.unlink()  # the mark first: a file without one is no checkpoint
    names = {mark.stem for mark in stay}
    for left in folder.glob("step_*.pt*"):  # also what a kill left without a mark
        if left.name.partition(".")[0] not in names:
            left.unlink()
    return path


def _score(mark: Path) -> Score | None:
    try:
        about = json.loads(mark.read_text("utf-8"))
        return Score(about["metric"], about["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # without a metric, or damaged


def _best(kept: list[Path]) -> Path | None:
    """The best of the marks, by the metric of the newest score; NaN is never it."""
    scored = [(mark, score) for mark in kept if (score := _score(mark))]
    ranks = {
        mark: (score.rank, mark.stem)
        for mark, score in scored
        if score.metric == scored[0][1].metric and math.isfinite(score.value)
    }
    return min(ranks, key=lambda mark: ranks[mark], default=None)


class Writer:
    """Writes one checkpoint at a time, in a thread.

    `save` waits for the one before and takes a copy; what was asked for last is on disk once
    `wait` returns.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self._run, self._keep = run, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[Path] | None = None

    def save(self, step: int, state: State, score: Score | None = None) -> None:
        """Raises what the one before raised: a full disk, say."""
        self.wait()
        self._last = self._thread.submit(save, self._run, step, _on_host(state), self._keep, score)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
        if error[0] is None:  # else what went wrong first is what is told
            self.wait()

    def wait(self) -> None:
        """Until all is written."""
        last, self._last = self._last, None
        if last is None:
            return
        try:
            last.result()
        except (OSError, RuntimeError) as error:  # RuntimeError is torch's for a full disk
            first = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self._run}: a checkpoint can't be written: {first}; make room and run the same"
                " command again"
            ) from None


def _on_host(state: Any) -> Any:
    """A copy of all tensors in a tree, on the CPU, that later steps don't change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _on_host(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_on_host(value) for value in state)
    return state


@dataclass(frozen=True)
class Sound:
    """A checkpoint whose bytes are those written, unread; what was wrong with newer ones."""

    path: Path
    sha256: str
    problems: list[str]


@dataclass(frozen=True)
class Found:
    """A sound checkpoint, its file's sha256, and what was wrong with newer ones."""

    path: Path
    state: State
    sha256: str
    problems: list[str]


def load(run: Path, device: torch.device | str = "cpu") -> Found | None:
    """The newest sound checkpoint; None if there is none yet.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    sound = newest(run)
    if sound is None:
        return None
    try:
        state: State = torch.load(sound.path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{sound.path}: not a checkpoint of this project: {first}") from None
    return Found(sound.path, state, sound.sha256, sound.problems)


def newest(run: Path) -> Sound | None:
    """The newest sound checkpoint, unread; None if there is none yet.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    problems: list[str] = []
    for mark in marks(run):
        problem = _problem(mark)
        if problem is None:
            digest = json.loads(mark.read_text("utf-8"))["sha256"]
            return Sound(mark.with_suffix(".pt"), digest, problems)
        problems.append(problem)
    if problems:
        raise CheckpointError(
            f"{run}: no sound checkpoint: {problems[0]}; remove {run / 'checkpoints'} to start anew"
        )
    return None


def marks(run: Path) -> list[Path]:
    """The .json files of a run's checkpoints, the newest first."""
    return sorted((run / "checkpoints").glob("step_*.json"), reverse=True)


def _problem(mark: Path) -> str | None:
    path = mark.with_suffix(".pt")
    try:
        expected = json.loads(mark.read_text("utf-8"))
        size, digest = expected["bytes"], expected["sha256"]
    except (ValueError, KeyError, TypeError):
        return f"{mark}: damaged"
    if not path.is_file():
        return f"{path}: is missing"
    if path.stat().st_size != size:
        return f"{path}: {path.stat().st_size} bytes, expected {size}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            return f"{path}: its sha256 differs from the one noted when it was written"
    return None
