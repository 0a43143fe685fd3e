"""Rows to unit length: the plain twin of `triton_normalise.py`, and the gradient in closed form.

N rows, D features. Rows shorter than `TINY` count as zero: their unit row and gradient are zero.
Any other finite row, also one whose squares overflow, gives a unit row.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 2.0**-100


def working_dtype(x: Tensor) -> torch.dtype:
    """fp64 for fp64, fp32 for everything else: what statistics and logits are computed in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def normalise(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows (N, D) and inverse lengths (N,), both in the working dtype; differentiable.

    Rows are scaled by a power of two first, which is exact and keeps squares in range.
    """
    x_ND = x_ND.to(working_dtype(x_ND))
    limit = 1000 if x_ND.dtype == torch.float64 else 120
    exponent_N1 = torch.frexp(x_ND.detach().abs().amax(dim=-1, keepdim=True)).exponent
    exponent_N1 = exponent_N1.clamp(-limit, limit)
    shift_N1 = torch.ldexp(torch.ones_like(x_ND[:, :1]), -exponent_N1)
    scaled_ND = x_ND * shift_N1
    length_N1 = torch.linalg.vector_norm(scaled_ND, dim=-1, keepdim=True)
    alive_N1 = ~(length_N1.detach() < TINY * shift_N1)  # NaN is alive: it must show in the loss
    length_N1 = torch.where(alive_N1, length_N1, 1.0)
    unit_ND = torch.where(alive_N1, scaled_ND / length_N1, 0.0)
    inverse_N1 = torch.where(alive_N1, shift_N1 / length_N1, 0.0)
    return unit_ND, inverse_N1.squeeze(-1)


def normalise_backward(
    grad_ND: Tensor, unit_ND: Tensor, inverse_N: Tensor, factor: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`factor` times the gradient of the raw rows, in `dtype`, and the dots <grad, unit> (N,).

    For u = a |u|: du = (da - <da, a> a) / |u|. The dots also give the gradient of the scale.
    """
    dot_N = torch.linalg.vecdot(grad_ND, unit_ND)
    raw_ND = torch.addcmul(grad_ND, unit_ND, dot_N.unsqueeze(-1), value=-1)
    return raw_ND.mul_((inverse_N * factor).unsqueeze(-1)).to(dtype), dot_N
