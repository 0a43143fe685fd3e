"""The image tower as the paper's modified ResNet (section 2.4, table 19).

B batch, C channels, S side of the picture, H and W of a map, G side of the last one, T = G*G + 1,
F = 32 * width features of the last map, K features of an attention head, E dimensions of the
shared space.

Three things differ from a plain ResNet: three convolutions and an average pool begin it; an
average pool does the striding, in the branch and in the shortcut alike; and the last map is
pooled by attention, whose one query is its mean. Names are those of the published state dicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.config import ModelConfig, Recompute
from train.model.pixels import Tower
from train.model.transformer import products_kept

EXPANSION = 4  # channels that leave a block, as a multiple of those of its 3x3 convolution


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut; a stride of 2 is an average pool."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        after = EXPANSION * channels
        self.conv1 = nn.Conv2d(before, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)
            )
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        nn.init.zeros_(self.bn3.weight)  # the block begins as its shortcut

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        out_BCHW = F.relu(self.bn2(self.conv2(out_BCHW)), inplace=True)
        out_BCHW = self.bn3(self.conv3(self.pool(out_BCHW)))
        if self.downsample is not None:
            x_BCHW = self.downsample(self.pool(x_BCHW))
        return F.relu(out_BCHW.add_(x_BCHW), inplace=True)


class AttentionPool(nn.Module):
    """Attention of the mean of a map over the mean and all its places, and its projection."""

    def __init__(self, grid: int, features: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        scale = features**-0.5
        self.positional_embedding = nn.Parameter(scale * torch.randn(grid**2 + 1, features))
        self.q_proj = nn.Linear(features, features)
        self.k_proj = nn.Linear(features, features)
        self.v_proj = nn.Linear(features, features)
        self.c_proj = nn.Linear(features, embed_dim)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=scale)

    def _split(self, x_BTF: Tensor) -> Tensor:
        batch, places, features = x_BTF.shape
        split = x_BTF.reshape(batch, places, self.heads, features // self.heads)
        return split.transpose(1, 2)  # B heads T K

    def forward(self, x_BFGG: Tensor, places: bool = False) -> Tensor:
        """The pooled map before its projection `c_proj`: (B, 1, F).

        With `places`, of the mean and of every place: (B, T, F), the first of them the same.
        """
        x_BTF = x_BFGG.flatten(2).transpose(1, 2)
        x_BTF = torch.cat([x_BTF.mean(dim=1, keepdim=True), x_BTF], dim=1)
        x_BTF = x_BTF + self.positional_embedding
        asked_BTF = x_BTF if places else x_BTF[:, :1]
        q, k, v = self.q_proj(asked_BTF), self.k_proj(x_BTF), self.v_proj(x_BTF)
        out = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v))
        return out.transpose(1, 2).flatten(2)


class ModifiedResNet(Tower):
    """uint8 or normalised float pictures (B, 3, S, S) to features (B, E).

    Initialisation as in the published code: projections of the attention and its positions with
    a standard deviation of F**-0.5, the last norm of each block 0, torch's defaults elsewhere.

    Attributes:
        checkpointing: full: keep each block's input alone for backward, and compute the rest
            again; selective: keep what convolutions give, too.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.checkpointing: Recompute = "off"
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        first, second, third, fourth = config.blocks
        self.layer1 = _stage(width, width, first, stride=1)
        self.layer2 = _stage(4 * width, 2 * width, second, stride=2)
        self.layer3 = _stage(8 * width, 4 * width, third, stride=2)
        self.layer4 = _stage(16 * width, 8 * width, fourth, stride=2)
        grid = config.image_size // config.pixels_per_token
        self.attnpool = AttentionPool(grid, config.features, config.heads, config.embed_dim)

    def pooled(self, img_BCSS: Tensor) -> Tensor:
        """The map as attention pooled it, (B, F)."""
        out_B1F: Tensor = self.attnpool(self._map(img_BCSS))
        return out_B1F.squeeze(1)

    def project(self, pooled_BD: Tensor) -> Tensor:
        out_BE: Tensor = self.attnpool.c_proj(pooled_BD)
        return out_BE

    def places(self, img_BCSS: Tensor) -> Tensor:
        """Features of the whole picture, as `forward` gives them, and of every place: (B, T, E)."""
        out_BTE: Tensor = self.attnpool.c_proj(self.attnpool(self._map(img_BCSS), places=True))
        return out_BTE

    def _map(self, img_BCSS: Tensor) -> Tensor:
        """The last map, (B, F, G, G)."""
        x_BCHW = self.normalised(img_BCSS)
        x_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        x_BCHW = F.relu(self.bn2(self.conv2(x_BCHW)), inplace=True)
        x_BCHW = F.relu(self.bn3(self.conv3(x_BCHW)), inplace=True)
        x_BCHW = F.avg_pool2d(x_BCHW, 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x_BCHW = self._run(block, x_BCHW)
        return x_BCHW

    def _run(self, block: nn.Module, x_BCHW: Tensor) -> Tensor:
        if self.checkpointing == "off" or not torch.is_grad_enabled():
            out_BCHW: Tensor = block(x_BCHW)
        else:
            contexts = partial(_contexts, block, self.checkpointing)
            out_BCHW = checkpoint(block, x_BCHW, use_reentrant=False, context_fn=contexts)
        return out_BCHW


def _contexts(
    block: nn.Module, checkpointing: Recompute
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Of the first and of the second forward pass of a checkpointed block."""
    first, second = products_kept() if checkpointing == "selective" else (nullcontext(),) * 2
    return first, _statistics_kept(block, second)


@contextmanager
def _statistics_kept(block: nn.Module, also: AbstractContextManager[Any]) -> Iterator[None]:
    """The batch is not to count in the running statistics once more."""
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        with also:
            yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1


def _stage(before: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one resolution; the first of them strides and changes the channels."""
    return nn.Sequential(
        Bottleneck(before, channels, stride),
        *(Bottleneck(EXPANSION * channels, channels, 1) for _ in range(blocks - 1)),
    )
