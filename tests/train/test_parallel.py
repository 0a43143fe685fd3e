"""Whole runs over real processes, replicated and sharded, beside one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train import checkpoint
from train.config import TrainConfig
from train.dist import World
from train.loop import train
from train.parallel import refuse_what_needs_whole_weights
from wit.config import as_json
from wit.errors import ConfigError

from . import ranks

RESNET = {
    "tower": "resnet",
    "blocks": (1, 1, 1, 1),
    "width": 4,
    "heads": 2,
    "image_size": 32,
    "text_width": 16,
    "text_layers": 2,
    "text_heads": 2,
    "embed_dim": 16,
    "context_length": 16,
}
HARD: dict[str, Any] = {"accumulate": 2, "gradient_checkpointing": True, "optim__clip_norm": 0.5}
# name: processes, strategy, changes of the config, and the run whose checkpoint it goes on from
CASES: dict[str, tuple[int, str, dict[str, Any], str]] = {
    "one": (1, "ddp", {}, ""),
    "one hard": (1, "ddp", HARD, ""),
    "ddp 2": (2, "ddp", {}, ""),
    "fsdp 2": (2, "fsdp", {}, ""),
    "fsdp 2 hard": (2, "fsdp", HARD, ""),
    "fsdp 2 resnet": (2, "fsdp", {"model": RESNET}, ""),
    "ddp 2 resnet": (2, "ddp", {"model": RESNET}, ""),
    "ddp 4": (4, "ddp", {}, ""),
    "fsdp 4": (4, "fsdp", {}, ""),
    "fsdp 2, then one": (1, "ddp", {}, "fsdp 2"),
    "fsdp 2, then ddp 2": (2, "ddp", {}, "fsdp 2"),
    "ddp 2, then fsdp 4": (4, "fsdp", {}, "ddp 2"),
}
GO_ON = 2  # step of the checkpoint that is gone on from


def column(run: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in (run / "metrics.jsonl").read_text().splitlines()]


def process(rank: int, configs: list[tuple[str, TrainConfig]], ports: list[int], gate: Any) -> None:
    """All runs, or none of the others waits for this rank."""
    finished = False
    try:
        take_part(rank, configs, ports, gate)
        finished = True
    finally:
        if not finished:
            gate.abort()


def take_part(
    rank: int, configs: list[tuple[str, TrainConfig]], ports: list[int], gate: Any
) -> None:
    """The runs that this rank has a share in, one after the other."""
    for (name, config), number in zip(configs, ports, strict=True):
        size, _, _, source = CASES[name]
        if source and rank == 0:  # the run as it was after GO_ON steps
            shutil.copytree(config.run.with_name(source), config.run)
            (config.run / "done.json").unlink()
            for mark in checkpoint.marks(config.run):
                if mark.stem > f"step_{GO_ON:08d}":
                    mark.unlink()
        gate.wait()
        if rank < size:
            about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": number}
            os.environ |= {key: str(value) for key, value in about.items()}
            os.environ["MASTER_ADDR"] = "127.0.0.1"
            assert train(config) == 0
        gate.wait()


@pytest.fixture(scope="module")
def runs(
    corpus: Path, tiny_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a run for each case, trained by four processes."""
    folder = tmp_path_factory.mktemp("parallel")
    configs = []
    for name, (_, how, changes, _) in CASES.items():
        settings = {"corpus": corpus, "run": folder / name, "parallel": how, "steps": 6}
        settings |= {"loop__keep": 9, "loop__save_every": GO_ON}
        made = tiny_config(**{**settings, **changes, "model__dropout": 0.0})
        configs.append((name, made))
    server = ranks.server()
    gate = server.Barrier(4)
    ports = [ranks.free_port() for _ in CASES]
    processes = [
        server.Process(target=process, args=(rank, configs, ports, gate)) for rank in range(4)
    ]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    assert [one.exitcode for one in processes] == [0] * 4
    return folder


@pytest.mark.parametrize("name", [name for name in CASES if name != "one"])
def test_every_strategy_and_number_of_processes_has_the_curve_of_one(runs: Path, name: str) -> None:
    peer = "ddp 2 resnet" if "resnet" in name else "one hard" if "hard" in name else "one"
    got, expected = (column(runs / one, "loss") for one in (name, peer))
    assert len(got) == len(expected) == 6
    assert got == pytest.approx(expected, abs=1e-5)


def test_checkpoints_have_one_form(runs: Path) -> None:
    def shapes(name: str) -> dict[str, Any]:
        found = checkpoint.load(runs / name)
        assert found is not None
        assert isinstance(found.state["optimizer"]["state"][0]["exp_avg"], torch.Tensor)
        moments = found.state["optimizer"]["state"].items()
        return {n: (t.shape, t.dtype) for n, t in found.state["model"].items()} | {
            n: {key: (t.shape, t.dtype) for key, t in of_one.items()} for n, of_one in moments
        }

    one = shapes("one")
    assert shapes("fsdp 4") == shapes("ddp 2") == one


def test_a_rank_that_is_killed_costs_the_steps_since_the_last_checkpoint(
    make_config: Callable[..., TrainConfig],
) -> None:
    config = make_config(steps=20, parallel="fsdp", loop__save_every=2)
    path = config.run.with_suffix(".json")
    path.write_text(json.dumps(as_json(config)))
    script = config.run.with_suffix(".py")
    script.write_text(
        "import json, os, pathlib, sys\n"
        "from train.config import TrainConfig; from train.loop import train\n"
        "config = TrainConfig(**json.load(open(sys.argv[1])))\n"
        "pathlib.Path(f'{config.run}.{os.environ[\"RANK\"]}.pid').write_text(str(os.getpid()))\n"
        "sys.exit(train(config))"
    )
    how = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "2", "--monitor-interval"]
    torchrun = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *how, "0.1", str(script), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (config.run / "latest.json").is_file():
        assert torchrun.poll() is None, torchrun.stdout and torchrun.stdout.read()
        time.sleep(0.01)
    os.kill(int(Path(f"{config.run}.1.pid").read_text()), signal.SIGKILL)
    output, _ = torchrun.communicate(timeout=100)
    assert torchrun.returncode == 0, output
    assert json.loads((config.run / "done.json").read_text())["steps"] == 20
    assert column(config.run, "step") == list(range(1, 21))  # each once
    sittings = [line for line in output.splitlines() if "parameters on cpu, step" in line]
    assert len(sittings) == 2
    assert ", step 0 of" in sittings[0]
    assert ", step 0 of" not in sittings[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compile": "blocks"}, "compile = blocks"),
        ({"precision": "fp16"}, "precision = fp16"),
        ({"optim": {"ema": 0.9}}, "optim.ema = 0.9"),
        ({"optim": {"layer_decay": 0.5}}, "optim.layer_decay = 0.5"),
        ({"validation": {"corpus": "held-out"}}, "validation needs whole weights"),
    ],
)
def test_what_shards_do_not_serve_is_refused(
    make_config: Callable[..., TrainConfig], changes: dict[str, Any], words: str
) -> None:
    two = World(0, 2, torch.device("cpu"))
    with pytest.raises(ConfigError, match=words):
        refuse_what_needs_whole_weights(make_config(parallel="fsdp", **changes), two)
    refuse_what_needs_whole_weights(make_config(**changes), two)
    refuse_what_needs_whole_weights(make_config(parallel="fsdp"), two)
