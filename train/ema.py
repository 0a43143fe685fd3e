"""A running mean of the weights, which is often better than the last ones.

mean <- decay * mean + (1 - decay) * weights after each step of the optimiser (Polyak and Juditsky
1992). The decay rises with the steps up to its value, or the first weights would weigh for long.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """The mean of a model's floating-point weights; all else is as the model has it.

    Attributes:
        model: of the same kind, in evaluation mode, whose weights are the mean.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self._floats: tuple[list[Tensor], list[Tensor]] = ([], [])  # the mean, the weights
        self._others: tuple[list[Tensor], list[Tensor]] = ([], [])
        now, mean = model.state_dict(keep_vars=True), self.model.state_dict(keep_vars=True)
        for name, value in now.items():
            kind = self._floats if value.is_floating_point() else self._others
            kind[0].append(mean[name].detach())
            kind[1].append(value.detach())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step`, counted from 1."""
        decay = min(self._decay, step / (step + 10))
        torch._foreach_lerp_(*self._floats, 1 - decay)
        for mean, value in zip(*self._others, strict=True):
            mean.copy_(value)
