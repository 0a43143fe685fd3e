"""In what numbers a step computes: fp32, or autocast to bf16, or to fp16 with a scaled loss.

Weights, optimiser and loss are fp32; low_bit.py has fewer bits. fp16 reaches down to 6e-8 only, so
the loss is multiplied before the backward pass and gradients are divided after it (Micikevicius et
al. 2018); the factor is part of the checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from train.config import Precision

KINDS = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16,
         "fp8": torch.bfloat16}  # fmt: skip
LEAST_SCALE = 1.0  # gradients that overflow without being scaled at all are wrong, not large


class Numbers:
    """Autocast for the towers and the scale of the loss.

    Attributes:
        name: fp32, bf16, fp16 or fp8 (low_bit.py: autocast is as of bf16).
        autocast: context in which the towers run.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        if precision == "auto":
            precision = "bf16" if device.type == "cuda" else "fp32"
        self.name, cast = precision, precision != "fp32"
        self.autocast = torch.autocast(device.type, KINDS[precision], enabled=cast)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def scaled(self, loss: Tensor) -> Tensor:
        """What backward begins with."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients as they are, in place."""
        self._scaler.unscale_(optimizer)

    @property
    def calibrating(self) -> bool:
        """Whether gradients that aren't finite may come from the scale alone."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > LEAST_SCALE

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimiser's step; with a scaler none where a gradient is not finite."""
        self._scaler.step(optimizer)

    def update(self) -> None:
        """Once at the end of each step: a smaller scale after an overflow, a larger one in time."""
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state)
