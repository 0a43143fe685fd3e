"""One training step, whole: ours beside open_clip's model, loss and optimiser.

    python bench/train_step.py [--models ViT-B/32 RN50] [--batch 32] [--turns 3] [--device cpu]
                               [--json]

Both begin with the same weights and see the same batches: random pixels, and captions as long as
those of Flickr8k (14 ids on average, counts below). Each side gets what its own loader hands over:
ours bytes and ids cut at the longest caption, open_clip floats normalised beforehand and 77 ids.
The step is the trainer's own `one_step`, and for open_clip that of its train_one_epoch: forward,
ClipLoss, backward, torch's AdamW with the same settings, scale clipped. Each side is a process of
its own, so that memory is handled as each does; they are timed in turn (on a GPU one after the
other), and the ratio is the median over the turns. fp32 on a CPU, bf16 autocast on a GPU.

`loss` is the largest difference of the two losses over all steps, with the learning rates of a
warm-up; it says that both train the same model. On a GPU `--batch 0` finds the largest power of
two that both can take, and `mfu` is the share of the card's dense bf16 peak by the operations of
the published model (`wit models`), three times those of a forward pass: short cuts count as speed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from train import cost
from train.config import MODELS, TrainConfig
from train.data import Batch
from train.dist import World
from train.loop import build, one_step
from train.memory import keep_freed
from train.model.pixels import MEAN, STD
from train.optim import clip_scale, parameter_groups

VOCAB = cost.PUBLISHED_VOCAB
PUBLISHED = [name for name in MODELS if name.startswith(("RN", "ViT"))]
# of the 25,000 captions of Flickr8k, how many have 3, 4, ... ids of the published vocabulary
LENGTHS = (
    *(1, 6, 30, 108, 318, 720, 1535, 1928, 2175, 2591, 2655, 2544, 2327, 1986, 1609, 1251, 921),
    *(637, 486, 369, 250, 159, 126, 68, 65, 49, 29, 24, 10, 6, 6, 2, 3, 1, 2, 1, 1, 0, 0, 1),
)
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "V100": 125e12}  # dense, 16 bits


def no_keys(_: object) -> list[str]:
    """Of samples, which only steps that are left out ask for."""
    return []


@cache
def open_clip() -> tuple[Any, Any]:
    """open_clip's modules `model` and `loss`, its own files, without the rest of its package.

    A stand-in for torchvision gives the one class that they ask it for, which no step uses;
    transformers, which they take where it is there, is kept from looking at that.
    """
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        print("needs open_clip 3.3: pip install --no-deps open_clip_torch")
        sys.exit(0)
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc", "open_clip"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["transformers"] = None  # type: ignore[assignment]
    setattr(sys.modules["torchvision.ops.misc"], "FrozenBatchNorm2d", torch.nn.BatchNorm2d)  # noqa: B010
    sys.modules["open_clip"].__path__ = [str(Path(found.origin).parent)]
    return importlib.import_module("open_clip.model"), importlib.import_module("open_clip.loss")


def caption_ids(rows: int, make: np.random.Generator, context: int) -> Tensor:
    """Random ids (rows, context) between start and end, padded with zeros."""
    share = np.array(LENGTHS) / sum(LENGTHS)
    length_B = torch.from_numpy(make.choice(np.arange(3, 3 + len(share)), rows, p=share))
    out_BL = torch.from_numpy(make.integers(1, VOCAB - 2, (rows, context)))
    out_BL[torch.arange(context) >= length_B[:, None]] = 0
    out_BL[:, 0] = VOCAB - 2
    return out_BL.scatter(1, length_B[:, None] - 1, VOCAB - 1)


class Ours:
    """The trainer's model, optimiser and step."""

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        self.config = TrainConfig.model_validate({"model": {"name": name}, "batch": batch})
        self.device = device
        if device.type == "cpu":
            keep_freed()
        self.run = build(self.config, VOCAB, 100_000, "", World(0, 1, device))
        self.run.net.train()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S), channels last as the loader has them, and ids (B, 77)."""
        make = np.random.default_rng(step)
        model, rows = self.config.model, self.config.batch
        shape = (rows, model.image_size, model.image_size, 3)
        img_BSSC = torch.from_numpy(make.integers(0, 256, shape, np.uint8))
        return img_BSSC.permute(0, 3, 1, 2), caption_ids(rows, make, model.context_length)

    def rate(self, step: int) -> float:
        return self.config.optim.lr * (step + 1) / self.config.optim.warmup

    def step(self, number: int) -> Callable[[], float]:
        """What is timed: one step, to its loss. The batch is on the device already."""
        img_BCSS, tokens_BL = self.batch(number)
        cut_BL = tokens_BL[:, : int(tokens_BL.argmax(dim=1).max()) + 1].contiguous()
        batch = Batch(img_BCSS, cut_BL).to(self.device)
        return lambda: one_step(
            self.config, self.run, batch, self.rate(number), no_keys
        ).loss.item()


class Theirs(Ours):
    """open_clip's, with our weights."""

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        self.config = TrainConfig.model_validate({"model": {"name": name}, "batch": batch})
        self.device = device
        run = build(self.config, VOCAB, 100_000, "", World(0, 1, torch.device("cpu")))
        model, loss = open_clip()
        file = name.replace("/", "-").replace("@336px", "-336") + "-quickgelu.json"
        path = Path(model.__file__).with_name("model_configs") / file
        self.net = model.CLIP(**json.loads(path.read_text("utf-8")), output_dict=True)
        self.net.load_state_dict(run.model.state_dict())
        self.net.to(device).train()
        self.loss = loss.ClipLoss()
        optim = self.config.optim
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.net, optim.weight_decay),
            lr=optim.lr,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
        )

    def step(self, number: int) -> Callable[[], float]:
        img_BCSS, tokens_BL = self.batch(number)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        img_BCSS = img_BCSS.contiguous().float().div_(255).sub_(mean).div_(std)
        img_BCSS, tokens_BL = img_BCSS.to(self.device), tokens_BL.to(self.device)
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"
        )

        def run() -> float:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(number)
            self.optimizer.zero_grad()
            with autocast:
                losses = self.loss(**self.net(img_BCSS, tokens_BL), output_dict=True)
            losses["contrastive_loss"].backward()
            self.optimizer.step()
            clip_scale(self.net.logit_scale, self.config.optim.max_scale)
            return float(losses["contrastive_loss"].item())

        return run


def worker(pipe: Connection, side: type[Ours], name: str, batch: int, device: str) -> None:
    """Takes steps when told to; answers with (seconds, loss, gigabytes), or None out of memory."""
    where, cuda = torch.device(device), device == "cuda"
    try:
        it = side(name, batch, where)
        while (number := pipe.recv()) is not None:
            run = it.step(number)
            started = time.perf_counter()
            loss = run()
            if cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            pipe.send((seconds, loss, torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0))
    except torch.OutOfMemoryError:
        pipe.send(None)


def steps(name: str, batch: int, count: int, device: str) -> list[list[tuple[float, float, float]]]:
    """What each side answered at each step, in turn; each in a process of its own.

    On a GPU one side after the other, so that each has the whole memory. Empty: out of memory.
    """
    context = multiprocessing.get_context("spawn")
    groups = ((Ours,), (Theirs,)) if device == "cuda" else ((Ours, Theirs),)
    answers: dict[type[Ours], list[Any]] = {Ours: [], Theirs: []}
    for group in groups:
        pipes, processes = [], []
        for side in group:
            pipe, other = context.Pipe()
            process = context.Process(target=worker, args=(other, side, name, batch, device))
            process.start()
            pipes.append(pipe), processes.append(process)
        for number in range(count):
            for side, pipe in zip(group, pipes, strict=True):
                pipe.send(number)
                answers[side].append(pipe.recv())
                if answers[side][-1] is None:
                    processes[-1].join()
                    return []
            print(f"{name}: step {number + 1} of {count}", file=sys.stderr)
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join()
    return [answers[Ours], answers[Theirs]]


def measure(name: str, batch: int, turns: int, device: str) -> dict[str, float] | None:
    """The numbers of one model; None where the batch doesn't fit."""
    found = steps(name, batch, 1 + turns, device)
    if not found:
        return None
    apart = max(abs(ours[1] - theirs[1]) for ours, theirs in zip(*found, strict=True))
    (seconds, theirs) = ([answer[0] for answer in side[1:]] for side in found)  # 0: warms up
    result = {
        "batch": batch,
        "images_per_second": batch / statistics.median(seconds),
        "images_per_second_open_clip": batch / statistics.median(theirs),
        "ratio": statistics.median(b / a for a, b in zip(seconds, theirs, strict=True)),
        "loss": apart,
    }
    if device == "cuda":
        model = TrainConfig.model_validate({"model": {"name": name}}).model
        flops = 3 * (cost.image_cost(model).flops + cost.text_cost(model, VOCAB).flops)
        card = torch.cuda.get_device_name()
        peak = next((peak for card_name, peak in PEAKS.items() if card_name in card), None)
        if peak is not None:
            result["mfu"] = flops * result["images_per_second"] / peak
            result["mfu_open_clip"] = flops * result["images_per_second_open_clip"] / peak
        result["gigabytes"], result["gigabytes_open_clip"] = (side[-1][2] for side in found)
    return result


def largest_batch(name: str) -> int:
    """The largest power of two that both sides can take on this GPU, by trying."""
    batch = 8192
    while measure(name, batch, 1, "cuda") is None:
        batch //= 2
    return batch


def key(name: str) -> str:
    return name.lower().replace("/", "").replace("-", "_").replace("@", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=["ViT-B/32", "RN50"])
    parser.add_argument("--batch", type=int, help="pairs; 0: the largest; 32, or 0 on a GPU")
    parser.add_argument("--turns", type=int, help="steps that are timed; 3, or 20 on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    batch = options.batch if options.batch is not None else 0 if cuda else 32
    turns = options.turns or (20 if cuda else 3)
    open_clip()
    table = Table(title=f"one training step, {options.device}", title_justify="left")
    for column in ("model", "batch", "images/s", "open_clip", "ratio", "loss differs", "MFU", "GB"):
        table.add_column(column, justify="left" if column == "model" else "right")
    results: dict[str, Any] = {"device": options.device, "threads": torch.get_num_threads()}
    for name in options.models:
        found = measure(name, batch or largest_batch(name), turns, options.device)
        if found is None:
            print(f"{name}: a batch of {batch} doesn't fit")
            continue
        table.add_row(
            name,
            str(found["batch"]),
            *(f"{found[k]:.2f}" for k in ("images_per_second", "images_per_second_open_clip")),
            f"{found['ratio']:.2f} x",
            f"{found['loss']:.1e}",
            *(f"{found[k]:.2f}" if k in found else "-" for k in ("mfu", "gigabytes")),
        )
        results |= {f"{value}_{key(name)}": number for value, number in found.items()}
    Console().print(table)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
