"""The share of a device that training uses."""

from __future__ import annotations

import pytest
import torch

from train.meter import _known_peak


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("an unknown card", 0.0),
    ],
)
def test_cards_are_known_by_their_whole_name(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert _known_peak(torch.device("cuda")) == peak
