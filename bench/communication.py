"""What processes tell each other in a training step: bytes counted beside the formula.

    python bench/communication.py [--model tiny] [--batch 64] [--processes 2 4] [--json]

Real gloo processes take one step of the trainer, replicated (ddp) and sharded (fsdp); every
collective is seen where it is handed to torch.distributed. The size of a collective is that of
its whole tensor: what all-reduce takes, what all-gather gives, what reduce-scatter takes. A ring
sends of it, from each process, (W - 1) / W for the latter two and twice that for all-reduce; this
is arithmetic, the sizes are counted.

P parameters, S those outside of blocks, N pairs of the batch, E features, W processes, fp32:

    ddp    4 P all-reduced (gradients); buffers broadcast: mean and deviation of pictures, 24, and
           those of batch norms, if any
    fsdp   4 (P - 1) gathered forward, 4 (P - S - 1) again backward, 4 (P - 1) reduce-scattered;
           the one number that can't be cut, the scale, all-reduced: 4
    loss   4 N E gathered (image features), 4 N E reduce-scattered (their gradient), 16 N
           all-reduced (log-sum-exp of columns, fp64: maximum, then sum), 8 W of counts; 4
           all-reduced (the mean loss, by which a step is judged)
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train.config import MODELS, Parallel, TrainConfig
from train.data import Batch
from train.dist import World
from train.loop import build, one_step
from train.model.resnet import Bottleneck
from train.model.transformer import Block

VOCAB = 4096
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "broadcast")
HOW: tuple[Parallel, ...] = ("ddp", "fsdp")


def no_keys(_: object) -> list[str]:
    """Of samples, which only steps that are left out ask for."""
    return []


def asked_by_loss() -> bool:
    """Whether the collective comes from `World`, but for what averages the scale's gradient."""
    frame, files = sys._getframe(1), set()
    while frame is not None:
        if frame.f_code.co_name == "average_scalars":
            return False
        files.add(Path(frame.f_code.co_filename).name)
        frame = frame.f_back
    return "dist.py" in files


class Counting(TorchDispatchMode):
    """Bytes of each kind of collective while this is open: of the model, and of the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Counter[str] = Counter()
        self.loss: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func.__name__.replace("_", "").lower()
            kind = next((kind for kind in KINDS if kind.replace("-", "") in name), None)
            if kind is None:
                raise AssertionError(f"a collective that is not counted: {func.__name__}")
            whole = args[1] if kind == "reduce-scatter" else args[0]  # of all-gather what it gives
            tensors = [x for x in tree_leaves(whole) if isinstance(x, Tensor)]
            side = self.loss if asked_by_loss() else self.model
            side[kind] += sum(x.numel() * x.element_size() for x in tensors)
        return func(*args, **(kwargs or {}))


def settings(model: str, batch: int, how: Parallel) -> TrainConfig:
    return TrainConfig.model_validate({"model": {"name": model}, "batch": batch, "parallel": how})


def process(rank: int, size: int, config: TrainConfig, folder: Path) -> None:
    """Two steps are taken unseen, for what is only done once, and one is counted."""
    torch.set_num_threads(1)
    store = torch_dist.FileStore(str(folder / "store"), size)
    torch_dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    run = build(config, VOCAB, 10, "", World(rank, size, torch.device("cpu")))
    run.net.train()
    rows, model = config.batch // size, config.model
    img_bCSS = torch.randint(0, 256, (rows, 3, model.image_size, model.image_size)).byte()
    tokens_bL = torch.randint(1, VOCAB - 1, (rows, 16))
    tokens_bL[:, -1] = VOCAB - 1
    batch = Batch(img_bCSS, tokens_bL)
    for _ in range(2):
        one_step(config, run, batch, 1e-4, no_keys)
    with Counting() as counting:
        one_step(config, run, batch, 1e-4, no_keys)
    if rank == 0:
        found = {"model": counting.model, "loss": counting.loss}
        (folder / "found.json").write_text(json.dumps(found))
    torch_dist.destroy_process_group()


def counted(config: TrainConfig, size: int) -> dict[str, dict[str, int]]:
    """Bytes by kind, of the model and of the loss, as rank 0 handed them over."""
    context = multiprocessing.get_context("forkserver")  # imports torch once
    context.set_forkserver_preload(["torch", "torch.distributed.fsdp", "train.loop"])
    with tempfile.TemporaryDirectory() as name:
        parts = [
            context.Process(target=process, args=(rank, size, config, Path(name)))
            for rank in range(size)
        ]
        for part in parts:
            part.start()
        for part in parts:
            part.join()
        if any(part.exitcode for part in parts):
            sys.exit("bench/communication.py: a process failed; see above")
        found: dict[str, dict[str, int]] = json.loads((Path(name) / "found.json").read_text())
    return found


def formula(config: TrainConfig, size: int) -> dict[str, dict[str, int]]:
    """What the docstring says."""
    model = build(config, VOCAB, 10, "", World(0, 1, torch.device("cpu"))).model
    whole = sum(p.numel() for p in model.parameters())
    blocks = [part for part in model.modules() if isinstance(part, (Block, Bottleneck))]
    inside = sum(p.numel() for block in blocks for p in block.parameters())
    pairs, features = config.batch, config.model.embed_dim
    if config.parallel == "ddp":
        buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
        of_model = {"all-reduce": 4 * whole, "broadcast": buffers}
    else:
        gathered = 4 * (whole - 1) + 4 * inside
        of_model = {"all-gather": gathered, "reduce-scatter": 4 * (whole - 1), "all-reduce": 4}
    of_loss = {
        "all-gather": 4 * pairs * features + 8 * size,
        "reduce-scatter": 4 * pairs * features,
        "all-reduce": 16 * pairs + 4,
    }
    return {"model": of_model, "loss": of_loss}


def sent(kind: str, size: float, processes: int) -> float:
    """Bytes that a ring sends from each process for a collective of `size` bytes."""
    return size * (2 if kind == "all-reduce" else 1) * (processes - 1) / processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    table = Table(title=f"{options.model}, batch {options.batch}, one step", title_justify="left")
    table.add_column("processes, of what")
    table.add_column("collective")
    for column in ("counted, bytes", "formula", "counted / formula", "a ring sends"):
        table.add_column(column, justify="right")
    results: dict[str, Any] = {"model": options.model, "batch": options.batch}
    for size in options.processes:
        for how in HOW:
            config = settings(options.model, options.batch, how)
            found, expected = counted(config, size), formula(config, size)
            for side in ("model", "loss"):
                if side == "loss" and how != HOW[0]:
                    continue  # the same
                name = how if side == "model" else "loss"
                for kind in sorted(found[side].keys() | expected[side].keys()):
                    bytes_, wanted = found[side].get(kind, 0), expected[side].get(kind, 0)
                    ratio = f"{bytes_ / wanted:.4f}" if wanted else "-"
                    table.add_row(
                        f"{size}, {name}",
                        kind,
                        f"{bytes_:,}",
                        f"{wanted:,}",
                        ratio,
                        f"{sent(kind, bytes_, size):,.0f}",
                    )
                    results[f"{name}_{size}_{kind}"] = bytes_
                    results[f"{name}_{size}_{kind}_formula"] = wanted
    Console().print(table)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
