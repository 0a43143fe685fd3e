"""The image tower: a vision transformer, with an optional stem of convolutions for tiny models.

B batch, C channels, S side of the picture, G side of the grid of patches, N = G*G + 1, D width,
E dimensions of the shared space.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from train.config import ModelConfig
from train.model.pixels import Tower
from train.model.transformer import Transformer


class VisionTransformer(Tower):
    """uint8 or normalised float pictures (B, 3, S, S) to features (B, E).

    The state dict has the published names. Initialisation: class token, positions and projection
    as in the published code; the blocks keep torch's defaults there, so they do here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, scale = config.width, config.width**-0.5
        grid = config.image_size // config.pixels_per_token
        channels = (3, *config.stem)
        self.stem = nn.Sequential(*_stem_layers(config)) if config.stem else None
        self.conv1 = nn.Conv2d(channels[-1], width, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.layers, config.heads, config.activation, config.dropout
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))
        self.pool = config.pool

    def pooled(self, img_BCSS: Tensor) -> Tensor:
        """The pooled token after its norm, (B, D)."""
        img_BCSS = self.normalised(img_BCSS)
        if self.stem is not None:
            img_BCSS = self.stem(img_BCSS)
        x_BND = self.conv1(img_BCSS).flatten(2).transpose(1, 2)
        first_B1D = self.class_embedding.to(x_BND.dtype).expand(len(x_BND), 1, -1)
        x_BND = self.ln_pre(torch.cat([first_B1D, x_BND], dim=1) + self.positional_embedding)
        if self.pool == "class":
            at_B = torch.zeros(len(x_BND), dtype=torch.long, device=x_BND.device)
            pooled_BD = self.transformer.pooled(x_BND, at_B, causal=False)
        else:
            all_BND = self.transformer(x_BND, causal=False)
            pooled_BD = all_BND.mean(dim=1) if self.pool == "mean" else all_BND.amax(dim=1)
        out_BD: Tensor = self.ln_post(pooled_BD)
        return out_BD

    def project(self, pooled_BD: Tensor) -> Tensor:
        return pooled_BD @ self.proj


def _stem_layers(config: ModelConfig) -> list[nn.Module]:
    """3x3 convolutions, each with a norm and a ReLU."""
    layers: list[nn.Module] = []
    sizes = pairwise((3, *config.stem))
    for (before, after), stride in zip(sizes, config.strides, strict=True):
        norm = (
            nn.BatchNorm2d(after)
            if config.stem_norm == "batch"
            else nn.GroupNorm(max(1, after // 8), after)
        )
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), norm, nn.ReLU(inplace=True)]
    return layers
