"""Weights for one picture size made to fit another (Radford et al. 2021, section 2.5: ViT-L/14
is trained at 224 pixels, and one epoch more at 336).

G side of a grid of places, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import ModelConfig
from wit.errors import CheckpointError

NAMES = ("visual.positional_embedding", "visual.attnpool.positional_embedding")


def resize_positions(state_dict: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The state dict with the image tower's position embeddings for `config.image_size`.

    The first, of the class token or the mean, stays; the others are a square grid and are
    interpolated: bicubic, smoothed where it shrinks, as open_clip does.

    Raises:
        CheckpointError: the embeddings are not those of a square grid.
    """
    side = config.image_size // config.pixels_per_token
    return {
        name: _resized(tensor, side, name) if name in NAMES else tensor
        for name, tensor in state_dict.items()
    }


def _resized(position_ND: Tensor, side: int, name: str) -> Tensor:
    before = math.isqrt(max(0, len(position_ND) - 1))
    if position_ND.ndim != 2 or before**2 + 1 != len(position_ND):
        raise CheckpointError(
            f"{name} of shape {[*position_ND.shape]} is not of a square grid of places and one"
            " more; give weights of this kind of model"
        )
    if before == side:
        return position_ND
    grid_1DGG = position_ND[1:].T.reshape(1, -1, before, before)
    resized_1DGG = F.interpolate(
        grid_1DGG.float(), (side, side), mode="bicubic", antialias=True, align_corners=False
    )
    grid_ND = resized_1DGG[0].flatten(1).T.to(position_ND.dtype)
    return torch.cat([position_ND[:1], grid_ND])
