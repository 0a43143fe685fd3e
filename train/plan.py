"""What a training run will take, before it is begun: operations, hours, memory, storage, feed.

No torch here, so `wit plan` answers at once. Operations are those of `train.cost`. Memory of
activations is what autograd keeps under bf16 autocast with an attention kernel that keeps no
weights; the tests hold it against what autograd is seen to keep. What no formula here knows:
fragmentation, the workspace of libraries, buffers of the network, and the largest temporary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.config import ModelConfig
from train.cost import BYTES_TRAINING, PUBLISHED_VOCAB, image_cost, parameters, text_cost

BF16, FP32 = 2, 4
BACKWARD = 2  # its operations, as a multiple of those of the forward pass
# Bytes that a block keeps for backward, a token and a unit of width. fp32: the input of both
# norms. bf16: their outputs, queries, keys, values, what attention gives, 4 units into and 4 out
# of the activation; QuickGELU keeps its sigmoid too.
KEPT_BY_BLOCK = {
    "gelu": 2 * FP32 + (2 + 3 + 1 + 8) * BF16,
    "quick_gelu": 2 * FP32 + (2 + 3 + 1 + 12) * BF16,
}


@dataclass(frozen=True)
class Card:
    """An accelerator: dense bf16 (or fp16) operations per second and bytes, as its maker states."""

    flops: float
    memory: float


CARDS = {
    "V100": Card(125e12, 32e9),
    "T4": Card(65e12, 16e9),
    "A10": Card(125e12, 24e9),
    "L4": Card(121e12, 24e9),
    "L40S": Card(362e12, 48e9),
    "A100-40GB": Card(312e12, 40e9),
    "A100-80GB": Card(312e12, 80e9),
    "H100": Card(989e12, 80e9),
    "H200": Card(989e12, 141e9),
    "B200": Card(2250e12, 180e9),
}


@dataclass(frozen=True)
class Run:
    """What is to be trained, and on what.

    Attributes:
        model: the towers.
        samples: pairs seen, over all epochs.
        batch: pairs of a step, over all cards.
        cards: how many of them.
        card: their kind.
        utilisation: share of the card's operations that go into the model; the field reports 0.11
            to 0.30 on A100 and about 0.2 on H100.
        caption_tokens: tokens that the text tower works on; the context, or less where captions
            are cut at the longest of a batch.
        sharded: weights, gradients and optimiser spread over the cards (FSDP).
        recompute: activations of blocks are computed again in backward.
        vocab_size: ids of the vocabulary.
    """

    model: ModelConfig
    samples: float
    batch: int
    cards: int
    card: Card
    utilisation: float
    caption_tokens: int
    sharded: bool = False
    recompute: bool = False
    vocab_size: int = PUBLISHED_VOCAB

    @property
    def flops_per_pair(self) -> float:
        """Forward and backward of both towers, and this pair's share of the loss (8 N D)."""
        short = self.model.model_copy(update={"context_length": self.caption_tokens})
        forward = image_cost(self.model).flops + text_cost(short).flops
        passes = 1 + BACKWARD + self.recompute
        return passes * forward + 8 * self.batch * self.model.embed_dim

    @property
    def flops(self) -> float:
        return self.flops_per_pair * self.samples

    @property
    def hours(self) -> float:
        """Of the wall clock."""
        return self.flops / (self.card.flops * self.utilisation * self.cards) / 3600

    @property
    def pairs_per_second(self) -> float:
        """What the loaders of all machines together have to give."""
        return self.samples / (3600 * self.hours)

    @property
    def state_bytes(self) -> float:
        """Weights, gradients and AdamW's moments on one card."""
        whole = BYTES_TRAINING * parameters(self.model, self.vocab_size)
        return whole / self.cards if self.sharded else whole

    @property
    def bytes_per_pair(self) -> float:
        """Activations of both towers, features and the picture itself, on the card that has it."""
        width = self.model.embed_dim
        picture = 3 * self.model.image_size**2 * (1 + FP32)  # as it comes, and normalised
        features = 2 * width * (BF16 + FP32)
        towers = image_activations(self.model, self.recompute) + text_activations(
            self.model, self.caption_tokens, self.recompute
        )
        return picture + features + towers

    @property
    def loss_bytes(self) -> float:
        """Everybody's captions and their gradient (fp32); the loss never holds the logits."""
        return self.batch * self.model.embed_dim * (BF16 + 2 * FP32)

    @property
    def card_bytes(self) -> float:
        """On one card; weights in bf16 for autocast are extra."""
        copies = BF16 * parameters(self.model, self.vocab_size)
        share = math.ceil(self.batch / self.cards)
        return self.state_bytes + copies + self.loss_bytes + share * self.bytes_per_pair

    @property
    def largest_share(self) -> int:
        """Pairs of one card that fit beside the state, with a tenth of the memory left free."""
        one = BF16 * parameters(self.model, self.vocab_size) + self.state_bytes + self.loss_bytes
        return max(0, int((0.9 * self.card.memory - one) / self.bytes_per_pair))


def text_activations(config: ModelConfig, tokens: int, recompute: bool = False) -> float:
    """Bytes that backward of the text tower needs, for one caption of that many tokens."""
    embedded = FP32 * tokens * config.text_width
    return embedded + _blocks(
        config.text_layers, tokens, config.text_width, config.activation, recompute
    )


def image_activations(config: ModelConfig, recompute: bool = False) -> float:
    """Bytes that backward of the image tower needs, for one picture."""
    if config.tower == "resnet":
        return _resnet(config)
    side = config.image_size
    total = BF16 * 3 * side**2
    for channels, stride in zip(config.stem, config.strides, strict=True):
        side = math.ceil(side / stride)
        total += 3 * BF16 * channels * side**2  # into the norm, into its activation and out of it
    tokens = (side // config.patch) ** 2 + 1
    total += FP32 * tokens * config.width  # into the first norm
    layers = config.layers + (config.pool != "class")  # other pools need the last block whole
    return total + _blocks(layers, tokens, config.width, config.activation, recompute)


def _blocks(layers: int, tokens: int, width: int, activation: str, recompute: bool) -> float:
    """The last block works on one token but for its keys and values."""
    whole = KEPT_BY_BLOCK[activation] * tokens * width
    last = (FP32 + 3 * BF16) * tokens * width
    if recompute:  # the inputs of the blocks, and one block at a time
        return FP32 * (layers - 1) * tokens * width + max(whole, last)
    return (layers - 1) * whole + last


def _resnet(config: ModelConfig) -> float:
    """A convolution and its norm keep what goes into each of them, an activation what it gives."""
    width, side = config.width, config.image_size // 2
    values = 3 * config.image_size**2 + 2 * side**2 * (width // 2 + width // 2 + width)
    side //= 2
    values += width * side**2  # the stem's pool
    before = width
    for stage, blocks in enumerate(config.blocks):
        channels = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            out, after = side // stride, 4 * channels
            values += 2 * 2 * channels * side**2  # two convolutions: into the norm, out of ReLU
            values += (channels * out**2 if stride > 1 else 0) + 2 * after * out**2
            if stride > 1 or before != after:
                values += (before * out**2 if stride > 1 else 0) + after * out**2
            side, before = out, after
    tokens = side**2 + 1
    return BF16 * (values + 4 * tokens * config.features)
