"""Lengths of rows in one pass: Triton kernels of `normalise.py`, which says what is meant.

Rows keep their type and digits: they are only scaled by a power of two, and what is left to unit
length, `gain`, is fp32. Rounding unit rows to bf16 would move logits; this does not. One program
holds a row of D features in registers. fp32, bf16 or fp16 in, fp32 statistics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from train.kernels.normalise import TINY

DEAD = tl.constexpr(TINY)
HIGH, LOW = tl.constexpr(2.0**60), tl.constexpr(2.0**-30)
DOWN, UP = tl.constexpr(2.0**-90), tl.constexpr(2.0**60)
HALF_HIGH, HALF_LOW = tl.constexpr(64.0), tl.constexpr(2.0**-6)
HALF_DOWN, HALF_UP = tl.constexpr(2.0**-10), tl.constexpr(2.0**12)


@triton.jit
def _forward(x, rows, gain, inverse, D, HALF: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < D
    u = tl.load(x + row * D + at, mask=mask, other=0.0).to(tl.float32)
    top = tl.max(tl.abs(u), axis=0)
    # exact, and afterwards neither squares nor products of rows overflow or vanish
    if HALF:
        shift = tl.where(top > HALF_HIGH, HALF_DOWN, tl.where(top < HALF_LOW, HALF_UP, 1.0))
    else:
        shift = tl.where(top > HIGH, DOWN, tl.where(top < LOW, UP, 1.0))
    u = u * shift
    length = tl.sqrt(tl.sum(u * u, axis=0))
    dead = length < shift * DEAD  # NaN is not: it must show in the loss
    by = 1.0 / tl.where(dead, 1.0, length)
    tl.store(rows + row * D + at, tl.where(dead, 0.0, u).to(rows.dtype.element_ty), mask=mask)
    tl.store(gain + row, by)
    tl.store(inverse + row, tl.where(dead, 0.0, by * shift))


@triton.jit
def _backward(grad, rows, gain, inverse, factor, raw, dot, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < D
    g = tl.load(grad + row * D + at, mask=mask, other=0.0)
    a = tl.load(rows + row * D + at, mask=mask, other=0.0).to(tl.float32) * tl.load(gain + row)
    along = tl.sum(g * a, axis=0)
    out = (g - along * a) * (tl.load(inverse + row) * tl.load(factor))
    tl.store(raw + row * D + at, out.to(raw.dtype.element_ty), mask=mask)
    tl.store(dot + row, along)


def normalise(x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (N, D) in the type of `x_ND`, gains and inverse lengths, (N,) fp32 both."""
    x_ND = x_ND.contiguous()
    rows_ND = torch.empty_like(x_ND)
    gain_N, inverse_N = (x_ND.new_empty(len(x_ND), dtype=torch.float32) for _ in range(2))
    if len(x_ND):
        width = x_ND.shape[1]
        _forward[(len(x_ND),)](
            x_ND, rows_ND, gain_N, inverse_N, width, HALF=x_ND.dtype == torch.float16,
            BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
    return rows_ND, gain_N, inverse_N


def normalise_backward(
    grad_ND: Tensor,
    rows_ND: Tensor,
    gain_N: Tensor,
    inverse_N: Tensor,
    factor: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`factor` times the gradient of the raw rows in `dtype`, and the dots <grad, unit> (N,)."""
    raw_ND, dot_N = torch.empty_like(grad_ND, dtype=dtype), torch.empty_like(inverse_N)
    if len(grad_ND):
        width = grad_ND.shape[1]
        _backward[(len(grad_ND),)](
            grad_ND.contiguous(), rows_ND.contiguous(), gain_N.contiguous(),
            inverse_N.contiguous(), factor, raw_ND, dot_N, width,
            BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
    return raw_ND, dot_N
