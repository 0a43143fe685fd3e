"""The symmetric contrastive loss (Radford et al. 2021, figure 3).

n rows of this process, N rows of all processes, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    image_nD: Tensor,
    text_nD: Tensor,
    log_scale: Tensor,
    gather: Callable[[Tensor], Tensor] | None = None,
    rank: int = 0,
) -> Tensor:
    """Mean of the two cross-entropies of matching row i of one side to row i of the other.

    Features come as the towers give them, in any precision; normalisation, logits and
    cross-entropy are fp32, also under autocast: bf16 would round logits near 100 to 0.5.

    Args:
        image_nD, text_nD: features of this process's n pairs.
        log_scale: 0-D; its exponential multiplies the cosines.
        gather: rows of all processes, in the order of ranks, with gradient; None: only ours.
        rank: of this process among them.

    Returns:
        0-D mean over this process's n pairs, each against all N. The mean over processes, which
        is what averaging of gradients differentiates, is the loss of the whole batch.
    """
    with torch.autocast(image_nD.device.type, enabled=False):
        image_nD = F.normalize(image_nD.float(), dim=-1)
        text_nD = F.normalize(text_nD.float(), dim=-1)
        image_ND, text_ND = (gather(image_nD), gather(text_nD)) if gather else (image_nD, text_nD)
        scale = log_scale.float().exp()
        rows = len(image_nD)
        target_n = torch.arange(rank * rows, (rank + 1) * rows, device=image_nD.device)
        to_text = F.cross_entropy(scale * image_nD @ text_ND.T, target_n)
        to_image = F.cross_entropy(scale * text_nD @ image_ND.T, target_n)
        return (to_text + to_image) / 2


@torch.no_grad()
def batch_accuracy(image_nD: Tensor, text_nD: Tensor) -> Tensor:
    """Share of pictures whose nearest caption in this process's batch is their own."""
    cosine_nn = F.normalize(image_nD.float(), dim=-1) @ F.normalize(text_nD.float(), dim=-1).T
    own_n = torch.arange(len(cosine_nn), device=cosine_nn.device)
    return (cosine_nn.argmax(dim=1) == own_n).float().mean()
