"""The contrastive losses on a GPU: logits live in registers. Triton kernels of `contrastive.py`.

x_ij = scale gain_i gain_j <a_i, b_j>, products in the type of the features, sums in fp32. Meanings
and shapes stand with `chunked.py`. The forward kernel leaves (max, sum) of the rows and columns of
each tile, merged in fp64 in a fixed order: nothing is added atomically. Backward writes gradients
of a chunk of logits into scratch, gains folded in, and the library multiplies them with the
features. Gradients of matching pairs are near 1 - 1; they stay in fp32, beside the scratch.

For 16-bit features one exponential serves a logit's row and its column, wherever a tile's
log-sum-exps (in forward, its maxima) lie within e^60 of each other, which is checked tile by tile;
for fp32, whose products take far longer, there are always two, and digits are spared.

The features that one launch reads (a chunk of rows, and the columns of its scratch, or the few
spans of columns that run at a time) fit into a GPU's second-level cache, so tiles need no order of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MINUS, PLUS = tl.constexpr(float("-inf")), tl.constexpr(float("inf"))
ROOM = tl.constexpr(60.0)
PARTS = 16 << 20  # bytes of column parts at a time,
BLOCKS = 8  # but no fewer blocks of rows
SCRATCH = 64 << 20  # bytes of gradients of logits at a time,
COLUMNS = 8192  # and columns
SOME = 8192  # rows at a time where features become fp32
HALF_UNIT = 4096.0  # fp16 gradients are stored times this: 1 / N would lose digits


class Tiles(NamedTuple):
    """How the kernels cut logits (rows, columns, features at a time) and run."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    span: int  # column blocks that one program of the forward kernel walks


# By device and type. Not tuned yet: bench/tune_loss.py does it. On a CPU: Triton's interpreter.
TILES = {
    ("cuda", torch.bfloat16): Tiles(128, 128, 64, 8, 3, 8),
    ("cuda", torch.float16): Tiles(128, 128, 64, 8, 3, 8),
    ("cuda", torch.float32): Tiles(64, 64, 32, 4, 3, 8),
    ("cpu", torch.bfloat16): Tiles(32, 32, 32, 4, 1, 8),
    ("cpu", torch.float16): Tiles(32, 32, 32, 4, 1, 8),
    ("cpu", torch.float32): Tiles(32, 32, 32, 4, 1, 8),
}


@triton.jit
def _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK: tl.constexpr, EVEN: tl.constexpr):
    """Logits of rows `i` and columns `j`; the gains of both. Beyond the ends: the last ones."""
    acc = tl.zeros((i.shape[0], j.shape[0]), dtype=tl.float32)
    row_at, column_at = tl.minimum(i, n - 1), tl.minimum(j, N - 1)
    for k in range(0, D, BK):
        at = k + tl.arange(0, BK)
        rows = a + row_at[:, None] * D + at[None, :]
        columns = b + column_at[None, :] * D + at[:, None]
        if EVEN:
            acc = tl.dot(tl.load(rows), tl.load(columns), acc, input_precision="ieee")
        else:
            row = tl.load(rows, mask=(at < D)[None, :], other=0.0)
            column = tl.load(columns, mask=(at < D)[:, None], other=0.0)
            acc = tl.dot(row, column, acc, input_precision="ieee")
    ga = tl.load(gain_a + row_at)
    gb = tl.load(gain_b + column_at)
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
def _sums(x, row_top, column_top):
    """Sums of exponentials of rows and columns, each over its own maximum."""
    row_safe = tl.where(row_top == MINUS, 0.0, row_top)
    column_safe = tl.where(column_top == MINUS, 0.0, column_top)
    row_sum = tl.sum(tl.exp(x - row_safe[:, None]), axis=1)
    return row_sum, tl.sum(tl.exp(x - column_safe[None, :]), axis=0)


@triton.jit
def _sweep(
    a, b, gain_a, gain_b, scale, group_a, group_b,
    row_max, row_sum, row_positive, column_max, column_sum,
    first, height, n, N, D, start,
    GROUPS: tl.constexpr, SPAN: tl.constexpr, ONE: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    block, span = tl.program_id(0), tl.program_id(1).to(tl.int64)
    down = (block * BM + tl.arange(0, BM)).to(tl.int64)
    i = first + down
    top = tl.full((BM,), MINUS, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    positive = tl.zeros((BM,), tl.float32)
    for step in range(SPAN):
        j = (span * SPAN + step) * BN + tl.arange(0, BN)
        x, _, _ = _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK, EVEN)
        same = _same(group_a, group_b, i, j, n, N, start, GROUPS)
        positive += tl.sum(tl.where(same, x, 0.0), axis=1)
        x = tl.where((i < n)[:, None] & (j < N)[None, :], x, MINUS)

        row_top, column_top = tl.max(x, axis=1), tl.max(x, axis=0)
        if ONE:
            high = tl.max(row_top, axis=0)
            low = tl.minimum(
                tl.min(tl.where(i < n, row_top, high), axis=0),
                tl.min(tl.where(j < N, column_top, high), axis=0),
            )
            if high - low < ROOM:  # not so where all is -inf or there are NaNs
                e = tl.exp(x - high)
                row_part, column_part = tl.sum(e, axis=1), tl.sum(e, axis=0)
                row_top = tl.where(i < n, high, MINUS)
                column_top = tl.where(j < N, high, MINUS)
            else:
                row_part, column_part = _sums(x, row_top, column_top)
        else:
            row_part, column_part = _sums(x, row_top, column_top)

        new = tl.maximum(top, row_top)
        safe = tl.where(new == MINUS, 0.0, new)
        total = total * tl.exp(top - safe) + row_part * tl.exp(row_top - safe)
        top = new
        tl.store(column_max + block.to(tl.int64) * N + j, column_top, mask=j < N)
        tl.store(column_sum + block.to(tl.int64) * N + j, column_part, mask=j < N)
    tl.store(row_max + span * height + down, top, mask=i < n)
    tl.store(row_sum + span * height + down, total, mask=i < n)
    tl.store(row_positive + span * height + down, positive, mask=i < n)


@triton.jit
def _halves(x, r, r_low, c, c_low):
    """Half of each of exp(x - r) and exp(x - c)."""
    by_row = tl.exp((x - r[:, None]) - r_low[:, None])
    return 0.5 * by_row + 0.5 * tl.exp((x - c[None, :]) - c_low[None, :])


@triton.jit
def _gradient(
    a, b, gain_a, gain_b, scale, group_a, group_b, row, row_low, column, column_low, target,
    grad, own, first, first_column, width, n, N, D, start, unit,
    GROUPS: tl.constexpr, ONE: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    down = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    right = (tl.program_id(1) * BN + tl.arange(0, BN)).to(tl.int64)
    i, j = first + down, first_column + right
    x, ga, gb = _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK, EVEN)
    same = _same(group_a, group_b, i, j, n, N, start, GROUPS)
    r, r_low = tl.load(row + i, i < n, PLUS), tl.load(row_low + i, i < n, 0.0)
    c, c_low = tl.load(column + j, j < N, PLUS), tl.load(column_low + j, j < N, 0.0)
    if ONE:
        low = tl.minimum(tl.min(r, axis=0), tl.min(c, axis=0))
        high_r, high_c = tl.where(i < n, r, MINUS), tl.where(j < N, c, MINUS)
        high = tl.maximum(tl.max(high_r, axis=0), tl.max(high_c, axis=0))
        if high - low < ROOM:
            by_row, by_column = tl.exp((low - r) - r_low), tl.exp((low - c) - c_low)
            g = tl.exp(x - low) * (0.5 * by_row[:, None] + 0.5 * by_column[None, :])
        else:
            g = _halves(x, r, r_low, c, c_low)
    else:
        g = _halves(x, r, r_low, c, c_low)
    hit = tl.load(target + i, mask=i < n, other=0.0)
    g -= tl.where(same, hit[:, None], 0.0)
    _store(g, same, ga, gb, grad, own, down, right, i, j, n, N, width, unit, GROUPS)


@triton.jit
def _sigmoid(
    a, b, gain_a, gain_b, scale, bias, group_a, group_b, grad, own, total, slope,
    first, first_column, width, n, N, D, start, unit,
    GROUPS: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    down = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    right = (tl.program_id(1) * BN + tl.arange(0, BN)).to(tl.int64)
    i, j = first + down, first_column + right
    x, ga, gb = _tile(a, b, gain_a, gain_b, scale, i, j, n, N, D, BK, EVEN)
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
    _store(g, same, ga, gb, grad, own, down, right, i, j, n, N, width, unit, GROUPS)


@triton.jit
def _store(
    g, same, ga, gb, grad, own, down, right, i, j, n, N, width, unit, GROUPS: tl.constexpr
):  # fmt: skip
    """A tile of gradients into scratch; those of matching pairs into `own`."""
    inside = (i < n)[:, None] & (j < N)[None, :]
    if not GROUPS:
        mine = tl.sum(tl.where(same, g, 0.0), axis=1)
        here = tl.sum(tl.where(same, 1, 0), axis=1) > 0
        tl.store(own + i, mine, mask=here)
        g = tl.where(same, 0.0, g)
    g = g * (ga * unit)[:, None] * gb[None, :]
    at = down[:, None] * width + right[None, :]
    tl.store(grad + at, g.to(grad.dtype.element_ty), mask=inside)


def _options(a_nD: Tensor) -> dict[str, Any]:
    """What every kernel with tiles is launched with."""
    tiles = TILES[a_nD.device.type, a_nD.dtype]
    return {
        "BM": tiles.rows, "BN": tiles.columns, "BK": tiles.depth,
        "EVEN": a_nD.shape[1] % tiles.depth == 0,
        "num_warps": tiles.warps, "num_stages": tiles.stages,
    }  # fmt: skip


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
    options = _options(a_nD)
    rows, columns = options["BM"], options["BN"]
    span = min(TILES[a_nD.device.type, a_nD.dtype].span, triton.cdiv(N, columns))
    spans = triton.cdiv(N, columns * span)
    row_n, positive_n = (a_nD.new_empty(n, dtype=torch.float64) for _ in range(2))
    column_N = a_nD.new_full((N,), -torch.inf, dtype=torch.float64)
    blocks = max(BLOCKS, PARTS // (8 * N))
    groups = group_n is not None
    for first in range(0, n, blocks * rows):
        used = min(blocks, triton.cdiv(n - first, rows))
        height = min(used * rows, n - first)
        high_PN, sum_PN = a_nD.new_empty(2, used, N, dtype=torch.float32)
        parts_Ph = a_nD.new_empty(3, spans, height, dtype=torch.float32)
        _sweep[(used, spans)](
            a_nD, b_ND, gain_n, gain_N, scale, group_n if groups else a_nD,
            group_N if groups else b_ND, *parts_Ph, high_PN, sum_PN, first, height, n, N, D, start,
            GROUPS=groups, SPAN=span, ONE=a_nD.dtype != torch.float32, **options,
        )  # fmt: skip
        column_N = column_N.logaddexp(_merge(high_PN, sum_PN))
        row_n[first : first + height] = _merge(parts_Ph[0], parts_Ph[1])
        positive_n[first : first + height] = parts_Ph[2].sum(dim=0, dtype=torch.float64)
    return row_n, column_N, positive_n, a_nD.new_empty(0, 0)


def _two(x: Tensor) -> tuple[Tensor, Tensor]:
    """fp64 as the sum of two fp32."""
    high = x.float()
    return high, (x - high).float()


class _Products:
    """Scratch for gradients of a chunk of logits, and what the library makes of it."""

    def __init__(
        self, a_nD: Tensor, gain_n: Tensor, b_ND: Tensor, gain_N: Tensor, options: dict[str, Any]
    ) -> None:
        self.a_nD, self.gain_n, self.b_ND, self.gain_N = a_nD, gain_n, b_ND, gain_N
        n, N, rows, columns = len(a_nD), len(b_ND), options["BM"], options["BN"]
        self.options = options
        self.unit = HALF_UNIT if a_nD.dtype == torch.float16 else 1.0
        self.width = min(N, max(1, COLUMNS // columns) * columns)
        most = max(1, SCRATCH // (a_nD.element_size() * self.width * rows)) * rows
        self.scratch_cw = a_nD.new_empty(min(most, n), self.width)
        self.own_n = a_nD.new_zeros(n, dtype=torch.float32)
        self.grad_a_nD = torch.zeros_like(a_nD, dtype=torch.float32)
        self.grad_b_ND = torch.zeros_like(b_ND, dtype=torch.float32)

    def chunks(self) -> Iterator[tuple[int, int, tuple[int, int]]]:
        """First row, first column and grid of each chunk; after it, its products are added."""
        c = len(self.scratch_cw)
        for j in range(0, len(self.b_ND), self.width):
            columns = slice(j, min(j + self.width, len(self.b_ND)))
            for i in range(0, len(self.a_nD), max(1, c)):
                rows = slice(i, min(i + c, len(self.a_nD)))
                grad_cw = self.scratch_cw[: rows.stop - i, : columns.stop - j]
                grid = triton.cdiv(rows.stop - i, self.options["BM"])
                yield i, j, (grid, triton.cdiv(columns.stop - j, self.options["BN"]))
                _add_product(self.grad_a_nD[rows], grad_cw, self.b_ND[columns])
                _add_product(self.grad_b_ND[columns], grad_cw.T, self.a_nD[rows])

    def finish(self, start: int) -> tuple[Tensor, Tensor]:
        """Gradients of unit rows: gains of the other side are in already, ours too often."""
        self.scratch_cw = self.scratch_cw[:0].clone()
        gain_n1, gain_N1, own_n1 = self.gain_n[:, None], self.gain_N[:, None], self.own_n[:, None]
        self.grad_a_nD /= gain_n1 * self.unit
        self.grad_b_ND /= gain_N1 * self.unit
        for i in range(0, len(self.a_nD), SOME):
            at = slice(i, min(i + SOME, len(self.a_nD)))
            there = slice(start + i, start + at.stop)
            self.grad_a_nD[at] += own_n1[at] * (self.b_ND[there].float() * gain_N1[there])
            self.grad_b_ND[there] += own_n1[at] * (self.a_nD[at].float() * gain_n1[at])
        return self.grad_a_nD, self.grad_b_ND


def _add_product(sum_xy: Tensor, x: Tensor, y: Tensor) -> None:
    """Adds x y, factors of any type, to an fp32 sum."""
    if x.dtype == torch.float32 or x.device.type == "cpu":
        sum_xy.addmm_(x.float(), y.float())
    else:
        torch.addmm(sum_xy, x, y, out_dtype=torch.float32, out=sum_xy)


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
    kept_kN: Tensor,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `chunked.softmax_gradients`, which see; fp32."""
    (n, D), N = a_nD.shape, len(b_ND)
    options = _options(a_nD)
    products = _Products(a_nD, gain_n, b_ND, gain_N, options)
    groups, sums = group_n is not None, (*_two(row_n), *_two(column_N))
    for i, j, grid in products.chunks():
        _gradient[grid](
            a_nD, b_ND, gain_n, gain_N, scale, group_n if groups else a_nD,
            group_N if groups else b_ND, *sums, target_n,
            products.scratch_cw, products.own_n, i, j, products.width, n, N, D, start,
            products.unit, GROUPS=groups, ONE=a_nD.dtype != torch.float32, **options,
        )  # fmt: skip
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
    options = _options(a_nD)
    products = _Products(a_nD, gain_n, b_ND, gain_N, options)
    groups = group_n is not None
    total, slope = (a_nD.new_zeros((), dtype=torch.float64) for _ in range(2))
    for i, j, grid in products.chunks():
        sums = a_nD.new_empty(2, grid[0] * grid[1], dtype=torch.float32)
        _sigmoid[grid](
            a_nD, b_ND, gain_n, gain_N, scale, bias, group_n if groups else a_nD,
            group_N if groups else b_ND, products.scratch_cw, products.own_n, *sums,
            i, j, products.width, n, N, D, start, products.unit, GROUPS=groups, **options,
        )  # fmt: skip
        total, slope = total + sums[0].double().sum(), slope + sums[1].double().sum()
    return total, slope, *products.finish(start)
