"""The contrastive loss, forward and backward, beside its peers: time, memory, error.

    python bench/loss.py                          # 1,024 and 8,192 pairs of 512 features on a CPU
    python bench/loss.py --sizes 1024,8192,32768 --widths 512,768,1024 --save

Each peer is a process of its own, so that its peak of memory is its own. All peers of a size take
their steps in turn, each followed by the same four matrix products in the library, the ceiling; so
other work on the machine hits all of them, and the best of the rounds is taken of each.
Operations are counted as 8 n n D whatever a peer does. Errors are against double precision, at
sizes up to 4,096. The bench stops where the losses of the peers differ.

Peers: eager PyTorch; the same through torch.compile, where there is a C++ compiler; open_clip's
ClipLoss and, on a GPU, Inf-CL, where they are installed. On a GPU features are bf16, and peers run
under autocast; on a CPU all is fp32. Peers whose logits don't fit into memory are left out.
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
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
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
CHECKED = 4096  # rows: largest size with errors
BARRED = (8192, 512)  # rows and width of the ratios on the top level of the JSON
SIZES = {"cpu": "1024,8192", "cuda": "1024,8192,32768,65536,262144,1048576"}
WIDTHS = {"cpu": "512", "cuda": "512,768,1024"}
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


def open_clip_loss() -> Loss:
    module = open_clip_module()
    assert module is not None
    clip_loss = module.ClipLoss()

    def loss(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
        a_ND, b_ND = F.normalize(image_ND, dim=-1), F.normalize(text_ND, dim=-1)
        return clip_loss(a_ND, b_ND, log_scale.exp())

    return loss


def inf_cl_loss() -> Loss:
    from inf_cl import cal_flash_loss

    def loss(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
        a_ND = F.normalize(image_ND.float(), dim=-1)  # it takes fp32
        b_ND = F.normalize(text_ND.float(), dim=-1)
        to_text = cal_flash_loss(a_ND, b_ND, scale=log_scale.exp())
        return (to_text.mean() + cal_flash_loss(b_ND, a_ND, scale=log_scale.exp()).mean()) / 2

    return loss


def peer(name: str, device: str) -> Loss:
    if name == "ours":
        return contrastive_loss
    makers: dict[str, Callable[[], Loss]] = {
        "eager": lambda: eager,
        "torch.compile": lambda: torch.compile(eager, dynamic=True),
        "open_clip": open_clip_loss,
        "Inf-CL": inf_cl_loss,
    }
    function = makers[name]()

    def loss(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return function(image_ND, text_ND, log_scale)

    return loss


def peers(width: int, device: str) -> list[str]:
    names = ["ours", "eager"]
    if device != "cpu" or any(shutil.which(c) for c in ("c++", "g++", "clang++")):
        names.append("torch.compile")
    if open_clip_module():
        names.append("open_clip")
    if device == "cuda" and importlib.util.find_spec("inf_cl") and width % 256 == 0:
        names.append("Inf-CL")
    return names


def batch(rows: int, width: int, device: str) -> list[Tensor]:
    make = torch.Generator().manual_seed(rows)
    image = torch.randn(rows, width, generator=make)
    text = torch.randn(rows, width, generator=make) + 0.3 * image
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    leaves = [image.to(device, dtype), text.to(device, dtype)]
    leaves.append(torch.tensor(math.log(50.0), device=device))
    return [t.requires_grad_() for t in leaves]


def step(loss: Loss, inputs: list[Tensor]) -> list[Tensor]:
    value = loss(*inputs)
    out = [value.detach(), *torch.autograd.grad(value, inputs)]
    if value.device.type == "cuda":
        torch.cuda.synchronize()
    return out


def ceiling(rows: int, width: int, device: str) -> Callable[[], tuple[float, float]]:
    """A function that times the four products alone, in blocks that the library likes.

    It gives operations per second, and per second of processors.
    """
    rows = min(rows, 8192)
    block = min(rows, 2048) if device == "cpu" else rows
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    a_ND, b_ND = (torch.randn(rows, width, device=device, dtype=dtype) for _ in range(2))
    out_Nc = a_ND.new_empty(rows, block)
    grad_ND, other_ND = torch.zeros_like(a_ND), torch.empty_like(b_ND)

    def once() -> tuple[float, float]:
        started, busy = time.perf_counter(), time.process_time()
        for j in range(0, rows, block):
            columns = b_ND[j : j + block]
            torch.mm(a_ND, columns.T, out=out_Nc)
            torch.mm(a_ND, columns.T, out=out_Nc)
            grad_ND.addmm_(out_Nc, columns)
            torch.mm(out_Nc.T, a_ND, out=other_ND[j : j + block])
        if device != "cpu":
            torch.cuda.synchronize()
        work = 8 * rows * rows * width
        return work / (time.perf_counter() - started), work / (time.process_time() - busy)

    return once


def worker(name: str, rows: int, width: int, device: str) -> None:
    """One peer at one size: a step and a line of JSON for each line that it reads."""
    loss = peer(name, device)
    inputs = batch(rows, width, device)
    step(loss, batch(200, width, device))  # libraries make their buffers
    forget_peak(device)
    before = peak(device)
    products = None
    for _ in sys.stdin:
        started, busy = time.perf_counter(), time.process_time()
        got = step(loss, inputs)
        result = {"seconds": time.perf_counter() - started, "busy": time.process_time() - busy}
        result["memory"] = peak(device) - before
        products = products or ceiling(rows, width, device)
        result["ceiling"], result["busy_ceiling"] = products()
        result["loss"], result["grad_scale"] = got[0].item(), got[3].item()
        if rows <= CHECKED:
            exact = step(eager, [t.detach().double().requires_grad_() for t in inputs])
            result["loss_error"] = abs(got[0].item() / exact[0].item() - 1)
            result["grad_error"] = ((got[1] - exact[1]).norm() / exact[1].norm()).item()
        print(json.dumps(result), flush=True)


def peak(device: str) -> int:
    """Bytes: on a GPU of tensors, on a CPU of the process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak(device: str) -> None:
    """A compiler's peak, say, is not that of the step after it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():  # Linux
        Path("/proc/self/clear_refs").write_text("5")


def fits(name: str, rows: int, device: str) -> bool:
    """Peers with logits hold several matrices of them, 4 rows rows bytes each."""
    if device != "cpu":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return name in ("ours", "Inf-CL") or 6 * 4 * rows * rows < 0.8 * free


def measure(rows: int, width: int, device: str, rounds: int) -> list[dict[str, Any]]:
    """All peers at one size, a step of each in turn; the best of the rounds."""
    names = peers(width, device)
    size = {"rows": rows, "width": width}
    left_out = [n for n in names if not fits(n, rows, device)]
    command = [sys.executable, __file__, "--worker"]
    best: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        running = {}
        for name in names:
            if name not in left_out:
                full = [*command, name, str(rows), str(width), device]
                running[name] = stack.enter_context(
                    subprocess.Popen(full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                )
        for _ in range(rounds if rows <= 16384 or device != "cpu" else 1):
            for name, process in running.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("step\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    sys.exit(f"{name} ended at {rows} rows of {width}; its error stands above")
                got = json.loads(line)
                first = best.setdefault(name, got)
                for key in ("seconds", "busy"):
                    first[key] = min(first[key], got[key])
                for key in ("ceiling", "busy_ceiling"):
                    first[key] = max(first[key], got[key])
    results = [{"peer": name, **size, **got} for name, got in best.items()]
    for r in results:
        r["flops"] = 8 * rows * rows * width / r["seconds"]
    losses = [r["loss"] for r in results]
    # of small losses, eager's fp32 has an error of 1e-5 itself (ours 5e-7; 4,096 x 1,024)
    if max(losses) - min(losses) > (1e-4 if device == "cpu" else 1e-2) * abs(losses[0]):
        sys.exit(f"losses differ at {rows} rows of {width}: {losses}")
    return results + [{"peer": name, **size, "left_out": "memory"} for name in left_out]


def ratios(results: list[dict[str, Any]]) -> dict[str, float]:
    """Ours at 8,192 rows of 512: times as fast, share of the ceiling, times as small.

    "busy" ones count seconds of processors, which other work on the machine hardly changes.
    """
    found = {r["peer"]: r for r in results if (r["rows"], r["width"]) == BARRED and "loss" in r}
    if "ours" not in found:
        return {}
    ours = found["ours"]
    out = {"of_ceiling": ours["flops"] / max(r["ceiling"] for r in found.values())}
    work = 8 * BARRED[0] ** 2 * BARRED[1]
    out["busy_of_ceiling"] = work / ours["busy"] / max(r["busy_ceiling"] for r in found.values())
    for name, key in (("eager", "eager"), ("torch.compile", "compile"), ("open_clip", "open_clip")):
        if name in found:
            out[f"ratio_{key}"] = found[name]["seconds"] / ours["seconds"]
            out[f"busy_ratio_{key}"] = found[name]["busy"] / ours["busy"]
    if "eager" in found:
        out["memory_ratio"] = found["eager"]["memory"] / ours["memory"]
    return {key: round(value, 3) for key, value in out.items()}


def report(results: list[dict[str, Any]], device: str) -> None:
    columns = ("pairs", "width", "loss", "seconds", "CPU s", "GFLOP/s", "of ceiling", "MiB",
               "grad error")  # fmt: skip
    kind = "fp32" if device == "cpu" else "bf16 features"
    table = Table(title=f"contrastive loss, forward and backward, {kind}")
    for column in columns:
        table.add_column(column, justify="left" if column == "loss" else "right")
    ceilings: dict[tuple[int, int], float] = {}  # the best of a size, the same for all peers
    for r in results:
        size = (r["rows"], r["width"])
        ceilings[size] = max(ceilings.get(size, 0.0), r.get("ceiling", 0.0))
    for r in results:
        start = (f"{r['rows']:,}", str(r["width"]), r["peer"])
        if "left_out" in r:
            table.add_row(*start, "not run", "", "", "", "memory", "")
            continue
        table.add_row(
            *start, f"{r['seconds']:.4f}", f"{r['busy']:.4f}", f"{r['flops'] / 1e9:,.0f}",
            f"{r['flops'] / ceilings[r['rows'], r['width']]:.0%}", f"{r['memory'] / 2**20:,.0f}",
            f"{r['grad_error']:.1e}" if "grad_error" in r else "",
        )  # fmt: skip
    Console(width=100).print(table)
    for key, value in ratios(results).items():
        print(f"{BARRED[0]:,} pairs of {BARRED[1]}: {key} {value}")
    print(PUBLISHED)
    if device == "cpu":
        print("GPU: not measured; no CUDA device was used.")
        if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
            print(f"Load {os.getloadavg()[0]:.1f}: seconds are the machine's, CPU seconds ours.")


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
    at_hand = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", help="pairs of a batch, with commas between")
    parser.add_argument("--widths", help="features of a row, with commas between")
    parser.add_argument("--rounds", type=int, default=4, help="steps of each peer")
    parser.add_argument("--device", choices=SIZES, default=at_hand)
    parser.add_argument("--save", action="store_true", help="write bench/results/DATE-loss-*.json")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, rows, width, device = args.worker
        worker(name, int(rows), int(width), device)
        return
    results, widths = [], args.widths or WIDTHS[args.device]
    for width in widths.split(","):
        for rows in (args.sizes or SIZES[args.device]).split(","):
            results += measure(int(rows), int(width), args.device, args.rounds)
    report(results, args.device)
    whole = {**machine(), **ratios(results), "results": results, "published": PUBLISHED}
    whole["unmeasured"] = "every line on a GPU" if args.device == "cpu" else None
    if args.save:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{whole['date']}-loss-{args.device}-{widths.replace(',', '-')}.json"
        path.with_suffix(".tmp").write_text(json.dumps(whole, indent=1) + "\n")
        path.with_suffix(".tmp").replace(path)
    if args.json:
        print(json.dumps(whole))


if __name__ == "__main__":
    main()
