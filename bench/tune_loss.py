"""Which tiles are the quickest for the loss on this GPU: checks each, times it, prints a table.

    python bench/tune_loss.py [--rows 32768] [--width 512] [--dtype bf16]

Every choice is first held against double precision at 1,000 pairs and left out where it is wrong or
does not fit the card; then all are timed, forward and backward, beside the same four matrix
products in the library. The last line is what to put into `TILES` of
train/kernels/triton_contrastive.py. Without a GPU there is nothing to tune: one line, exit code 0.
With TRITON_INTERPRET=1 and --device cpu the script itself can be tried, at tiny sizes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import time
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from train.loss import contrastive_loss

if TYPE_CHECKING:
    from train.kernels.triton_contrastive import Tiles

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ALLOWED = {"bf16": 2e-2, "fp16": 2e-3, "fp32": 1e-5}  # relative error of the gradients
REPEATS = 10


def choices(tiny: bool, span: int) -> list[Tiles]:
    from train.kernels.triton_contrastive import Tiles

    if tiny:  # Triton's interpreter
        return [Tiles(32, 32, 16, 4, 1, span), Tiles(16, 32, 32, 4, 1, span)]
    shapes = [(128, 128, 64), (128, 256, 64), (256, 128, 64), (128, 128, 32), (64, 128, 64),
              (64, 64, 32)]  # fmt: skip
    return [Tiles(*shape, *run, span) for shape, run in product(shapes, product((4, 8), (3, 4)))]


def batch(rows: int, width: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    make = torch.Generator().manual_seed(rows)
    image = torch.randn(rows, width, generator=make)
    text = torch.randn(rows, width, generator=make) + 0.3 * image
    leaves = [image.to(device, dtype), text.to(device, dtype)]
    leaves.append(torch.tensor(math.log(50.0), device=device))
    return [t.requires_grad_() for t in leaves]


def step(inputs: list[Tensor], impl: str) -> list[Tensor]:
    loss = contrastive_loss(*inputs, impl=impl)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def seconds(function: Any, device: str) -> float:
    """The best of some calls."""
    best = math.inf
    for _ in range(REPEATS if device == "cuda" else 1):
        started = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def ceiling(rows: int, width: int, dtype: torch.dtype, device: str) -> float:
    """Operations per second of the four products alone."""
    rows = min(rows, 8192)
    a_ND, b_ND = (torch.randn(rows, width, device=device, dtype=dtype) for _ in range(2))
    out_NN = a_ND.new_empty(rows, rows)

    def products() -> None:
        for _ in range(2):
            torch.mm(a_ND, b_ND.T, out=out_NN)
        torch.mm(out_NN, b_ND)
        torch.mm(out_NN.T, a_ND)

    products()
    return 8 * rows * rows * width / seconds(products, device)


def tried(tiles: Tiles, args: argparse.Namespace, small: list[Tensor], true: list[Tensor]) -> Any:
    """Error and time of one choice; a word instead where it can't be used."""
    from triton.runtime.errors import OutOfResources

    from train.kernels import triton_contrastive

    triton_contrastive.TILES[args.device, DTYPES[args.dtype]] = tiles
    try:
        got = step(small, "triton")
    except OutOfResources:
        return "does not fit"
    pairs = zip(got, true, strict=True)
    error = max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)
    if not error <= ALLOWED[args.dtype]:
        return f"wrong: {error:.1e}"
    inputs = batch(args.rows, args.width, DTYPES[args.dtype], args.device)
    step(inputs, "triton")
    return {"error": error, "seconds": seconds(lambda: step(inputs, "triton"), args.device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--span", type=int, default=8, help="column blocks of a forward program")
    parser.add_argument("--best", type=int, default=8, help="lines of the table")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    args = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        print("tune_loss: nothing tuned; Triton is not installed")
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        print("tune_loss: nothing tuned; no CUDA device here")
        return
    from train.kernels.triton_contrastive import Tiles

    small = batch(min(args.rows, 1000), args.width, DTYPES[args.dtype], args.device)
    true = step([t.detach().double().requires_grad_() for t in small], "plain")
    results: list[dict[str, Any]] = []
    refused: list[str] = []
    for tiles in choices(args.device == "cpu", args.span):
        answer = tried(tiles, args, small, true)
        if isinstance(answer, str):
            refused.append(f"{tuple(tiles)} {answer}")
        else:
            results.append({"tiles": tuple(tiles), **answer})
    for line in refused:
        print(line)
    if not results:
        sys.exit("tune_loss: no choice of tiles can be used here")
    results.sort(key=lambda r: r["seconds"])
    top, flops = ceiling(args.rows, args.width, DTYPES[args.dtype], args.device), 8 * args.rows**2
    name = torch.cuda.get_device_name() if args.device == "cuda" else "Triton's interpreter"
    table = Table(title=f"{args.rows:,} x {args.width} {args.dtype}, {name}")
    for column in (*Tiles._fields, "ms", "TFLOP/s", "of ceiling", "error"):
        table.add_column(column, justify="right")
    for r in results[: args.best]:
        speed = flops * args.width / r["seconds"]
        table.add_row(
            *map(str, r["tiles"]), f"{1e3 * r['seconds']:.2f}", f"{speed / 1e12:.1f}",
            f"{speed / top:.0%}", f"{r['error']:.1e}",
        )  # fmt: skip
    Console(width=100).print(table)
    print(f'("{args.device}", {DTYPES[args.dtype]}): Tiles{results[0]["tiles"]},')
    if args.json:
        whole = {"device": name, "ceiling": top, "results": results, "refused": refused}
        print(json.dumps(whole))


if __name__ == "__main__":
    main()
