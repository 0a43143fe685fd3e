"""The contrastive losses, exact in fp32, in memory linear in the batch, over all processes.

The symmetric softmax form is that of Radford et al. 2021, figure 3; the sigmoid form that of Zhai
et al. 2023. n rows of this process, N rows of all processes, D features.

Each process computes the stripe of logits of its own rows of one side and everybody's of the
other. A row of the stripe is complete; of columns, log-sum-exps are exchanged, N numbers; in
backward, the gradients of the columns are summed to their owners. No logit is computed twice in a
pass. Columns are the images: their tower comes first, so that its features can be on their way
while the text tower works. One process takes images as rows; the loss is the same either way.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.dist import Gathering, World
from train.kernels import chunked, contrastive, ops

Impl = Literal["auto", "plain", "chunked", "triton"]
SMALL = 128  # pairs: up to here the plain form is quicker on a CPU (bench/loss.py)


def contrastive_loss(
    image_nD: Tensor,
    text_nD: Tensor,
    log_scale: Tensor,
    *,
    bias: Tensor | None = None,
    group_n: Tensor | None = None,
    smoothing: float = 0.0,
    world: World | None = None,
    gathered: Gathering | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """How badly row i of one side is matched to row i of the other; differentiable.

    Features come as the towers give them, in any precision; lengths, logits and sums are fp32
    (fp64 for fp64 features), also under autocast: bf16 would round logits near 100 to 0.5.

    Args:
        image_nD, text_nD: features of this process's n pairs; n may differ between processes.
        log_scale: one number; its exponential multiplies the cosines.
        bias: one number that is added to the logits; given, the loss is the sigmoid form.
        group_n: integer ids; pairs of equal id, duplicate captions say, are positives of each
            other, and share the target of the softmax evenly.
        smoothing: share of the target of the softmax that is spread evenly over all N.
        world: processes whose batches make one; None: only this one.
        gathered: `image_nD` of all processes on their way, see `World.gathering`; None: they are
            gathered here. The result is the same to the last bit.
        impl: "auto" takes the fastest for the device; "plain" is the definition, in one process;
            "chunked" works in tiles of library operations; "triton" needs Triton.

    Returns:
        0-D part of this process. The mean over processes, which is what averaging of gradients
        differentiates, is the loss of the whole batch, also where n differs.

    Raises:
        ValueError: shapes that don't fit, or options that have no meaning together.
    """
    if image_nD.shape != text_nD.shape or image_nD.ndim != 2:
        raise ValueError(f"features of {[*image_nD.shape]} and {[*text_nD.shape]} don't match")
    if bias is not None and smoothing:
        raise ValueError("smoothing has no meaning in the sigmoid form")
    world = world or World(0, 1, image_nD.device)
    if impl == "auto" and world.size == 1 and image_nD.device.type == "cpu":
        impl = "plain" if len(image_nD) <= SMALL else "auto"
    if impl == "plain":
        if world.size > 1:
            raise ValueError('impl = "plain" works in one process only')
        if bias is not None:
            return contrastive.sigmoid_loss(image_nD, text_nD, log_scale, bias, group_n)
        return contrastive.softmax_loss(image_nD, text_nD, log_scale, group_n, smoothing)
    sides = (image_nD, text_nD) if world.size == 1 else (text_nD, image_nD)
    with torch.autocast(image_nD.device.type, enabled=False):
        kernels = _kernels(impl, image_nD)
        if bias is not None:
            loss: Tensor = _Sigmoid.apply(  # type: ignore[no-untyped-call]
                *sides, log_scale, bias, group_n, kernels, world, gathered
            )
        else:
            loss = _Softmax.apply(  # type: ignore[no-untyped-call]
                *sides, log_scale, group_n, smoothing, kernels, world, gathered
            )
    return loss


def _kernels(impl: Impl, x: Tensor) -> Any:
    """Under torch.compile the operators of `ops`; else what they call, which costs less."""
    if impl == "triton":
        from train.kernels import triton_ops

        return triton_ops
    if impl == "chunked":
        return chunked
    return ops if torch.compiler.is_compiling() else ops.kernels(x)


class _Stripe:
    """Unit rows of this process's side and of everybody's other side, and where ours lie."""

    def __init__(
        self,
        a_nD: Tensor,
        b_nD: Tensor,
        group_n: Tensor | None,
        kernels: Any,
        world: World,
        gathered: Gathering | None,
    ) -> None:
        if gathered is None:
            self.counts = world.counts(len(a_nD), a_nD.device)
            all_ND = world.gather_rows(b_nD, self.counts)
        else:
            self.counts, all_ND = gathered.counts, gathered.rows()
        self.start = sum(self.counts[: world.rank])
        self.own = slice(self.start, self.start + len(a_nD))
        self.total = sum(self.counts)
        self.a_nD, self.a_gain_n, self.a_inverse_n = kernels.normalise(a_nD)
        self.b_ND, self.b_gain_N, b_inverse_N = kernels.normalise(all_ND)
        self.b_inverse_n = b_inverse_N[self.own]
        self.group_n = group_n
        self.group_N = None if group_n is None else world.gather_rows(group_n, self.counts)

    @property
    def rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.a_nD, self.a_gain_n, self.b_ND, self.b_gain_N

    def save(self, ctx: Any, *more: Tensor) -> None:
        ctx.save_for_backward(
            *self.rows, self.a_inverse_n, self.b_inverse_n, self.group_n, self.group_N, *more
        )
        ctx.counts, ctx.start, ctx.own, ctx.total = self.counts, self.start, self.own, self.total


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a_nD: Tensor,
        b_nD: Tensor,
        log_scale: Tensor,
        group_n: Tensor | None,
        smoothing: float,
        kernels: Any,
        world: World,
        gathered: Gathering | None,
    ) -> Tensor:
        at = _Stripe(a_nD, b_nD, group_n, kernels, world, gathered)
        scale = log_scale.detach().to(at.a_gain_n.dtype).exp().reshape(())
        row_n, column_N, positive_n, kept = kernels.softmax_sweep(
            *at.rows, scale, at.start, at.group_n, at.group_N
        )
        column_N = world.logsumexp(column_N)
        target_n = torch.full_like(row_n, 1 - smoothing)
        if at.group_n is not None and at.group_N is not None:
            target_n /= _sizes(at.group_N)[at.own]
        total = row_n.sum() + column_N[at.own].sum() - 2 * (target_n @ positive_n)
        if smoothing:  # the even part of the target needs only sums of features
            a_D, b_D = _sum(*at.rows[:2]), _sum(*at.rows[2:])
            total -= 2 * smoothing / at.total * scale.double() * (a_D @ b_D)
        at.save(ctx, scale, row_n, column_N, target_n.to(scale.dtype), kept)
        ctx.smoothing, ctx.kernels, ctx.world = smoothing, kernels, world
        ctx.types = a_nD.dtype, b_nD.dtype, log_scale.dtype, log_scale.shape
        loss: Tensor = total * (world.size / (2 * at.total))
        return loss.to(scale.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, (group_n, group_N) = ctx.saved_tensors[:4], ctx.saved_tensors[6:8]
        scale, row_n, column_N, target_n, kept = ctx.saved_tensors[8:]
        args = (row_n, column_N, target_n, kept, group_n, group_N)
        with torch.autocast(scale.device.type, enabled=False):
            grad_a_nD, grad_b_ND = ctx.kernels.softmax_gradients(*rows, scale, ctx.start, *args)
        if ctx.smoothing:
            even = ctx.smoothing / ctx.total
            grad_a_nD -= even * _sum(*rows[2:]).to(scale.dtype)
            grad_b_ND -= even * _sum(*rows[:2]).to(scale.dtype)
        grads = _raw_gradients(ctx, grad, scale, grad_a_nD, grad_b_ND)
        return *grads, None, None, None, None, None


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a_nD: Tensor,
        b_nD: Tensor,
        log_scale: Tensor,
        bias: Tensor,
        group_n: Tensor | None,
        kernels: Any,
        world: World,
        gathered: Gathering | None,
    ) -> Tensor:
        at = _Stripe(a_nD, b_nD, group_n, kernels, world, gathered)
        scale = log_scale.detach().to(at.a_gain_n.dtype).exp().reshape(())
        added = bias.detach().to(scale.dtype).reshape(())
        total, slope, grad_a_nD, grad_b_ND = kernels.sigmoid_pass(
            *at.rows, scale, added, at.start, at.group_n, at.group_N
        )
        at.save(ctx, scale, slope, grad_a_nD, grad_b_ND)
        ctx.kernels, ctx.world = kernels, world
        ctx.types = a_nD.dtype, b_nD.dtype, log_scale.dtype, log_scale.shape
        ctx.bias = bias.dtype, bias.shape
        loss: Tensor = total * (world.size / at.total)
        return loss.to(scale.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *_, scale, slope, grad_a_nD, grad_b_ND = ctx.saved_tensors
        grads = _raw_gradients(ctx, grad, scale, grad_a_nD.clone(), grad_b_ND.clone())
        dtype, shape = ctx.bias
        grad_bias = (grad * slope * (ctx.world.size / ctx.total)).to(dtype).reshape(shape)
        return *grads, grad_bias, None, None, None, None


def _raw_gradients(
    ctx: Any, grad: Tensor, scale: Tensor, grad_a_nD: Tensor, grad_b_ND: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of raw features and log-scale, from those of unit rows but for scale / N.

    The latter are overwritten.
    """
    a_nD, a_gain_n, b_ND, b_gain_N, *inverses = ctx.saved_tensors[:6]
    a_dtype, b_dtype, scale_dtype, scale_shape = ctx.types
    factor = grad * scale * (ctx.world.size / ctx.total)
    grad_b_nD = ctx.world.sum_to_owners(grad_b_ND, ctx.counts)
    back = ctx.kernels.normalise_backward
    raw_a_nD, dot_n = back(grad_a_nD, a_nD, a_gain_n, inverses[0], factor, a_dtype)
    raw_b_nD, _ = back(grad_b_nD, b_ND[ctx.own], b_gain_N[ctx.own], inverses[1], factor, b_dtype)
    grad_log_scale = (dot_n.sum(dtype=torch.float64) * factor).to(scale_dtype)
    return raw_a_nD, raw_b_nD, grad_log_scale.reshape(scale_shape)


def _sum(rows_ND: Tensor, gain_N: Tensor) -> Tensor:
    """Sum of unit rows, (D,) fp64."""
    return torch.mv(rows_ND.to(gain_N.dtype).T, gain_N).double()


def _sizes(group_N: Tensor) -> Tensor:
    """Size of each row's group."""
    _, inverse_N, count_G = torch.unique(group_N, return_inverse=True, return_counts=True)
    size_N: Tensor = count_G[inverse_N]
    return size_N


@torch.no_grad()
def batch_accuracy(image_nD: Tensor, text_nD: Tensor) -> Tensor:
    """Share of pictures whose nearest caption in this process's batch is their own."""
    cosine_nn = F.normalize(image_nD.float(), dim=-1) @ F.normalize(text_nD.float(), dim=-1).T
    own_n = torch.arange(len(cosine_nn), device=cosine_nn.device)
    return (cosine_nn.argmax(dim=1) == own_n).float().mean()
