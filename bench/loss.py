"""The contrastive loss, forward and backward, beside its peers: time, memory, error.

    python bench/loss.py [--sizes 1024,8192] [--width 512] [--compile] [--save] [--json]

Each row is a process of its own, so that its peak of memory is its own. Operations are counted as
8 n n D whatever a peer does, and set against the speed of the same four matrix products in the
library, measured in the same process. Errors are against double precision, at sizes up to 4,096.
open_clip's loss is measured where the package is installed (`pip install --no-deps
open_clip_torch` is enough). The bench stops if a peer and ours differ.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from train.loss import contrastive_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
REPEATS = 7
CHECKED = 4096  # rows: largest size with errors
PUBLISHED = (
    "Published, not measured here: Inf-CL (arXiv 2410.17243, table 1), memory of the loss on 8 A800"
    " GPUs, ViT-L/14: 0.18 GB at 32k, 0.72 GB at 128k; OpenCLIP's 2.27 GB and 33.64 GB."
)


def eager(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
    """Figure 3 of the paper, as most write it."""
    image_ND, text_ND = F.normalize(image_ND, dim=-1), F.normalize(text_ND, dim=-1)
    scale, own_N = log_scale.exp(), torch.arange(len(image_ND), device=image_ND.device)
    to_text = F.cross_entropy(scale * image_ND @ text_ND.T, own_N)
    to_image = F.cross_entropy(scale * text_ND @ image_ND.T, own_N)
    return (to_text + to_image) / 2


def open_clip_module() -> ModuleType | None:
    """open_clip's loss.py alone: the package imports much more than a loss needs."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        return None
    spec = importlib.util.spec_from_file_location(
        "open_clip_loss", Path(found.origin).with_name("loss.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer(name: str) -> Loss:
    if name == "ours":
        return contrastive_loss
    if name == "torch.compile":
        return torch.compile(eager)
    if name == "open_clip":
        module = open_clip_module()
        assert module is not None
        clip_loss = module.ClipLoss()

        def loss(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
            a, b = F.normalize(image_ND, dim=-1), F.normalize(text_ND, dim=-1)
            return clip_loss(a, b, log_scale.exp())

        return loss
    return eager


def batch(rows: int, width: int, device: str) -> list[Tensor]:
    make = torch.Generator().manual_seed(rows)
    image = torch.randn(rows, width, generator=make)
    text = torch.randn(rows, width, generator=make) + 0.3 * image
    leaves = [image.to(device), text.to(device), torch.tensor(math.log(50.0), device=device)]
    return [t.requires_grad_() for t in leaves]


def step(loss: Loss, inputs: list[Tensor]) -> list[Tensor]:
    value = loss(*inputs)
    out = [value.detach(), *torch.autograd.grad(value, inputs)]
    if value.device.type == "cuda":
        torch.cuda.synchronize()
    return out


def ceiling(rows: int, width: int, device: str) -> Callable[[], float]:
    """A function that times the four products alone, in blocks that the library likes.

    It gives operations per second.
    """
    rows, block = min(rows, 8192), min(rows, 2048)
    a_ND, b_ND = (torch.randn(rows, width, device=device) for _ in range(2))
    out_Nc = a_ND.new_empty(rows, block)
    grad_ND, other_ND = torch.zeros_like(a_ND), torch.empty_like(b_ND)

    def once() -> float:
        started = time.perf_counter()
        for j in range(0, rows, block):
            columns = b_ND[j : j + block]
            torch.mm(a_ND, columns.T, out=out_Nc)
            torch.mm(a_ND, columns.T, out=out_Nc)
            grad_ND.addmm_(out_Nc, columns)
            torch.mm(out_Nc.T, a_ND, out=other_ND[j : j + block])
        if device != "cpu":
            torch.cuda.synchronize()
        return 8 * rows * rows * width / (time.perf_counter() - started)

    return once


def row(name: str, rows: int, width: int, device: str) -> dict[str, Any]:
    """One peer at one size; run in a process of its own."""
    loss = peer(name)
    inputs = batch(rows, width, device)
    step(loss, batch(200, width, device))  # libraries make their buffers
    before = peak(device)
    started = time.perf_counter()
    got = step(loss, inputs)
    spent = [time.perf_counter() - started]
    memory = peak(device) - before
    products = ceiling(rows, width, device)
    speeds = [products()]
    for _ in range(REPEATS if rows <= 8192 else 1):  # in turn: other work on the machine hits both
        started = time.perf_counter()
        got = step(loss, inputs)
        spent.append(time.perf_counter() - started)
        speeds.append(products())
    result = {"peer": name, "rows": rows, "width": width, "seconds": min(spent), "memory": memory}
    result["flops"] = 8 * rows * rows * width / min(spent)
    result["loss"] = got[0].item()
    result["grad_scale"] = got[3].item()
    if rows <= CHECKED:
        exact = step(eager, [t.detach().double().requires_grad_() for t in inputs])
        result["loss_error"] = abs(got[0].item() / exact[0].item() - 1)
        result["grad_error"] = ((got[1] - exact[1]).norm() / exact[1].norm()).item()
    result["ceiling"] = max(speeds)
    return result


def peak(device: str) -> int:
    """Bytes: on a GPU of tensors, on a CPU of the process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fits(name: str, rows: int, device: str) -> bool:
    """Peers other than ours hold several matrices of logits, 4 rows rows bytes each."""
    if device != "cpu":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return name == "ours" or 6 * 4 * rows * rows < 0.8 * free


def measure(names: list[str], sizes: list[int], width: int, device: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for rows in sizes:
        for name in names:
            if not fits(name, rows, device):
                results.append({"peer": name, "rows": rows, "width": width, "left_out": "memory"})
                continue
            command = [sys.executable, __file__, "--row", name, str(rows), str(width), device]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
        values = [r["loss"] for r in results if r["rows"] == rows and "loss" in r]
        if max(values) - min(values) > 1e-5 * abs(values[0]):
            sys.exit(f"losses differ at {rows} rows: {values}")
    return results


def report(results: list[dict[str, Any]]) -> None:
    columns = ("rows", "loss", "seconds", "GFLOP/s", "of ceiling", "MiB", "grad error")
    table = Table(*columns, title="contrastive loss, forward and backward, fp32")
    for r in results:
        if "left_out" in r:
            table.add_row(f"{r['rows']:,}", r["peer"], "not run: memory", *[""] * 4)
            continue
        error = f"{r['grad_error']:.1e}" if "grad_error" in r else "not measured"
        table.add_row(
            f"{r['rows']:,}", r["peer"], f"{r['seconds']:.4f}", f"{r['flops'] / 1e9:,.0f}",
            f"{r['flops'] / r['ceiling']:.0%}", f"{r['memory'] / 2**20:,.0f}", error,
        )  # fmt: skip
    Console(width=100).print(table)
    print(PUBLISHED)
    if not torch.cuda.is_available():
        print("GPU: not measured; no CUDA device here.")


def machine() -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu,
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": git.stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1024,4096,8192,16384")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile too (slow to start)")
    parser.add_argument("--save", action="store_true", help="write bench/results/DATE-loss.json")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        name, rows, width, device = args.row
        print(json.dumps(row(name, int(rows), int(width), device)))
        return
    names = ["ours", "eager"]
    names += ["torch.compile"] if args.compile else []
    names += ["open_clip"] if open_clip_module() else []
    sizes = [int(size) for size in args.sizes.split(",")]
    results = measure(names, sizes, args.width, args.device)
    report(results)
    whole = {**machine(), "results": results, "published": PUBLISHED}
    if args.save:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{whole['date']}-loss-{args.device}.json"
        path.with_suffix(".tmp").write_text(json.dumps(whole, indent=1) + "\n")
        path.with_suffix(".tmp").replace(path)
    if args.json:
        print(json.dumps(whole))


if __name__ == "__main__":
    main()
