"""What a model costs, from its config alone: parameters, floating-point operations, memory.

No torch here, so `wit models` answers at once; the tests hold each figure against the modules
themselves.

Operations are those of matrix products and convolutions, 2 for a multiply-add, as
torch.utils.flop_counter counts them (tools that count 1 give half). Norms, activations, softmax
and look-ups are left out, as there. The model is the published one: every token of every block
and the whole context of a caption. Training computes less: the last block only what is pooled,
captions only as far as the longest of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from train.config import ModelConfig

PUBLISHED_VOCAB = 49_408  # ids of the paper's vocabulary
BYTES_TRAINING = 16  # of a parameter: weight, gradient and AdamW's two moments, all fp32


@dataclass(frozen=True)
class Cost:
    """Parameters, and operations of one picture or one caption."""

    parameters: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.flops + other.flops)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.parameters * times, self.flops * times)


def image_cost(config: ModelConfig) -> Cost:
    """The image tower, for one picture."""
    return _resnet(config) if config.tower == "resnet" else _vit(config)


def text_cost(config: ModelConfig, vocab_size: int = PUBLISHED_VOCAB) -> Cost:
    """The text tower, for one caption of the full context length."""
    width, tokens = config.text_width, config.context_length
    return (
        Cost((vocab_size + tokens) * width)
        + _block(width, tokens) * config.text_layers
        + _norm(width)
        + _linear(width, config.embed_dim, 1, bias=False)
    )


def parameters(config: ModelConfig, vocab_size: int = PUBLISHED_VOCAB) -> int:
    """Of both towers and the temperature."""
    return image_cost(config).parameters + text_cost(config, vocab_size).parameters + 1


def _linear(before: int, after: int, tokens: int, bias: bool = True) -> Cost:
    return Cost(after * (before + bias), 2 * before * after * tokens)


def _conv(before: int, after: int, kernel: int, side: int) -> Cost:
    """A convolution without bias whose output is `side` squared."""
    weights = before * after * kernel**2
    return Cost(weights, 2 * weights * side**2)


def _norm(width: int) -> Cost:
    return Cost(2 * width)


def _block(width: int, tokens: int) -> Cost:
    """Pre-norm transformer block: 12 width² + 13 width parameters."""
    attention = Cost(0, 2 * 2 * tokens**2 * width)  # queries with keys, weights with values
    projections = _linear(width, 3 * width, tokens) + _linear(width, width, tokens)
    mlp = _linear(width, 4 * width, tokens) + _linear(4 * width, width, tokens)
    return attention + projections + mlp + _norm(width) * 2


def _vit(config: ModelConfig) -> Cost:
    width, side, total = config.width, config.image_size, Cost()
    channels = (3, *config.stem)
    for (before, after), stride in zip(pairwise(channels), config.strides, strict=True):
        side = math.ceil(side / stride)
        total += _conv(before, after, 3, side) + _norm(after)
    grid = side // config.patch
    tokens = grid**2 + 1
    return (
        total
        + _conv(channels[-1], width, config.patch, grid)
        + Cost((1 + tokens) * width)  # class token and positions
        + _block(width, tokens) * config.layers
        + _norm(width) * 2
        + _linear(width, config.embed_dim, 1, bias=False)
    )


def _resnet(config: ModelConfig) -> Cost:
    width, side, total = config.width, config.image_size // 2, Cost()
    for before, after in pairwise((3, width // 2, width // 2, width)):
        total += _conv(before, after, 3, side) + _norm(after)
    side //= 2
    before = width
    for stage, blocks in enumerate(config.blocks):
        channels, stride = width * 2**stage, 1 if stage == 0 else 2
        total += _bottleneck(before, channels, side, stride)
        side //= stride
        before = 4 * channels
        total += _bottleneck(before, channels, side, 1) * (blocks - 1)
    return total + _attention_pool(config.features, side**2 + 1, config.embed_dim)


def _bottleneck(before: int, channels: int, side: int, stride: int) -> Cost:
    """A residual block; its shortcut has a convolution where the shape changes."""
    after, out = 4 * channels, side // stride
    total = _conv(before, channels, 1, side) + _norm(channels)
    total += _conv(channels, channels, 3, side) + _norm(channels)  # strided by a pool after it
    total += _conv(channels, after, 1, out) + _norm(after)
    if stride > 1 or before != after:
        total += _conv(before, after, 1, out) + _norm(after)
    return total


def _attention_pool(features: int, tokens: int, embed_dim: int) -> Cost:
    """One query, of the mean, over all places and the mean."""
    return (
        Cost(tokens * features, 2 * 2 * tokens * features)  # positions; attention
        + _linear(features, features, 1)
        + _linear(features, features, tokens) * 2
        + _linear(features, embed_dim, 1)
    )
