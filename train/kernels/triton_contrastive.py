"""The contrastive losses on a GPU: logits live in registers. Triton kernels of `contrastive.py`.

x_ij = scale gain_i gain_j <a_i, b_j>, products in the type of the features, sums in fp32. Meanings
and shapes stand with `chunked.py`. The forward kernel leaves (max, sum) of the rows and columns of
each tile, merged in fp64 in a fixed order: nothing is added atomically. Backward writes gradients
of a chunk of rows into scratch, gains folded in, and the library multiplies them with the
features. Gradients of matching pairs are near 1 - 1; they stay in fp32, beside the scratch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MINUS = tl.constexpr(float("-inf"))
PARTS = 64 << 20  # bytes of column parts at a time
SCRATCH = 256 << 20  # bytes of gradients of logits at a time
SPAN = 8  # column blocks that one program of the forward kernel walks
HALF_UNIT = 4096.0  # fp16 gradients are stored times this: 1 / N would lose digits


@triton.jit
def _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK: tl.constexpr):
    """Logits of rows `i` and columns `j`; the gains of both."""
    acc = tl.zeros((i.shape[0], j.shape[0]), dtype=tl.float32)
    for k in range(0, D, BK):
        at = k + tl.arange(0, BK)
        row = tl.load(
            a + i[:, None] * D + at[None, :], mask=(i < n)[:, None] & (at < D)[None, :], other=0.0
        )
        column = tl.load(
            b + j[None, :] * D + at[:, None], mask=(j < N)[None, :] & (at < D)[:, None], other=0.0
        )
        acc = tl.dot(row, column, acc, input_precision="ieee")
    ga = tl.load(gain_a + i, mask=i < n, other=0.0)
    gb = tl.load(gain_b + j, mask=j < N, other=0.0)
    return acc * (ga * tl.load(scale))[:, None] * gb[None, :], ga, gb


@triton.jit
def _same(group_a, group_b, i, j, n, N, start, GROUPS: tl.constexpr):
    """Which of a tile are positives."""
    inside = (i < n)[:, None] & (j < N)[None, :]
    if GROUPS:
        ga = tl.load(group_a + i, mask=i < n, other=0)
        gb = tl.load(group_b + j, mask=j < N, other=0)
        return inside & (ga[:, None] == gb[None, :])
    return inside & ((i + start)[:, None] == j[None, :])


@triton.jit
def _sweep(
    a, b, gain_a, gain_b, scale, group_a, group_b,
    row_max, row_sum, row_positive, column_max, column_sum,
    first, n, N, D, start,
    GROUPS: tl.constexpr, SPAN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    block, span = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i = first + (block * BM + tl.arange(0, BM)).to(tl.int64)
    top = tl.full((BM,), MINUS, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    positive = tl.zeros((BM,), tl.float32)
    for step in range(SPAN):
        j = (span * SPAN + step) * BN + tl.arange(0, BN)
        x, _, _ = _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK)
        same = _same(group_a, group_b, i, j, n, N, start, GROUPS)
        positive += tl.sum(tl.where(same, x, 0.0), axis=1)
        x = tl.where((i < n)[:, None] & (j < N)[None, :], x, MINUS)

        new = tl.maximum(top, tl.max(x, axis=1))
        safe = tl.where(new == MINUS, 0.0, new)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(x - safe[:, None]), axis=1)
        top = new

        high = tl.max(x, axis=0)
        safe = tl.where(high == MINUS, 0.0, high)
        tl.store(column_max + block.to(tl.int64) * N + j, high, mask=j < N)
        sums = tl.sum(tl.exp(x - safe[None, :]), axis=0)
        tl.store(column_sum + block.to(tl.int64) * N + j, sums, mask=j < N)
    tl.store(row_max + span * n + i, top, mask=i < n)
    tl.store(row_sum + span * n + i, total, mask=i < n)
    tl.store(row_positive + span * n + i, positive, mask=i < n)


@triton.jit
def _gradient(
    a, b, gain_a, gain_b, scale, group_a, group_b, row, row_low, column, column_low, target,
    grad, own, first, n, N, D, start, unit,
    GROUPS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    local = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    i = first + local
    j = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    x, ga, gb = _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK)
    same = _same(group_a, group_b, i, j, n, N, start, GROUPS)
    r, r_low = tl.load(row + i, mask=i < n), tl.load(row_low + i, mask=i < n)
    c, c_low = tl.load(column + j, mask=j < N), tl.load(column_low + j, mask=j < N)
    by_row = tl.exp((x - r[:, None]) - r_low[:, None])
    by_column = tl.exp((x - c[None, :]) - c_low[None, :])
    hit = tl.load(target + i, mask=i < n, other=0.0)
    g = 0.5 * by_row + 0.5 * by_column - tl.where(same, hit[:, None], 0.0)
    _store(g, same, ga, gb, grad, own, local, i, j, n, N, unit, GROUPS)


@triton.jit
def _sigmoid(
    a, b, gain_a, gain_b, scale, bias, group_a, group_b, grad, own, total, slope,
    first, n, N, D, start, unit,
    GROUPS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    local = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    i = first + local
    j = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    x, ga, gb = _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK)
    same = _same(group_a, group_b, i, j, n, N, start, GROUPS)
    inside = (i < n)[:, None] & (j < N)[None, :]
    y = x + tl.load(bias)
    y = tl.where(same, -y, y)
    e = tl.exp(-tl.abs(y))
    one = 1.0 + e  # log1p, exact also where e is small
    log1p = tl.where(one == 1.0, e, tl.log(one) * (e / tl.where(one == 1.0, 1.0, one - 1.0)))
    loss = tl.where(inside, tl.maximum(y, 0.0) + log1p, 0.0)
    g = tl.where(y >= 0, 1.0 / one, e / one)
    g = tl.where(inside, tl.where(same, -g, g), 0.0)
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(total + program, tl.sum(tl.sum(loss, axis=1), axis=0))
    tl.store(slope + program, tl.sum(tl.sum(g, axis=1), axis=0))
    _store(g, same, ga, gb, grad, own, local, i, j, n, N, unit, GROUPS)


@triton.jit
def _store(g, same, ga, gb, grad, own, local, i, j, n, N, unit, GROUPS: tl.constexpr):
    """A tile of gradients into scratch; those of matching pairs into `own`."""
    inside = (i < n)[:, None] & (j < N)[None, :]
    if not GROUPS:
        mine = tl.sum(tl.where(same, g, 0.0), axis=1)
        here = tl.sum(tl.where(same, 1, 0), axis=1) > 0
        tl.store(own + i, mine, mask=here)
        g = tl.where(same, 0.0, g)
    g = g * (ga * unit)[:, None] * gb[None, :]
    tl.store(grad + local[:, None] * N + j[None, :], g.to(grad.dtype.element_ty), mask=inside)


def _blocks(a_nD: Tensor) -> dict[str, int]:
    """Tile sizes; on a GPU 128 by 128 keeps the sums of a tile in registers."""
    if a_nD.device.type == "cpu":  # Triton's interpreter
        return {"BM": 32, "BN": 32, "BK": 32}
    small = a_nD.dtype == torch.float32
    return {"BM": 64 if small else 128, "BN": 64 if small else 128, "BK": 32 if small else 64}


def _merge(top_PN: Tensor, sum_PN: Tensor) -> Tensor:
    """fp64 log-sum-exp (N,) of parts (P, N), in the order of parts."""
    high_N = top_PN.double().amax(dim=0)
    safe_N = high_N.nan_to_num(0.0, 0.0, 0.0)
    return ((top_PN - safe_N).exp_() * sum_PN).sum(dim=0).log_() + safe_N


def softmax_sweep(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `chunked.softmax_sweep`, which see; never keeps anything."""
    (n, D), N = a_nD.shape, len(b_ND)
    size = _blocks(a_nD)
    span = min(SPAN, triton.cdiv(N, size["BN"]))
    spans = triton.cdiv(N, size["BN"] * span)
    parts_n = a_nD.new_empty(3, spans, n, dtype=torch.float32)
    column_N = a_nD.new_full((N,), -torch.inf, dtype=torch.float64)
    blocks = max(1, min(triton.cdiv(n, size["BM"]), PARTS // (8 * N)))
    groups = group_n is not None
    for first in range(0, n, blocks * size["BM"]):
        used = min(blocks, triton.cdiv(n - first, size["BM"]))
        high_PN, sum_PN = a_nD.new_empty(2, used, N, dtype=torch.float32)
        _sweep[(used, spans)](
            a_nD, b_ND, gain_n, gain_N, scale, group_n if groups else a_nD,
            group_N if groups else b_ND, *parts_n, high_PN, sum_PN, first, n, N, D, start,
            GROUPS=groups, SPAN=span, **size,
        )  # fmt: skip
        column_N = column_N.logaddexp(_merge(high_PN, sum_PN))
    row_n = _merge(parts_n[0], parts_n[1])
    return row_n, column_N, parts_n[2].sum(dim=0, dtype=torch.float64), a_nD.new_empty(0, 0)


def _two(x: Tensor) -> tuple[Tensor, Tensor]:
    """fp64 as the sum of two fp32."""
    high = x.float()
    return high, (x - high).float()


class _Products:
    """Scratch for gradients of logits, and what the library makes of it."""

    def __init__(self, a_nD: Tensor, gain_n: Tensor, b_ND: Tensor, gain_N: Tensor, bm: int) -> None:
        self.a_nD, self.gain_n, self.b_ND, self.gain_N = a_nD, gain_n, b_ND, gain_N
        n, N = len(a_nD), len(b_ND)
        self.unit = HALF_UNIT if a_nD.dtype == torch.float16 else 1.0
        self.rows = max(1, min(triton.cdiv(n, bm), SCRATCH // (a_nD.element_size() * N * bm))) * bm
        self.scratch_cN = a_nD.new_empty(min(self.rows, n), N)
        self.own_n = a_nD.new_zeros(n, dtype=torch.float32)
        self.grad_a_nD = torch.empty_like(a_nD, dtype=torch.float32)
        self.grad_b_ND = torch.zeros_like(b_ND, dtype=torch.float32)

    def add(self, first: int) -> None:
        rows = slice(first, min(first + self.rows, len(self.a_nD)))
        grad_cN = self.scratch_cN[: rows.stop - first]
        self.grad_a_nD[rows] = _product(grad_cN, self.b_ND)
        self.grad_b_ND += _product(grad_cN.T, self.a_nD[rows])

    def finish(self, start: int) -> tuple[Tensor, Tensor]:
        """Gradients of unit rows: gains of the other side are in already, ours too often."""
        a_nD, b_ND = self.a_nD, self.b_ND[start : start + len(self.a_nD)]
        gain_n1, gain_N1 = self.gain_n[:, None], self.gain_N[:, None]
        self.grad_a_nD /= gain_n1 * self.unit
        self.grad_b_ND /= gain_N1 * self.unit
        own_n1 = self.own_n[:, None]
        self.grad_a_nD += own_n1 * (b_ND.float() * gain_N1[start : start + len(a_nD)])
        self.grad_b_ND[start : start + len(a_nD)] += own_n1 * (a_nD.float() * gain_n1)
        return self.grad_a_nD, self.grad_b_ND


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x y in fp32, from factors of any type."""
    if x.dtype == torch.float32 or x.device.type == "cpu":
        return x.float() @ y.float()
    return torch.mm(x, y, out_dtype=torch.float32)


def softmax_gradients(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    start: int,
    row_n: Tensor,
    column_N: Tensor,
    target_n: Tensor,
    kept_nN: Tensor,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `chunked.softmax_gradients`, which see; fp32."""
    (n, D), N = a_nD.shape, len(b_ND)
    size = _blocks(a_nD)
    products = _Products(a_nD, gain_n, b_ND, gain_N, size["BM"])
    groups = group_n is not None
    for first in range(0, n, products.rows):
        grid = (triton.cdiv(min(products.rows, n - first), size["BM"]), triton.cdiv(N, size["BN"]))
        _gradient[grid](
            a_nD, b_ND, gain_n, gain_N, scale, group_n if groups else a_nD,
            group_N if groups else b_ND, *_two(row_n), *_two(column_N), target_n,
            products.scratch_cN, products.own_n, first, n, N, D, start, products.unit,
            GROUPS=groups, **size,
        )  # fmt: skip
        products.add(first)
    return products.finish(start)


def sigmoid_pass(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    bias: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `chunked.sigmoid_pass`, which see; fp32."""
    (n, D), N = a_nD.shape, len(b_ND)
    size = _blocks(a_nD)
    products = _Products(a_nD, gain_n, b_ND, gain_N, size["BM"])
    groups = group_n is not None
    total, slope = (a_nD.new_zeros((), dtype=torch.float64) for _ in range(2))
    for first in range(0, n, products.rows):
        grid = (triton.cdiv(min(products.rows, n - first), size["BM"]), triton.cdiv(N, size["BN"]))
        sums = a_nD.new_empty(2, grid[0] * grid[1], dtype=torch.float32)
        _sigmoid[grid](
            a_nD, b_ND, gain_n, gain_N, scale, bias, group_n if groups else a_nD,
            group_N if groups else b_ND, products.scratch_cN, products.own_n, *sums,
            first, n, N, D, start, products.unit, GROUPS=groups, **size,
        )  # fmt: skip
        total, slope = total + sums[0].double().sum(), slope + sums[1].double().sum()
        products.add(first)
    return total, slope, *products.finish(start)
