"""The two objectives that the paper tried before the contrastive one (section 2.3, figure 2):
predict the words of a caption in any order, or write it.

B batch, N places of a picture, L tokens of a caption, M captions, E dimensions of image features,
D width of the text transformer, V vocabulary, T tokens of all captions without padding.

Both are CLIP's image tower with another text side, and give the negative log-likelihood of each
caption. What they say of a picture and any text is `score`, higher for what is likelier, so
that a class is found by its prompts as CLIP finds it by cosines.
"""

from __future__ import annotations

from itertools import starmap

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.config import ModelConfig
from train.model.clip import CLIP, image_tower
from train.model.transformer import Packing
from wit.errors import CheckpointError

ROWS = 2048  # tokens whose logits are held at once: 400 MB for 49,408 ids


class BagOfWords(CLIP):
    """Names the tokens of the caption: one linear layer on the image features.

    As in Joulin et al. 2016, "Learning visual features from large weakly supervised data": the
    softmax over the vocabulary is to be even over the different tokens of the caption.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        nn.Module.__init__(self)
        self.logit_bias = None
        self.visual = image_tower(config)
        self.words = nn.Linear(config.embed_dim, vocab_size)
        nn.init.normal_(self.words.weight, std=config.embed_dim**-0.5)
        nn.init.zeros_(self.words.bias)

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Raises CheckpointError: there is no text tower."""
        raise _no_text_features("bag_of_words")

    def forward(self, img_BCSS: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Loss of each pair (B,), the mean over the caption's different tokens, in nats; and
        whether the likeliest token is one of them (B,)."""
        logits_BV = self.words(self.encode_image(img_BCSS)).float()
        own_BL = _different(tokens_BL)
        picked_BL = logits_BV.gather(1, tokens_BL) - logits_BV.logsumexp(dim=1, keepdim=True)
        loss_B = -(picked_BL * own_BL).sum(dim=1) / own_BL.sum(dim=1).clamp(min=1)
        best_B1 = logits_BV.argmax(dim=1, keepdim=True)
        return loss_B, ((tokens_BL == best_B1) & own_BL).any(dim=1).float()

    def score(self, img_BCSS: Tensor, tokens_ML: Tensor) -> Tensor:
        """Mean log-probability of each text's different tokens, (B, M)."""
        log_BV = F.log_softmax(self.words(self.encode_image(img_BCSS)).float(), dim=1)
        own_ML = _different(tokens_ML)
        total_BM = (log_BV[:, tokens_ML] * own_ML).sum(dim=2)
        return total_BM / own_ML.sum(dim=1).clamp(min=1)


class Captioner(CLIP):
    """Writes the caption: CLIP's text transformer as a language model that reads the picture.

    The places of the picture, projected to the width of the transformer, stand before the start
    token; attention is causal throughout. Output weights are the token embeddings.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        del self.text_projection, self.logit_scale
        self.image_projection = nn.Linear(config.embed_dim, config.text_width)

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Raises CheckpointError: a text is only read after a picture."""
        raise _no_text_features("caption")

    def forward(self, img_BCSS: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Loss of each pair (B,), the negative log-likelihood of the caption and its end, in
        nats; and the share of its tokens that were the likeliest (B,)."""
        return self._read(self._prefix(img_BCSS), tokens_BL)

    def score(self, img_BCSS: Tensor, tokens_ML: Tensor) -> Tensor:
        """Log-likelihood of each text after each picture, (B, M)."""
        rows = []
        for prefix_ND in self._prefix(img_BCSS):
            loss_M, _ = self._read(prefix_ND.expand(len(tokens_ML), -1, -1), tokens_ML)
            rows.append(-loss_M)
        return torch.stack(rows)

    def _prefix(self, img_BCSS: Tensor) -> Tensor:
        prefix_BND: Tensor = self.image_projection(self.visual.places(img_BCSS))
        return prefix_BND

    def _read(self, prefix_BND: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
        read_BL, next_BL = tokens_BL[:, :-1], tokens_BL[:, 1:]
        text_BLD = self.token_embedding(read_BL) + self.positional_embedding[: read_BL.shape[1]]
        x_BND = torch.cat([prefix_BND.to(text_BLD.dtype), text_BLD], dim=1)
        x_BLD = self.transformer(x_BND, causal=True)[:, prefix_BND.shape[1] :]
        real = Packing(tokens_BL.argmax(dim=1) - 1, read_BL.shape[1])
        x_TD: Tensor = self.ln_final(real.pack(x_BLD))
        next_T = real.pack(next_BL[:, :, None]).squeeze(1)
        parts = zip(torch.split(x_TD, ROWS), torch.split(next_T, ROWS), strict=True)
        if len(x_TD) > ROWS:
            found = [checkpoint(self._token_losses, *part, use_reentrant=False) for part in parts]
        else:
            found = list(starmap(self._token_losses, parts))
        loss_T, right_T = (torch.cat(column) for column in zip(*found, strict=True))
        loss_B = real.pad(loss_T[:, None]).sum(dim=(1, 2))
        return loss_B, real.pad(right_T[:, None]).sum(dim=(1, 2)) / tokens_BL.argmax(dim=1)

    def _token_losses(self, x_TD: Tensor, next_T: Tensor) -> tuple[Tensor, Tensor]:
        logits_TV = F.linear(x_TD, self.token_embedding.weight).float()
        right_T = (logits_TV.argmax(dim=1) == next_T).float()
        return F.cross_entropy(logits_TV, next_T, reduction="none"), right_T


def new_model(
    config: ModelConfig, vocab_size: int, init_temperature: float = 0.07, init_bias: float = -10.0
) -> CLIP:
    """The model for an objective, with new weights."""
    if config.objective == "bag_of_words":
        return BagOfWords(config, vocab_size)
    if config.objective == "caption":
        return Captioner(config, vocab_size)
    return CLIP(config, vocab_size, init_temperature, init_bias)


def _different(tokens_BL: Tensor) -> Tensor:
    """Where a token of the caption itself, not start, end or padding, stands for the first time."""
    index_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    inside_BL = (index_L > 0) & (index_L < tokens_BL.argmax(dim=1, keepdim=True))
    same_BLL = tokens_BL[:, :, None] == tokens_BL[:, None, :]
    before_BLL = same_BLL.tril(-1) & inside_BL[:, None, :]
    return inside_BL & ~before_BLL.any(dim=2)


def _no_text_features(objective: str) -> CheckpointError:
    return CheckpointError(
        f"a model trained with objective = {objective} has no text features, only scores of pairs;"
        " give a run with objective = contrastive or sigmoid"
    )
