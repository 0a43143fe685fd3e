"""A run directory is one config's and one training's at a time; SIGTERM ends its sitting."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from train import checkpoint
from train.config import TrainConfig, identity
from train.dist import World
from wit.errors import CheckpointError, ConfigError


def refuse_other_config(config: TrainConfig) -> None:
    """Raises CheckpointError when the run directory holds checkpoints of another config."""
    if not checkpoint.marks(config.run):
        return
    try:
        stored = json.loads((config.run / "config.json").read_text("utf-8"))["config"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{config.run}/config.json: missing or damaged") from None
    now = config.identity()
    before = TrainConfig().identity() | identity(stored)  # keys that came later have their defaults
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise CheckpointError(
                f"{config.run}: was trained with {key} = {before.get(key)}, not {now.get(key)};"
                " give another --run, or remove that directory"
            )


@contextmanager
def locked(run: Path, here: World) -> Iterator[None]:
    """Two trainings in one directory would overwrite each other."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"run = {run} is a file; give a directory") from None
    with (run / ".lock").open("w") as file:
        if here.main:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(f"{run}: another process trains here; wait for it") from None
        yield


@contextmanager
def sigterm() -> Iterator[list[int]]:
    """A list that gets the signal's number when SIGTERM or the first Ctrl-C comes; the loop saves
    and stops then. A second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            text = "\nstopping after this step; Ctrl-C again stops at once\n"
            os.write(sys.stderr.fileno(), text.encode())  # print isn't safe in a handler

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def lines_of(path: Path) -> list[str]:
    """Whole lines of a file that a crash may have cut short; none if it isn't there."""
    if not path.is_file():
        return []
    text = path.read_text("utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def cut_back(path: Path, step: int) -> None:
    """Drop the lines of a JSONL file that are of later steps, which are done again."""
    kept = [line for line in lines_of(path) if json.loads(line)["step"] <= step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), "utf-8")
    temporary.replace(path)
