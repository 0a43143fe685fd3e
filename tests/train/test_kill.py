"""Killed twenty times at drawn steps, a run ends with the weights of one that was not."""

from __future__ import annotations

import json
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import torch

from train import checkpoint
from train.loop import train

from . import ranks

KILLS = 20


def last_step(metrics: Path) -> int:
    for line in reversed(metrics.read_text().splitlines() if metrics.is_file() else []):
        with suppress(ValueError):  # half a line
            step: int = json.loads(line)["step"]
            return step
    return 0


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load(run)
    assert found is not None
    state = found.state
    mean = {f"ema.{name}": value for name, value in state["ema"].items()}
    moments = {
        f"{number}.{name}": value
        for number, of_one in state["optimizer"]["state"].items()
        for name, value in of_one.items()
    }
    return state["model"] | mean | moments


def test_killed_twenty_times_it_ends_with_the_same_weights(make_config, tmp_path: Path) -> None:
    settings = {"steps": 3 * KILLS, "batch": 8, "optim": {"lr": 3e-3, "ema": 0.9}}
    loop = {"log_every": 1, "save_every": 2, "threads": 1, "tensorboard": False}
    whole = make_config(run=tmp_path / "whole", **settings, loop=loop)
    killed = make_config(run=tmp_path / "killed", **settings, loop=loop)
    assert train(whole) == 0
    rng, log = random.Random(7), tmp_path / "log"
    for aim in [2 * i + rng.randint(1, 2) for i in range(KILLS)]:
        one = ranks.start(killed, log)
        ranks.until(lambda aim=aim: last_step(killed.run / "metrics.jsonl") >= aim, one, log)
        time.sleep(rng.random() * 0.02)  # in a step, or while a checkpoint is written
        one.kill()
        one.join()
        assert one.exitcode == -signal.SIGKILL
    assert train(killed) == 0
    expected, got = weights(whole.run), weights(killed.run)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (whole.run, killed.run)]
    losses = [[(row["step"], row["loss"]) for row in map(json.loads, of_one)] for of_one in lines]
    assert losses[0] == losses[1]
    assert (killed.run / "done.json").is_file()
