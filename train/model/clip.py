"""CLIP: two towers and one learned temperature (Radford et al. 2021, sections 2.3 to 2.5).

B batch, L tokens of a caption, D width of the text tower, E dimensions of the shared space.
The parameters of the text tower lie on the top level, as in the published state dicts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import ModelConfig
from train.model.resnet import ModifiedResNet
from train.model.transformer import Block, Transformer
from train.model.vit import VisionTransformer


class CLIP(nn.Module):
    """Both towers. `forward` gives unnormalised features; the loss normalises them.

    A model for the sigmoid loss has `logit_bias` beside `logit_scale`.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        init_temperature: float = 0.07,
        init_bias: float = -10.0,
    ) -> None:
        super().__init__()
        width = config.text_width
        self.visual = image_tower(config)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.transformer = Transformer(
            width, config.text_layers, config.text_heads, config.activation, config.dropout
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / init_temperature)))
        self.logit_bias: nn.Parameter | None = None
        if config.objective == "sigmoid":
            self.logit_bias = nn.Parameter(torch.tensor(init_bias))
        self._initialise_text()

    def _initialise_text(self) -> None:
        """As published: output projections shrink with the depth of the residual stream."""
        width, layers = self.transformer.width, self.transformer.layers
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        for block in self.transformer.resblocks:
            assert isinstance(block, Block)
            out_std = width**-0.5 * (2 * layers) ** -0.5
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=out_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=out_std)

    def encode_image(self, img_BCSS: Tensor) -> Tensor:
        """uint8 pictures, or float ones already normalised, (B, 3, S, S) to features (B, E)."""
        features_BE: Tensor = self.visual(img_BCSS)
        return features_BE

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Token ids (B, L), L at most the context length, to features (B, E).

        Each row is pooled at its largest id, the end token; what follows it has no influence,
        so columns that are padding in every row may be cut off beforehand.
        """
        x_BLD = self.token_embedding(tokens_BL) + self.positional_embedding[: tokens_BL.shape[1]]
        pooled_BD = self.transformer.pooled(x_BLD, tokens_BL.argmax(dim=-1), causal=True)
        features_BE: Tensor = self.ln_final(pooled_BD) @ self.text_projection
        return features_BE

    def score(self, img_BCSS: Tensor, tokens_ML: Tensor) -> Tensor:
        """Cosines of pictures and texts, (B, M)."""
        image_BE = F.normalize(self.encode_image(img_BCSS).float(), dim=-1)
        return image_BE @ F.normalize(self.encode_text(tokens_ML).float(), dim=-1).T

    def forward(self, img_BCSS: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image features (B, E), text features (B, E), and what makes logits of cosines: the log
        of their scale, or (2,) that and the bias."""
        numbers: Tensor = self.logit_scale
        if self.logit_bias is not None:
            numbers = torch.stack([self.logit_scale, self.logit_bias])
        return self.encode_image(img_BCSS), self.encode_text(tokens_BL), numbers


def image_tower(config: ModelConfig) -> ModifiedResNet | VisionTransformer:
    """Of the kind that the config names."""
    return (ModifiedResNet if config.tower == "resnet" else VisionTransformer)(config)
