"""Pre-norm transformer blocks, named as in the published state dicts.

B batch, N tokens, D width, H heads, K = D/H, M tokens of all sequences without padding.

Three savings are exact: causal attention is a flag of the attention kernel, not a mask tensor;
where one token of a sequence is pooled, the last block computes queries and MLP for it alone; and
sequences of different lengths can be packed end to end, (M, D), and padded for attention only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from train.config import Recompute


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the approximation that the published models were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return x * torch.sigmoid(1.702 * x)
        out: Tensor = _QuickGELU.apply(x)  # type: ignore[no-untyped-call]
        return out


class _QuickGELU(torch.autograd.Function):
    """The operations that autograd would do, to the bit, in half as many tensors: on a CPU they
    wait for memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate = (1.702 * x).sigmoid_()
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, gate = ctx.saved_tensors
        through_gate = grad * x
        torch.ops.aten.sigmoid_backward.grad_input(through_gate, gate, grad_input=through_gate)
        out: Tensor = (grad * gate).add_(through_gate.mul_(1.702))
        return out


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


class Packing:
    """Where the tokens of sequences that end at `last_B` lie, padded (B, N) and end to end (M)."""

    def __init__(self, last_B: Tensor, tokens: int) -> None:
        index_N = torch.arange(tokens, device=last_B.device)
        self.shape = (len(last_B), tokens)
        self.flat_M = (index_N <= last_B[:, None]).flatten().nonzero().squeeze(1)
        self.last_B = (last_B + 1).cumsum(0) - 1  # of each sequence, among the M

    def pack(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) to (M, D)."""
        return x_BND.flatten(0, 1).index_select(0, self.flat_M)

    def pad(self, x_MD: Tensor) -> Tensor:
        """(M, D) to (B, N, D), zeros behind the end of each sequence."""
        batch, tokens = self.shape
        zeros = x_MD.new_zeros(batch * tokens, x_MD.shape[-1])
        return zeros.index_copy(0, self.flat_M, x_MD).view(batch, tokens, -1)


class Attention(nn.Module):
    """Multi-head self-attention with the parameters of nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _split(self, x_BND: Tensor) -> Tensor:
        batch, tokens, width = x_BND.shape
        return x_BND.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)  # B H N K

    def forward(self, x_BND: Tensor, causal: bool, packing: Packing | None = None) -> Tensor:
        """Shaped as `x_BND`, which is (M, D) where a packing is given."""
        qkv = F.linear(x_BND, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (packing.pad(qkv) if packing else qkv).chunk(3, dim=-1)
        out_BHNK = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), is_causal=causal
        )
        out_BND = out_BHNK.transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(packing.pack(out_BND) if packing else out_BND)
        return out

    def one(
        self, x_BND: Tensor, at_B: Tensor, causal: bool, packing: Packing | None = None
    ) -> Tensor:
        """The output (B, 1, D) of token `at_B[b]` of each sequence b."""
        width = x_BND.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        q = F.linear(take(x_BND, at_B, packing), weight[:width], bias[:width])
        kv = F.linear(x_BND, weight[width:], bias[width:])
        k, v = (packing.pad(kv) if packing else kv).chunk(2, dim=-1)
        mask_B11N = None
        if causal:
            index_N = torch.arange(k.shape[1], device=x_BND.device)
            mask_B11N = (index_N <= at_B[:, None])[:, None, None]
        out_BH1K = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), attn_mask=mask_B11N
        )
        out: Tensor = self.out_proj(out_BH1K.transpose(1, 2).flatten(2))
        return out


def take(x_BND: Tensor, at_B: Tensor, packing: Packing | None = None) -> Tensor:
    """Token `at_B[b]` of each sequence b, the last of it where they are packed: (B, 1, D)."""
    if packing:
        return x_BND.index_select(0, packing.last_B).unsqueeze(1)
    return x_BND.gather(1, at_B[:, None, None].expand(-1, 1, x_BND.shape[-1]))


class MLP(nn.Module):
    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = ACTIVATIONS[activation]()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(self.gelu(self.c_fc(x)))
        return out


class Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MLP(width, activation)
        self.ln_2 = nn.LayerNorm(width)
        self.dropout = dropout

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def forward(self, x_BND: Tensor, causal: bool, packing: Packing | None = None) -> Tensor:
        x_BND = x_BND + self._drop(self.attn(self.ln_1(x_BND), causal, packing))
        out: Tensor = x_BND + self._drop(self.mlp(self.ln_2(x_BND)))
        return out

    def one(
        self, x_BND: Tensor, at_B: Tensor, causal: bool, packing: Packing | None = None
    ) -> Tensor:
        """What `forward` gives for token `at_B[b]` of each sequence b: (B, 1, D)."""
        attended_B1D = self.attn.one(self.ln_1(x_BND), at_B, causal, packing)
        x_B1D = take(x_BND, at_B, packing) + self._drop(attended_B1D)
        out: Tensor = x_B1D + self._drop(self.mlp(self.ln_2(x_B1D)))
        return out


aten = torch.ops.aten
PRODUCTS = [  # dear to compute; the rest of a block is norms, activations and sums
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
]


# for `checkpoint`: the results of these are kept, all else is computed again
products_kept = partial(create_selective_checkpoint_contexts, PRODUCTS)


class Transformer(nn.Module):
    """Blocks one after the other.

    Attributes:
        checkpointing: full: keep each block's input alone for backward, and compute the rest
            again; selective: keep what matrix products and attention give, too.
        packing: leave out what follows the pooled token of each sequence, where it can't count.
    """

    def __init__(
        self, width: int, layers: int, heads: int, activation: str, dropout: float
    ) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.checkpointing: Recompute = "off"
        self.packing = False
        self.resblocks = nn.ModuleList(
            Block(width, heads, activation, dropout) for _ in range(layers)
        )

    def _run(self, block: nn.Module, x_BND: Tensor, *args: object) -> Tensor:
        if self.checkpointing == "off" or not torch.is_grad_enabled():
            out: Tensor = block(x_BND, *args)
            return out
        how: dict[str, Any] = {}
        if self.checkpointing == "selective":
            how = {"context_fn": products_kept}
        again: Tensor = checkpoint(block, x_BND, *args, use_reentrant=False, **how)
        return again

    def forward(self, x_BND: Tensor, causal: bool) -> Tensor:
        """All tokens: (B, N, D)."""
        for block in self.resblocks:
            x_BND = self._run(block, x_BND, causal)
        return x_BND

    def pooled(self, x_BND: Tensor, at_B: Tensor, causal: bool) -> Tensor:
        """Token `at_B[b]` of each sequence b: (B, D); equals `forward` taken there."""
        packing = None
        if self.packing and causal and not torch.compiler.is_compiling():
            packing = Packing(at_B, x_BND.shape[1])
            x_BND = packing.pack(x_BND)
        *first, last = self.resblocks
        for block in first:
            x_BND = self._run(block, x_BND, causal, packing)
        assert isinstance(last, Block)
        return last.one(x_BND, at_B, causal, packing).squeeze(1)
