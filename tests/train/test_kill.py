"""Killed twenty times at drawn steps, a run ends with the weights of one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from train import checkpoint
from train.loop import train
from wit.config import as_json

KILLS = 20

# One interpreter imports torch; each sitting is a fork of it that is killed for good.
SERVER = """
import json, os, random, signal, sys, time
from pathlib import Path
from train.config import TrainConfig
from train.loop import train

config = TrainConfig(**json.load(open(sys.argv[1])))
kills, rng = int(sys.argv[2]), random.Random(7)
metrics = config.run / "metrics.jsonl"

def step():
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except ValueError:  # half a line
            continue
    return 0

aims = [2 * i + rng.randint(1, 2) for i in range(kills)]
for aim in [*aims, None]:
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        os._exit(train(config))
    while aim is not None and step() < aim:
        gone, status = os.waitpid(child, os.WNOHANG)
        assert not gone, f"it ended by itself before step {aim}: {status}"
        time.sleep(0.001)
    if aim is not None:
        time.sleep(rng.random() * 0.02)  # in a step, or while a checkpoint is written
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status == (signal.SIGKILL if aim is not None else 0), status
"""


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
    (tmp_path / "killed.json").write_text(json.dumps(as_json(killed)))
    command = [sys.executable, "-c", SERVER, str(tmp_path / "killed.json"), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected, got = weights(whole.run), weights(killed.run)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (whole.run, killed.run)]
    losses = [[(row["step"], row["loss"]) for row in map(json.loads, of_one)] for of_one in lines]
    assert losses[0] == losses[1]
    assert (killed.run / "done.json").is_file()
