"""The kernels as torch operators: one name for every device, and one graph under torch.compile.

On a CPU they are `chunked.py`; on CUDA the Triton kernels where Triton is installed (it comes with
torch there), else `chunked.py` too. Shapes and meanings stand with the functions of `chunked.py`;
here group ids are given for both sides or for none.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from train.kernels import chunked
from train.kernels.normalise import working_dtype

Pair = tuple[Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]
HAS_TRITON = importlib.util.find_spec("triton") is not None


def _on_cuda(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """The Triton function of that name, imported when it is first called."""

    def call(*args: Any) -> Any:
        if not HAS_TRITON:
            return fallback(*args)
        from train.kernels import triton_ops

        return getattr(triton_ops, name)(*args)

    return call


@custom_op("wit::normalise", mutates_args=(), device_types="cpu")
def normalise(x_ND: Tensor) -> Pair:
    return chunked.normalise(x_ND)


@normalise.register_fake
def _(x_ND: Tensor) -> Pair:
    dtype = working_dtype(x_ND)
    return torch.empty_like(x_ND, dtype=dtype), x_ND.new_empty(len(x_ND), dtype=dtype)


@custom_op("wit::normalise_backward", mutates_args=(), device_types="cpu")
def normalise_backward(
    grad_ND: Tensor, unit_ND: Tensor, inverse_N: Tensor, factor: Tensor, dtype: torch.dtype
) -> Pair:
    return chunked.normalise_backward(grad_ND, unit_ND, inverse_N, factor, dtype)


@normalise_backward.register_fake
def _(
    grad_ND: Tensor, unit_ND: Tensor, inverse_N: Tensor, factor: Tensor, dtype: torch.dtype
) -> Pair:
    return torch.empty_like(grad_ND, dtype=dtype), torch.empty_like(inverse_N)


@custom_op("wit::softmax_sweep", mutates_args=(), device_types="cpu")
def softmax_sweep(
    a_nD: Tensor,
    b_ND: Tensor,
    scale: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    return chunked.softmax_sweep(a_nD, b_ND, scale, start, group_n, group_N)


@softmax_sweep.register_fake
def _(
    a_nD: Tensor,
    b_ND: Tensor,
    scale: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    n, N = len(a_nD), len(b_ND)
    row_n = a_nD.new_empty(n, dtype=torch.float64)
    column_N = a_nD.new_empty(N, dtype=torch.float64)
    keep = a_nD.device.type == "cpu" and chunked.one_tile(n, N)
    kept = a_nD.new_empty(n, N) if keep else a_nD.new_empty(0, 0)
    return row_n, column_N, torch.empty_like(row_n), kept


@custom_op("wit::softmax_gradients", mutates_args=(), device_types="cpu")
def softmax_gradients(
    a_nD: Tensor,
    b_ND: Tensor,
    scale: Tensor,
    start: int,
    row_n: Tensor,
    column_N: Tensor,
    target_n: Tensor,
    kept_nN: Tensor,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Pair:
    return chunked.softmax_gradients(
        a_nD, b_ND, scale, start, row_n, column_N, target_n, kept_nN, group_n, group_N
    )


@softmax_gradients.register_fake
def _(
    a_nD: Tensor,
    b_ND: Tensor,
    scale: Tensor,
    start: int,
    row_n: Tensor,
    column_N: Tensor,
    target_n: Tensor,
    kept_nN: Tensor,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Pair:
    return torch.empty_like(a_nD), torch.empty_like(b_ND)


@custom_op("wit::sigmoid_pass", mutates_args=(), device_types="cpu")
def sigmoid_pass(
    a_nD: Tensor,
    b_ND: Tensor,
    scale: Tensor,
    bias: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    return chunked.sigmoid_pass(a_nD, b_ND, scale, bias, start, group_n, group_N)


@sigmoid_pass.register_fake
def _(
    a_nD: Tensor,
    b_ND: Tensor,
    scale: Tensor,
    bias: Tensor,
    start: int,
    group_n: Tensor | None,
    group_N: Tensor | None,
) -> Four:
    total = a_nD.new_empty((), dtype=torch.float64)
    return total, torch.empty_like(total), torch.empty_like(a_nD), torch.empty_like(b_ND)


for _op, _fallback in (
    (normalise, chunked.normalise),
    (normalise_backward, chunked.normalise_backward),
    (softmax_sweep, chunked.softmax_sweep),
    (softmax_gradients, chunked.softmax_gradients),
    (sigmoid_pass, chunked.sigmoid_pass),
):
    _op.register_kernel("cuda")(_on_cuda(_fallback.__name__, _fallback))
