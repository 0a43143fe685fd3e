"""What a run says: progress lines, RUN/metrics.jsonl, TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib
import json
import math
import sys
from typing import Any

from train.config import TrainConfig
from train.live import Live, line
from train.rundir import cut_back, lines_of
from wit.errors import MissingExtra, SampleError

Row = dict[str, float]


class Log:
    """Writes one row per progress line to every place that was asked for.

    Only the main process of a run writes rows; bad samples are noted by each process.
    """

    def __init__(self, config: TrainConfig, rank: int) -> None:
        self._config, self._main = config, rank == 0
        name = f"bad_samples.rank{rank}.jsonl" if rank else "bad_samples.jsonl"
        self._bad = config.run / name
        self._known_bad = set(lines_of(self._bad))
        self._board: Any = None
        self._wandb: Any = None
        self._live: Live | None = None

    def begin(self, start: int, steps: int) -> None:
        """Open the places for rows; those after step `start` are dropped, so that each step of a
        resumed run stands there once."""
        self._steps = steps
        if not self._main:
            return
        config = self._config
        cut_back(config.run / "metrics.jsonl", start)
        if config.loop.live and sys.stdout.isatty():
            self._live = Live(str(config.run))
        if config.loop.tensorboard:
            board = _import("torch.utils.tensorboard", "tensorboard", "train")
            self._board = board.SummaryWriter(str(config.run / "tensorboard"), purge_step=start + 1)
        if config.loop.wandb:
            self._wandb = _import("wandb", "wandb", "wandb").init(
                project="wit",
                dir=config.run,
                id=config.run.resolve().name,
                resume="allow",
                config=config.model_dump(mode="json"),
            )

    def say(self, text: str) -> None:
        """A line on the screen, from the main process."""
        if self._main:
            print(text, flush=True)

    def bad_sample(self, error: SampleError) -> None:
        """One line on the screen and, once, in RUN/bad_samples.jsonl."""
        print(f"bad sample: {error}", flush=True)
        row = {"key": error.key, "file": error.file, "reason": str(error.reason)}
        line = json.dumps(row, ensure_ascii=False)
        if line not in self._known_bad:
            self._known_bad.add(line)
            with self._bad.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def bad_samples(self) -> int:
        """How many different samples all processes have noted, over all sittings of the run."""
        files = self._config.run.glob("bad_samples*.jsonl")
        return len({line for file in files for line in lines_of(file)})

    def row(self, row: Row) -> None:
        """A progress line; keys as in metrics.jsonl. Numbers that aren't finite are left out."""
        if not self._main:
            return
        row = {key: value for key, value in row.items() if math.isfinite(value)}
        if self._live is not None:
            self._live.show(row, self._steps)
        else:
            self.say(line(row, self._steps))
        self._keep(row, "train/")

    def values(self, step: int, values: Row) -> None:
        """What an evaluation while training found, by name."""
        if not self._main or not values:
            return
        self.say(
            f"step {step} " + " ".join(f"{name} {value:.4g}" for name, value in values.items())
        )
        self._keep({"step": step} | values, "")

    def _keep(self, row: Row, prefix: str) -> None:
        with (self._config.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        values = {f"{prefix}{key}": value for key, value in row.items() if key != "step"}
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, int(row["step"]))
        if self._wandb is not None:
            self._wandb.log(values, step=int(row["step"]))

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _import(module: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtra(package, extra) from None
