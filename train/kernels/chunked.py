"""The contrastive losses in tiles of library operations: no matrix of logits, exact results.

n rows of this process, N columns (the rows of all processes), D features. Logits x_ij are scale
times cosine. Row i belongs to column `start` + i, or to all columns of its group.

Besides the 8nND operations of the matrix products an element-wise pass costs most, so there are
few. All of a tile is shifted by one number, so that one exponential serves the row and the column
sum, and its gradient is that exponential times (R_i + C_j). The shift leaves room of e^60 on
either side of the largest logit that can be; where a row or column lies below that room (a scale
near 100 and a row opposite to everything) tiles are computed with a shift for each row and column.

Backward computes tiles again, but for those of the first rows, whose exponentials are kept in a
fixed amount of memory: all of a small batch, an eighth of 8,192 pairs, none of many more.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from train.kernels import normalise as plain

ROOM = 60.0  # e^-60 to e^60, and sums of a million of them, are far inside fp32
TINY = 1e-30  # above it exponentials have all their digits
ONE_TILE = 1 << 20  # logits: up to here there is one tile
KEEP = 12 << 20  # logits: 48 MB are kept for backward
ROWS, COLUMNS = 1024, 1024  # measured on a CPU: 4 MB, in the third-level cache


def normalise(x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and gains, whose products are the unit rows, and inverse lengths, (N,) both.

    Here rows have unit length and gains are 1; see `triton_normalise.py` for another choice. As
    the plain twin, which see, a block of rows at a time; without gradient.
    """
    dtype = plain.working_dtype(x_ND)
    unit_ND, inverse_N = torch.empty_like(x_ND, dtype=dtype), x_ND.new_empty(len(x_ND), dtype=dtype)
    for i in range(0, len(x_ND), ROWS):
        rows = slice(i, i + ROWS)
        unit_ND[rows], inverse_N[rows] = plain.normalise(x_ND[rows])
    return unit_ND, torch.ones_like(inverse_N), inverse_N


def normalise_backward(
    grad_ND: Tensor,
    unit_ND: Tensor,
    gain_N: Tensor,
    inverse_N: Tensor,
    factor: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As the plain twin, which see, a block of rows at a time, in place where `dtype` allows."""
    same = dtype == grad_ND.dtype
    raw_ND = grad_ND if same else torch.empty_like(grad_ND, dtype=dtype)
    dot_N = torch.empty_like(inverse_N)
    for i in range(0, len(grad_ND), ROWS):
        rows = slice(i, i + ROWS)
        raw_ND[rows], dot_N[rows] = plain.normalise_backward(
            grad_ND[rows], unit_ND[rows], inverse_N[rows], factor, dtype
        )
    return raw_ND, dot_N


def shift_of(scale: float) -> float:
    """What is subtracted from all logits before the exponential."""
    return max(0.0, scale - ROOM)


def in_room(row_n: Tensor, column_N: Tensor, scale: float) -> bool:
    """Whether log-sum-exps are high enough for one shift; NaN is not."""
    floor = shift_of(scale) - ROOM
    return bool((row_n >= floor).all()) and bool((column_N >= floor).all())


def kept_rows(n: int, N: int) -> int:
    """How many of the n rows of logits are kept for backward: all, or whole rows of tiles."""
    return n if n * N <= max(KEEP, ONE_TILE) else KEEP // (ROWS * N) * ROWS


class _Tiles:
    """Logits plus a constant, tile by tile.

    Tiles of the first rows lie one after the other in `kept_kN`, where backward finds them again;
    others in one buffer that each overwrites.
    """

    def __init__(
        self,
        a_nD: Tensor,
        b_ND: Tensor,
        scale: float,
        start: int,
        add: float,
        kept_kN: Tensor | None = None,
    ) -> None:
        self.a_nD, self.b_ND = a_nD, b_ND
        self.scale, self.start, self.add = scale, start, add
        n, N = len(a_nD), len(b_ND)
        whole = n * N <= ONE_TILE
        self.rows, self.columns = (max(n, 1), max(N, 1)) if whole else (ROWS, COLUMNS)
        size = min(n, self.rows) * min(N, self.columns)
        self.kept = a_nD.new_empty(0) if kept_kN is None else kept_kN.view(-1)
        self.buffer = a_nD.new_empty(size if len(self.kept) < n * N else 0)
        self.other = a_nD.new_empty(size)

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and the tile, computed."""
        for rows, columns, tile_rc, _ in self.places():
            yield rows, columns, self.fill(rows, columns, tile_rc)

    def places(self) -> Iterator[tuple[slice, slice, Tensor, bool]]:
        """Rows, columns, the tile as it lies in memory, and whether it is a kept one."""
        n, N, at = len(self.a_nD), len(self.b_ND), 0
        for i in range(0, n, self.rows):
            rows = slice(i, min(i + self.rows, n))
            for j in range(0, N, self.columns):
                columns = slice(j, min(j + self.columns, N))
                keep = at < len(self.kept)
                tile_rc = self.shaped(self.kept[at:] if keep else self.buffer, rows, columns)
                at += tile_rc.numel()
                yield rows, columns, tile_rc, keep

    def fill(self, rows: slice, columns: slice, tile_rc: Tensor) -> Tensor:
        beta = 1 if self.add else 0
        if self.add:
            tile_rc.fill_(self.add)
        return tile_rc.addmm_(self.a_nD[rows], self.b_ND[columns].T, beta=beta, alpha=self.scale)

    @staticmethod
    def shaped(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
        r, c = rows.stop - rows.start, columns.stop - columns.start
        return buffer[: r * c].view(r, c)

    def diagonal(self, tile_rc: Tensor, rows: slice, columns: slice) -> tuple[Tensor, slice]:
        """The logits of matching pairs in a tile, a view, and the rows they lie in."""
        first = self.start + rows.start - columns.start
        view = tile_rc.diagonal(first) if -len(tile_rc) < first < tile_rc.shape[1] else None
        if view is None:
            return tile_rc.new_empty(0), slice(0, 0)
        at = rows.start + max(0, -first)
        return view, slice(at, at + len(view))


def softmax_sweep(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    start: int,
    group_n: Tensor | None = None,
    group_N: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One pass over the logits.

    Args:
        a_nD, b_ND: unit rows, fp32 or fp64.
        gain_n, gain_N: 1 throughout, as `normalise` gives them.
        scale: 0-D.
        start: column of row 0.
        group_n, group_N: ids of groups of rows and columns; both or none.

    Returns:
        log-sum-exps of rows (n,) and of columns (N,), sums of each row's positive logits (n,),
        all fp64; and the exponentials of the first `kept_rows`, (k, N), in the order of tiles.
    """
    s = float(scale)
    k = shift_of(s)
    kept_kN = a_nD.new_empty(kept_rows(len(a_nD), len(b_ND)), len(b_ND))
    tiles = _Tiles(a_nD, b_ND, s, start, -k, kept_kN)
    row_n = a_nD.new_zeros(len(a_nD), dtype=torch.float64)
    column_N = a_nD.new_zeros(len(b_ND), dtype=torch.float64)
    positive_n = torch.zeros_like(row_n)
    for rows, columns, tile_rc in tiles:
        if group_n is not None and group_N is not None:
            same_rc = group_n[rows, None] == group_N[columns]
            other_rc = torch.mul(tile_rc, same_rc, out=tiles.shaped(tiles.other, rows, columns))
            positive_n[rows] += other_rc.sum(1, dtype=torch.float64) + k * same_rc.sum(1)
        view_d, at = tiles.diagonal(tile_rc, rows, columns)
        logit_d = view_d.double()
        tile_rc.exp_()
        row_n[rows] += tile_rc.sum(dim=1)
        column_N[columns] += tile_rc.sum(dim=0)
        if group_n is None:  # the log of what was summed: its rounding cancels in the loss
            exact_d = torch.where(view_d > TINY, view_d.double().log(), logit_d)
            positive_n[at] += exact_d.add_(k)
    row_n, column_N = row_n.log_().add_(k), column_N.log_().add_(k)
    if not in_room(row_n, column_N, s):
        row_n.fill_(-torch.inf)
        column_N.fill_(-torch.inf)
        for rows, columns, tile_rc in _Tiles(a_nD, b_ND, s, start, 0.0):
            row_n[rows] = row_n[rows].logaddexp(tile_rc.double().logsumexp(dim=1))
            column_N[columns] = column_N[columns].logaddexp(tile_rc.double().logsumexp(dim=0))
    return row_n, column_N, positive_n, kept_kN


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
    group_n: Tensor | None = None,
    group_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Products of G_ij = (exp(x_ij - row_i) + exp(x_ij - column_j)) / 2 - target_ij.

    Args:
        row_n, column_N: log-sum-exps, fp64, over all rows and columns of the batch.
        target_n: each row's target at each of its positives.
        kept_kN: what `softmax_sweep` kept.

    Returns:
        G b (n, D) and G^T a (N, D).
    """
    s = float(scale)
    k = shift_of(s)
    single = in_room(row_n, column_N, s)
    tiles = _Tiles(a_nD, b_ND, s, start, -k if single else 0.0, kept_kN if single else None)
    dtype = a_nD.dtype
    if single:
        row_n, column_N = (k - row_n).exp_().div_(2), (k - column_N).exp_().div_(2)
    row_n1, column_1N = row_n.to(dtype)[:, None], column_N.to(dtype)[None]
    grad_a_nD, grad_b_ND = torch.zeros_like(a_nD), torch.zeros_like(b_ND)
    for rows, columns, tile_rc, kept in tiles.places():
        if not kept:
            tiles.fill(rows, columns, tile_rc)
        grad_rc = tiles.shaped(tiles.other, rows, columns)
        row_r1, column_1c = row_n1[rows], column_1N[:, columns]
        if single:
            exp_rc = tile_rc if kept else tile_rc.exp_()
            torch.add(row_r1, column_1c, out=grad_rc).mul_(exp_rc)
        else:
            torch.sub(tile_rc, row_r1, out=grad_rc).exp_()
            grad_rc.add_(tile_rc.sub_(column_1c).exp_()).div_(2)
        if group_n is None or group_N is None:
            view_d, at = tiles.diagonal(grad_rc, rows, columns)
            if single:  # near 1 - 1 the digits matter, and these are few
                logit_d, _ = tiles.diagonal(tile_rc, rows, columns)
                both_d = row_n[at] + column_N[start + at.start : start + at.stop]
                view_d.copy_(logit_d * both_d - target_n[at])
            else:
                view_d.sub_(target_n[at])
        else:
            same_rc = group_n[rows, None] == group_N[columns]
            grad_rc.addcmul_(same_rc.to(dtype), target_n[rows, None], value=-1)
        grad_a_nD[rows].addmm_(grad_rc, b_ND[columns])
        grad_b_ND[columns].addmm_(grad_rc.T, a_nD[rows])
    return grad_a_nD, grad_b_ND


def sigmoid_pass(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    bias: Tensor,
    start: int,
    group_n: Tensor | None = None,
    group_N: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and gradients of the sigmoid form in one pass: no sum has to be complete first.

    Returns:
        sum of -log sigmoid(+-(x_ij + bias)), and of its derivative by the logit, both 0-D fp64;
        derivative times b (n, D), its transpose times a (N, D).
    """
    tiles = _Tiles(a_nD, b_ND, float(scale), start, float(bias))
    total, slope = (a_nD.new_zeros((), dtype=torch.float64) for _ in range(2))
    grad_a_nD, grad_b_ND = torch.zeros_like(a_nD), torch.zeros_like(b_ND)
    for rows, columns, tile_rc in tiles:
        if group_n is None or group_N is None:
            sign = None
            tiles.diagonal(tile_rc, rows, columns)[0].neg_()
        else:  # 1 where they differ, -1 where they are positives
            sign = (group_n[rows, None] != group_N[columns]).to(a_nD.dtype).mul_(2).sub_(1)
            tile_rc.mul_(sign)
        softplus_rc = tiles.shaped(tiles.other, rows, columns)
        torch.ops.aten.softplus.out(tile_rc, 1, 50, out=softplus_rc)
        total += softplus_rc.sum(dtype=torch.float64)
        tile_rc.sigmoid_()
        if sign is None:
            tiles.diagonal(tile_rc, rows, columns)[0].neg_()
        else:
            tile_rc.mul_(sign)
        slope += tile_rc.sum(dtype=torch.float64)
        grad_a_nD[rows].addmm_(tile_rc, b_ND[columns])
        grad_b_ND[columns].addmm_(tile_rc.T, a_nD[rows])
    return total, slope, grad_a_nD, grad_b_ND
