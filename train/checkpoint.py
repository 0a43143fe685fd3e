"""Checkpoints that are whole or not there: RUN/checkpoints/step_00000500.pt with its .json.

The .json is written after the .pt is on disk and holds its sha256, so a checkpoint that a crash
or a full disk cut short is recognised, and the one before it is used. RUN/latest.json names the
newest. Files are read with weights_only: no code in them can run.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wit.config import write_json
from wit.errors import CheckpointError

State = dict[str, Any]


def save(run: Path, step: int, state: State, keep: int) -> Path:
    """Write the state after `step` steps durably, name it in latest.json, delete old ones."""
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    temporary = path.with_suffix(".pt.tmp")
    with temporary.open("w+b") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    temporary.replace(path)
    mark = {"step": step, "file": path.name, "bytes": path.stat().st_size, "sha256": digest}
    write_json(mark, path.with_suffix(".json"))
    write_json({"step": step, "checkpoint": f"checkpoints/{path.name}"}, run / "latest.json")
    kept = [mark for mark in marks(run) if mark.stem <= path.stem][:keep]
    for old in set(marks(run)) - set(kept):  # later steps are damaged ones that were passed over
        old.unlink()  # the mark first: a file without one is no checkpoint
        old.with_suffix(".pt").unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class Sound:
    """A checkpoint whose bytes are those written, unread; what was wrong with newer ones."""

    path: Path
    sha256: str
    problems: list[str]


@dataclass(frozen=True)
class Found:
    """A sound checkpoint, its file's sha256, and what was wrong with newer ones."""

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
    return Found(state, sound.sha256, sound.problems)


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
