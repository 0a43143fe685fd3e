"""The kernels as torch operators: one name for every device, and one graph under torch.compile.

On CUDA they are the Triton kernels where Triton is installed (it comes with torch there); on a
CPU, and for fp64, `chunked.py`. Shapes and meanings stand with the functions of `chunked.py`;
here group ids are given for both sides or for none.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from train.kernels import chunked
from train.kernels.normalise import working_dtype

Pair = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]
HAS_TRITON = importlib.util.find_spec("triton") is not None


def in_triton(x: Tensor) -> bool:
    """Whether the kernels for this tensor are Triton's; fp64 is for tests, and is not."""
    return HAS_TRITON and x.device.type == "cuda" and x.dtype != torch.float64


def kernels(x: Tensor) -> Any:
    """The module whose functions serve this tensor's device and type."""
    if not in_triton(x):
        return chunked
    from train.kernels import triton_ops

    return triton_ops


def _gradient_of(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=working_dtype(x))


@custom_op("wit::normalise", mutates_args=())
def normalise(x_ND: Tensor) -> Three:
    out: Three = kernels(x_ND).normalise(x_ND)
    return out


@normalise.register_fake
def _(x_ND: Tensor) -> Three:
    dtype = working_dtype(x_ND)
    inverse_N = x_ND.new_empty(len(x_ND), dtype=dtype)
    rows_ND = torch.empty_like(x_ND, dtype=x_ND.dtype if in_triton(x_ND) else dtype)
    return rows_ND, torch.empty_like(inverse_N), inverse_N


@custom_op("wit::normalise_backward", mutates_args=())
def normalise_backward(
    grad_ND: Tensor,
    rows_ND: Tensor,
    gain_N: Tensor,
    inverse_N: Tensor,
    factor: Tensor,
    dtype: torch.dtype,
) -> Pair:
    out: Pair = kernels(rows_ND).normalise_backward(
        grad_ND.clone(), rows_ND, gain_N, inverse_N, factor, dtype
    )
    return out


@normalise_backward.register_fake
def _(
    grad_ND: Tensor,
    rows_ND: Tensor,
    gain_N: Tensor,
    inverse_N: Tensor,
    factor: Tensor,
    dtype: torch.dtype,
) -> Pair:
    return torch.empty_like(grad_ND, dtype=dtype), torch.empty_like(inverse_N)


@custom_op("wit::softmax_sweep", mutates_args=())
def softmax_sweep(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    out: Four = kernels(a_nD).softmax_sweep(
        a_nD, gain_n, b_ND, gain_N, scale, start, group_n, group_N
    )
    return out


@softmax_sweep.register_fake
def _(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    n, N = len(a_nD), len(b_ND)
    row_n = a_nD.new_empty(n, dtype=torch.float64)
    column_N = a_nD.new_empty(N, dtype=torch.float64)
    kept = (0, 0) if in_triton(a_nD) else (chunked.kept_rows(n, N), N)
    return row_n, column_N, torch.empty_like(row_n), a_nD.new_empty(*kept)


@custom_op("wit::softmax_gradients", mutates_args=())
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
) -> Pair:
    out: Pair = kernels(a_nD).softmax_gradients(
        a_nD,
        gain_n,
        b_ND,
        gain_N,
        scale,
        start,
        row_n,
        column_N,
        target_n,
        kept_kN,
        group_n,
        group_N,
    )
    return out


@softmax_gradients.register_fake
def _(
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
) -> Pair:
    return _gradient_of(a_nD), _gradient_of(b_ND)


@custom_op("wit::sigmoid_pass", mutates_args=())
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
) -> Four:
    out: Four = kernels(a_nD).sigmoid_pass(
        a_nD, gain_n, b_ND, gain_N, scale, bias, start, group_n, group_N
    )
    return out


@sigmoid_pass.register_fake
def _(
    a_nD: Tensor,
    gain_n: Tensor,
    b_ND: Tensor,
    gain_N: Tensor,
    scale: Tensor,
    bias: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    total = a_nD.new_empty((), dtype=torch.float64)
    return total, torch.empty_like(total), _gradient_of(a_nD), _gradient_of(b_ND)
