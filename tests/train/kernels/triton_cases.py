"""Every Triton kernel beside double precision, on the device given; run by test_triton.py.

TRITON_INTERPRET=1 python tests/train/kernels/triton_cases.py cpu
"""

from __future__ import annotations

import math
import sys
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from train.kernels import contrastive, triton_contrastive, triton_normalise
from train.kernels import normalise as plain
from train.loss import contrastive_loss

ULP = 2.0**-23
SIZES = ((1, 8), (37, 40), (300, 512))
KINDS = ("random", "trained", "identical")
FEW = (  # for the interpreter, which is slow, in turn fp32 and fp16
    ("random", "softmax", (1, 8)), ("trained", "softmax", (37, 40)),
    ("trained", "softmax", (33, 24)), ("random", "sigmoid groups", (20, 8)),
    ("identical", "smooth", (35, 24)), ("trained", "sigmoid", (33, 16)),
    ("trained", "groups", (33, 16)), ("identical", "groups", (20, 16)),
    ("trained", "sigmoid", (34, 24)), ("random", "softmax", (1, 8)),
)  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "groups": {"groups": True},
    "smooth": {"smoothing": 0.1},
    "sigmoid": {"bias": -10.0},
    "sigmoid groups": {"bias": -10.0, "groups": True},
}


def batch(kind: str, rows: int, width: int) -> tuple[Tensor, Tensor, float]:
    make = torch.Generator().manual_seed(rows)
    image, text = (torch.randn(rows, width, generator=make) for _ in range(2))
    if kind == "trained":  # near-duplicates, and matches well apart from the rest
        image[1::7] = image[::7][: len(image[1::7])] + 0.01 * text[1::7]
        return 5 * image, image + 0.3 * text, 100.0
    if kind == "identical":
        image = image[:1].repeat(rows, 1)
        return image, image.clone(), 50.0
    return image, text, 14.0


def eager(image: Tensor, text: Tensor, log_scale: Tensor, options: dict[str, Any]) -> Tensor:
    """What autocast makes of the plain form: logits in the type of the features."""
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    logits = ((log_scale.exp() * image).to(image.dtype) @ text.T).float()
    same = contrastive.positives(len(image), options.get("group_n"), image.device)
    if "bias" in options:
        logits = logits + options["bias"]
        return -F.logsigmoid(torch.where(same, logits, -logits)).sum() / len(image)
    target = same / same.sum(dim=1, keepdim=True)
    smoothing = options.get("smoothing", 0.0)
    sides = [F.cross_entropy(x, target, label_smoothing=smoothing) for x in (logits, logits.T)]
    return (sides[0] + sides[1]) / 2


def check_loss(kind: str, form: str, rows: int, width: int, dtype: torch.dtype, on: str) -> None:
    image, text, scale = batch(kind, rows, width)
    options = {key: value for key, value in FORMS[form].items() if key == "smoothing"}
    if "groups" in FORMS[form]:
        options["group_n"] = torch.arange(rows, device=on) // 3
    leaves = [image.to(on, dtype), text.to(on, dtype), torch.tensor(math.log(scale), device=on)]
    leaves = [t.requires_grad_() for t in leaves]
    truth = [t.detach().double().requires_grad_() for t in leaves]
    bias = torch.tensor(FORMS[form].get("bias", 0.0), device=on)
    biased = ({"bias": bias}, {"bias": bias.double()}) if "bias" in FORMS[form] else ({}, {})
    losses = (
        contrastive_loss(*leaves, **options, **biased[0], impl="triton"),
        eager(*leaves, {**options, **biased[0]}),
        contrastive_loss(*truth, **options, **biased[1], impl="plain"),
    )
    ours, theirs = (
        [loss, *torch.autograd.grad(loss, leaves, retain_graph=True)] for loss in losses[:2]
    )
    exact = [losses[2], *torch.autograd.grad(losses[2], truth)]
    # gradients of logits are stored in the type of the features, as eager's products have them
    unit = max(2 * ULP, torch.finfo(dtype).eps / 2)
    units = {
        "loss": ULP * (scale if "groups" in form else 4),
        "da": unit * scale * rows**-0.5, "db": unit * scale * rows**-0.5,
        "dscale": unit * scale,
    }  # fmt: skip
    for name, a, b, c in zip(units, ours, theirs, exact, strict=True):
        error, other, size = ((x.double() - c).norm().item() for x in (a, b, torch.zeros_like(c)))
        floor = units[name] + 4 * ULP * size
        assert error <= 1.1 * other + floor, (kind, form, rows, dtype, name, error, other, floor)


def check_normalise(dtype: torch.dtype, on: str) -> None:
    make = torch.Generator().manual_seed(0)
    x = torch.randn(9, 33, generator=make).to(on)
    x[1] = 0
    if dtype != torch.float16:
        x[2] *= 1e30
        x[3] *= 1e-20
        x[4] *= 1e-35
    x = x.to(dtype)
    rows, gain, inverse = triton_normalise.normalise(x)
    assert rows.dtype == dtype
    exact, inverse_exact = plain.normalise(x.double())
    exact[4] *= dtype == torch.float16  # shorter than TINY
    inverse_exact[4] *= dtype == torch.float16
    torch.testing.assert_close(rows.double() * gain[:, None].double(), exact, rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(inverse.double(), inverse_exact, rtol=2e-6, atol=0)
    grad = torch.randn(9, 33, generator=make).to(on)
    factor = torch.tensor(0.5, device=on)
    raw, dot = triton_normalise.normalise_backward(grad, rows, gain, inverse, factor, torch.float32)
    true, true_dot = plain.normalise_backward(
        grad.double(), exact, inverse_exact, factor.double(), torch.float64
    )
    torch.testing.assert_close(dot.double(), true_dot, rtol=1e-5, atol=1e-6)
    size = true.norm(dim=1, keepdim=True).clamp(min=1e-30)
    assert ((raw.double() - true).norm(dim=1, keepdim=True) <= 1e-5 * size).all()


def check_chunks(on: str) -> None:
    """More rows than scratch and parts hold: chunks of them, and the same result."""
    image, text, scale = (x for x in batch("random", 70, 8))
    inputs = (image.to(on), text.to(on), torch.tensor(math.log(scale), device=on))
    results = []
    for limit in (1 << 26, 1):
        for name in ("PARTS", "BLOCKS", "SCRATCH", "COLUMNS"):
            setattr(triton_contrastive, name, limit)
        leaves = [t.clone().requires_grad_() for t in inputs]
        loss = contrastive_loss(*leaves, impl="triton")
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-6)


def main(on: str) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(on == "cpu")  # fresh memory holds NaN
    dtypes = [torch.float32, torch.float16]
    dtypes += [torch.bfloat16] if on != "cpu" else []  # the interpreter's product of bf16 is wrong
    for dtype in dtypes:
        check_normalise(dtype, on)
        every = product(KINDS, FORMS, SIZES) if on != "cpu" else FEW[dtype == torch.float16 :: 2]
        for kind, form, (rows, width) in every:
            check_loss(kind, form, rows, width, dtype, on)
    check_chunks(on)
    print("all cases hold")


if __name__ == "__main__":
    main(sys.argv[1])
