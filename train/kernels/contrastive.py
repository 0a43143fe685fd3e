"""The contrastive losses as their papers write them: plain twins, with the logits in memory.

N pairs, D features. Pairs of equal group id (duplicate captions, say) are all positives of each
other: with the softmax they share the target evenly, with the sigmoid each is one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.kernels.normalise import normalise


def positives(rows: int, group_N: Tensor | None, device: torch.device) -> Tensor:
    """Which texts belong to which images: bool (N, N), the diagonal where there are no groups."""
    if group_N is None:
        return torch.eye(rows, dtype=torch.bool, device=device)
    return group_N[:, None] == group_N[None, :]


def logits(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
    """Cosines times the scale, (N, N), in the working dtype also under autocast."""
    with torch.autocast(image_ND.device.type, enabled=False):
        unit_ND, _ = normalise(image_ND)
        other_ND, _ = normalise(text_ND)
        return (log_scale.to(unit_ND.dtype).exp() * unit_ND) @ other_ND.T


def softmax_loss(
    image_ND: Tensor,
    text_ND: Tensor,
    log_scale: Tensor,
    group_N: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean of the cross-entropies of rows and columns (Radford et al. 2021, figure 3).

    Args:
        image_ND, text_ND: raw features; row i of one belongs to row i of the other.
        log_scale: log of what multiplies the cosines.
        group_N: ids of groups, see above.
        smoothing: share of the target that is spread evenly over all N.
    """
    logits_NN = logits(image_ND, text_ND, log_scale)
    if group_N is None:
        target = torch.arange(len(logits_NN), device=logits_NN.device)
    else:
        target = positives(len(logits_NN), group_N, logits_NN.device).to(logits_NN.dtype)
        target = target / target.sum(dim=1, keepdim=True)
    to_text = F.cross_entropy(logits_NN, target, label_smoothing=smoothing)
    to_image = F.cross_entropy(logits_NN.T, target, label_smoothing=smoothing)
    return (to_text + to_image) / 2


def sigmoid_loss(
    image_ND: Tensor,
    text_ND: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    group_N: Tensor | None = None,
) -> Tensor:
    """Each pair of the batch a yes-or-no question (Zhai et al. 2023, algorithm 1)."""
    logits_NN = logits(image_ND, text_ND, log_scale) + bias
    positive_NN = positives(len(logits_NN), group_N, logits_NN.device)
    return -F.logsigmoid(torch.where(positive_NN, logits_NN, -logits_NN)).sum() / len(logits_NN)
