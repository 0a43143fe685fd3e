"""Steps that are left out: loss or gradient not finite, or a loss far above what it was.

Whether a step counts is decided by all processes together, so that their weights stay equal. What
was left out is written to RUN/skipped.jsonl with the keys of its samples, by each process for its
own; after `guard.skips` in a row the run stops, before any weight has changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train.config import GuardConfig
from train.dist import World
from train.rundir import cut_back
from wit.errors import WitError

MEMORY = 0.98  # of the running mean and variance of the loss: about fifty steps
SETTLED = 100  # steps before a spike can be told from learning


class NonFiniteLoss(WitError):
    """Loss or gradient became infinite or NaN; the weights were not touched by those steps."""


class Guard:
    """Looks at each step before the optimiser does.

    Attributes:
        skipped: steps left out so far.
    """

    def __init__(self, config: GuardConfig, run: Path, world: World) -> None:
        self._config, self._run, self._world = config, run, world
        name = f"skipped.rank{world.rank}.jsonl" if world.rank else "skipped.jsonl"
        self._path = run / name
        self.skipped = self._row = self._seen = 0
        self._mean = self._variance = 0.0
        self._statistics: list[Tensor] = []
        self._before: list[Tensor] = []

    def watch_statistics(self, model: nn.Module) -> None:
        """Running statistics of norms, which a forward pass changes before it is looked at."""
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        found = [(norm.running_mean, norm.running_var) for norm in norms]
        self._statistics = [x for both in found for x in both if x is not None]
        self._before = [x.clone() for x in self._statistics]

    @contextmanager
    def statistics_kept(self) -> Iterator[Callable[[], None]]:
        """Gives what puts the running statistics back to what they are now."""
        if self._statistics:
            torch._foreach_copy_(self._before, self._statistics)

        def put_back() -> None:
            if self._statistics:
                torch._foreach_copy_(self._statistics, self._before)

        yield put_back

    def passes(
        self, step: int, loss: float, norm: float, calibrating: bool, keys: Callable[[], list[str]]
    ) -> bool:
        """Whether the optimiser may use this gradient.

        Args:
            step: number of the step, from 1.
            loss: mean over all processes.
            norm: of the gradient, the same in all of them.
            calibrating: whether a gradient that isn't finite is the scaler's affair.
            keys: gives the keys of this process's samples.

        Raises:
            NonFiniteLoss: `guard.skips` steps in a row were left out.
        """
        finite = math.isfinite(loss) and (calibrating or math.isfinite(norm))
        if finite and not self._spikes(loss):
            self._row = 0
            self._learn(loss)
            return True
        self.skipped += 1
        self._row += 1
        why = "spike" if finite else "not finite"
        numbers = {"loss": _plain(loss), "grad_norm": _plain(norm)}
        row = {"step": step, "why": why, **numbers, "keys": keys()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if self._world.main:
            print(f"left out step {step}: {why}: loss {loss:.4g}, gradient {norm:.4g}", flush=True)
        if self._row >= self._config.skips:
            if not finite:
                raise NonFiniteLoss(
                    f"{self._run}: the loss is {loss} and its gradient {norm} at step {step}, for"
                    f" {self._row} steps in a row; their samples are in {self._path.name}, and the"
                    " last checkpoint is from before: raise guard.skips, or train another --run"
                    " with a lower optim.lr or with optim.clip_norm"
                )
            self._row = self._seen = 0  # not a spike but a new level: measured anew
        return False

    def _spikes(self, loss: float) -> bool:
        if not self._config.spike or self._seen < SETTLED:
            return False
        return loss > self._mean + self._config.spike * math.sqrt(self._variance)

    def _learn(self, loss: float) -> None:
        self._seen += 1
        keep = min(MEMORY, 1 - 1 / self._seen)
        gap = loss - self._mean
        self._mean += (1 - keep) * gap
        self._variance = keep * (self._variance + (1 - keep) * gap * gap)

    def resume(self, step: int) -> None:
        """Forget what was left out after `step`: those steps come again."""
        if self._path.is_file():
            cut_back(self._path, step)

    def state_dict(self) -> dict[str, Any]:
        names = ("skipped", "_row", "_seen", "_mean", "_variance")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _plain(number: float) -> float | str:
    """JSON knows no NaN."""
    return number if math.isfinite(number) else str(number)
