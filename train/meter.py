"""What a progress line says: rates since the last one, and the share of the device that is used."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.config import TrainConfig
from train.cost import image_cost, text_cost
from train.plan import CARDS

TERA = 1e12
TRAINING = 3  # operations of forward and backward, as a multiple of those of forward


class Meter:
    """Times steps, from one progress line to the next.

    Attributes:
        seconds: spent in steps, over all sittings.
    """

    def __init__(
        self, config: TrainConfig, vocab_size: int, device: torch.device, processes: int
    ) -> None:
        cost = image_cost(config.model) + text_cost(config.model, vocab_size)
        self._flops, self._batch = TRAINING * cost.flops, config.batch
        self._device, self._processes = device, processes
        self._peak = config.loop.peak_tflops * TERA or _known_peak(device)
        self.seconds = self._waited = 0.0
        self._steps, self._begun = 0, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the step waits for its data."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step, its data included."""
        before = time.monotonic()
        yield
        self.seconds += time.monotonic() - before
        self._steps += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside is something else than training: it counts in no rate."""
        before = time.monotonic()
        yield
        self._begun += time.monotonic() - before

    def row(self) -> dict[str, float]:
        """Rates since the last row; `mfu` where the peak of the device is known.

        mfu: operations of the published model, every token of it, over what the device could do;
        what is not computed (padding, most of the last blocks) raises it.
        """
        spent = max(1e-9, time.monotonic() - self._begun)
        rate = self._steps * self._batch / spent
        row = {
            "samples_per_second": rate,
            "seconds_per_step": spent / max(1, self._steps),
            "data_wait": self._waited / spent,
            "seconds": self.seconds,
        }
        if self._peak:
            row["mfu"] = rate * self._flops / (self._peak * self._processes)
        if self._device.type == "cuda":
            row["gpu_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
        self._waited, self._steps, self._begun = 0.0, 0, time.monotonic()
        return row


def _known_peak(device: torch.device) -> float:
    """Dense 16-bit operations a second, as the maker states them; 0 where it isn't known."""
    if device.type != "cuda":
        return 0.0
    words = re.split(r"\W+", torch.cuda.get_device_name(device))  # an A100 is no A10
    known = (card.flops for title, card in CARDS.items() if title.partition("-")[0] in words)
    return next(known, 0.0)
