"""What a run says: numbers as people read them, the live table, what is left out."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch
from rich.console import Console

from train.config import TrainConfig
from train.cost import image_cost, text_cost
from train.live import Live, curve, line
from train.log import Log
from train.meter import Meter

ROW = {
    "step": 40.0, "epoch": 1.5, "loss": 2.5, "accuracy": 0.25, "scale": 14.3, "lr": 5e-4,
    "grad_norm": 1.25, "samples_per_second": 640.0, "seconds_per_step": 0.5, "data_wait": 0.02,
    "seconds": 20.0, "mfu": 0.453, "gpu_gb": 61.26, "skipped": 0.0,
}  # fmt: skip


def test_a_line_has_all_that_is_known() -> None:
    assert line(ROW, 100) == (
        "step 40/100 epoch 1.5 loss 2.5000 acc 25.0% scale 14.3 lr 5.0e-04 grad 1.2"
        " 640 samples/s mfu 45.3% data 2% GB 61.3 eta 0:00:30"
    )
    some = {key: ROW[key] for key in ("step", "seconds_per_step", "lr")} | {"skipped": 3.0}
    assert line(some, 100) == "step 40/100 lr 5.0e-04 skipped 3 eta 0:00:30"


def test_a_live_table_shows_the_curve_and_lets_lines_through() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    live = Live("a run", console)
    for loss in (4.0, 3.0, 2.0):
        live.show(ROW | {"loss": loss}, 100)
    live.close()
    shown = out.getvalue()
    assert all(word in shown for word in ("a run", "█▅▁", "45.3%", "step 40 of 100, 0:00:30 left"))
    assert curve([1.0, 1.0]) == "▁▁"
    assert curve([]) == ""


def test_numbers_that_are_not_finite_are_left_out_of_the_file(make_config) -> None:
    config: TrainConfig = make_config()
    config.run.mkdir()
    log = Log(config, 0)
    log.begin(0, 100)
    log.row(ROW | {"loss": math.nan})
    log.values(40, {"val/loss": 2.25})
    log.close()
    first, second = map(json.loads, (config.run / "metrics.jsonl").read_text().splitlines())
    assert "loss" not in first
    assert first["accuracy"] == 0.25
    assert second == {"step": 40, "val/loss": 2.25}


def test_the_share_of_the_peak_is_operations_over_time(make_config) -> None:
    config: TrainConfig = make_config(loop__peak_tflops=0.5)
    meter = Meter(config, 600, torch.device("cpu"), 2)
    for _ in range(3):
        with meter.step(), meter.waiting():
            pass
    row = meter.row()
    flops = 3 * (image_cost(config.model) + text_cost(config.model, 600)).flops
    assert row["mfu"] == pytest.approx(row["samples_per_second"] * flops / (0.5e12 * 2))
    assert row["samples_per_second"] == pytest.approx(16 / row["seconds_per_step"])
    assert 0 < row["data_wait"] <= 1
    assert "mfu" not in Meter(make_config(), 600, torch.device("cpu"), 1).row()
