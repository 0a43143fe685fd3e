"""`wit train`: reads the options before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

from train.config import TrainConfig
from wit.config import load


def main(argv: Sequence[str]) -> int:
    """Train or resume; returns 0 when the run is finished, 143 when SIGTERM stopped it."""
    config = load(TrainConfig, argv, prog="wit train")
    from train.loop import train  # torch takes seconds to import

    return train(config)
