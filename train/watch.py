"""Who waits for whom: a thread of each process that notices when nothing goes on, and says why.

Each process notes in RUN/beats/ what it is doing, for which step, and a number that rises as long
as the process lives at all. So one that was stopped (SIGSTOP, a machine gone) is told from one
whose loader hangs, and from those that only wait for it. Files and not messages: messages would
go through the process that may be the one that is missing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from train.dist import World
from wit.progress import duration

STUCK = 75  # exit code: a temporary failure (sysexits.h); torchrun starts such a run anew
ENDS = ("data", "step")  # what may end a process; all else may honestly take long
DOING = {
    "start": "starts",
    "data": "waits for its own data",
    "step": "is in the step",
    "save": "saves",
    "validate": "validates",
}


class Watch:
    """Notes what this process does; its thread looks at all others when that takes too long."""

    def __init__(
        self,
        run: Path,
        world: World,
        seconds: float,
        give_up: float = 0.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """
        Args:
            seconds: without progress before anything is said; it is said again each time as long.
            give_up: seconds in a step or without data after which the process ends; 0: never.
        """
        self._folder, self._world = run / "beats", world
        self._seconds, self._give_up = seconds, give_up
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self._phase, self._step, self._since = "start", 0, time.monotonic()
        self._beat = 0
        self._end = threading.Event()
        self._seen: dict[int, tuple[Any, float]] = {}  # the last note of a process, and since when

    def now(self, phase: str, step: int) -> None:
        """This process begins something: a key of `DOING`."""
        self._phase, self._step, self._since = phase, step, time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The thread runs inside."""
        self._folder.mkdir(parents=True, exist_ok=True)
        thread = threading.Thread(target=self._run, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            with suppress(OSError):
                self._path(self._world.rank).unlink()
                self._folder.rmdir()

    def _run(self) -> None:
        said = 0.0
        while not self._end.wait(min(5.0, self._seconds / 8)):
            self._beat += 1
            self._note()
            self._look()
            stuck = time.monotonic() - self._since
            if stuck < self._seconds:
                said = 0.0
            elif stuck - said >= self._seconds:
                said = stuck
                self._say(self.report(stuck))
            if self._give_up and stuck > self._give_up and self._phase in ENDS:
                self._stop(stuck)

    def report(self, stuck: float) -> str:
        """One line: what this process waits for, and what each of the others does."""
        here = self._world
        mine = f"rank {here.rank} {DOING[self._phase]} {self._step} since {duration(stuck)}"
        if here.size == 1:
            return f"stuck: {mine}"
        silent, at_work = [], []
        for rank in range(here.size):
            if rank == here.rank:
                continue
            note, since = self._seen.get(rank, (None, self._since))
            quiet = time.monotonic() - since
            if quiet > self._seconds / 2:
                about = "never seen"
                if note:
                    about = f"process {note['pid']} on {note['host']}, which"
                    about += f" {DOING[note['phase']]} {note['step']}"
                silent.append(f"rank {rank}: no sign of life since {duration(quiet)} ({about})")
            elif note and (note["step"], note["phase"]) != (self._step, self._phase):
                at_work.append(f"rank {rank} {DOING[note['phase']]} {note['step']}")
        others = silent + at_work or ["all others are there too"]
        return f"stuck: {mine}; it waits for: {', '.join(others)}"

    def _note(self) -> None:
        about = {
            "phase": self._phase,
            "step": self._step,
            "beat": self._beat,
            "pid": os.getpid(),
            "host": os.uname().nodename,
        }
        path = self._path(self._world.rank)
        with suppress(OSError):  # a full disk is no reason to stop
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(about), "utf-8")
            temporary.replace(path)

    def _look(self) -> None:
        for rank in range(self._world.size):
            try:
                note = json.loads(self._path(rank).read_text("utf-8"))
            except (OSError, ValueError):
                continue
            before = self._seen.get(rank)
            if before is None or before[0] != note:
                self._seen[rank] = (note, time.monotonic())

    def _stop(self, stuck: float) -> NoReturn:
        self._say(
            f"rank {self._world.rank} gives up after {duration(stuck)}; the same command goes on"
        )
        sys.stdout.flush()
        os._exit(STUCK)  # the main thread can't be asked

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.json"
