"""A trained model ready for use: pictures and texts to features of the shared space.

B pictures or texts, S side of a picture, L tokens, E dimensions of the shared space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from train.config import ModelConfig
from train.interchange import Activation, Preprocess, understand
from train.interchange.entries import fill
from train.model.clip import CLIP
from wit.config import fingerprint
from wit.image import to_rgb, to_square
from wit.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its vocabulary and its picture transform.

    Attributes:
        clip: the network, in evaluation mode, in fp32.
        tokenizer: of its captions.
        config: dimensions of the towers.
        transform: of its pictures: size, mean and standard deviation.
        step: steps it was trained for; 0 where the checkpoint doesn't say.
        source: format of the checkpoint, and how its activation was decided.
        fingerprint: 16 hex digits over weights, vocabulary and config: same digits, same features.
    """

    clip: CLIP
    tokenizer: Tokenizer
    config: ModelConfig
    transform: Preprocess
    step: int
    source: str
    fingerprint: str

    @property
    def context_length(self) -> int:
        """Most tokens of a text, start and end included."""
        return self.config.context_length

    @property
    def image_size(self) -> int:
        """Side of the square picture, in pixels."""
        return self.config.image_size

    @property
    def embed_dim(self) -> int:
        """E, the dimensions of the shared space."""
        return self.config.embed_dim

    @property
    def predictive(self) -> bool:
        """Whether it was trained to predict captions: it then has scores, but no text features."""
        return self.config.objective in ("bag_of_words", "caption")

    @property
    def device(self) -> torch.device:
        return self.clip.visual.mean.device

    @property
    def logit_scale(self) -> float:
        """What the cosines are multiplied by: at most 100 in the paper's models."""
        return math.exp(self.clip.logit_scale.item())

    @property
    def logit_bias(self) -> float | None:
        """Added to the logits by models of the sigmoid objective; None in others."""
        return None if self.clip.logit_bias is None else self.clip.logit_bias.item()

    def preprocess(self, picture: Image.Image) -> Tensor:
        """The evaluation transform: a picture of any size and mode to uint8 (3, S, S).

        Bicubic resize of the shorter side and the centre square. Transparency is laid over white.
        Mean and standard deviation come in `encode_image`, on the device.
        """
        square_SSC = to_square(to_rgb(picture), self.image_size)
        return torch.tensor(square_SSC).permute(2, 0, 1).contiguous()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts to ids, int64 (B, context length); what is too long is cut."""
        return torch.from_numpy(self.tokenizer.encode(texts, self.config.context_length)).long()

    @torch.no_grad()
    def encode_image(self, img_BCSS: Tensor, normalize: bool = False) -> Tensor:
        """Pictures to features (B, E) on the model's device, of length 1 with `normalize`.

        Args:
            img_BCSS: (B, 3, S, S), uint8 as `preprocess` gives them, or floats that are normalised.
        """
        features_BE = self.clip.encode_image(img_BCSS.to(self.device))
        return F.normalize(features_BE.float(), dim=-1) if normalize else features_BE

    @torch.no_grad()
    def image_features(self, img_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Features before and after the projection into the shared space: (B, D) and (B, E).

        D is a ViT's width, or what a ResNet's attention pooling gives before it is projected.
        """
        pooled_BD = self.clip.visual.pooled(img_BCSS.to(self.device))
        return pooled_BD, self.clip.visual.project(pooled_BD)

    @torch.no_grad()
    def encode_text(self, tokens_BL: Tensor, normalize: bool = False) -> Tensor:
        """Ids (B, L) to features (B, E) on the model's device, of length 1 with `normalize`.

        Padding that all rows have costs nothing.
        """
        longest = int(tokens_BL.argmax(dim=-1).max()) + 1
        features_BE = self.clip.encode_text(tokens_BL[:, :longest].to(self.device))
        return F.normalize(features_BE.float(), dim=-1) if normalize else features_BE

    @torch.no_grad()
    def score(self, img_BCSS: Tensor, tokens_ML: Tensor) -> Tensor:
        """How well each text fits each picture, (B, M): cosines, or log-probabilities of the text
        where the model was trained to predict it."""
        longest = int(tokens_ML.argmax(dim=-1).max()) + 1
        return self.clip.score(img_BCSS.to(self.device), tokens_ML[:, :longest].to(self.device))


def load_model(
    path: str | Path,
    device: torch.device | str = "cpu",
    *,
    activation: Activation | None = None,
    vocab: str | None = None,
) -> LoadedModel:
    """A model of this project or of anyone's checkpoint; the format is found out.

    No code in a file runs, and nothing is allocated before names and shapes were compared.

    Args:
        path: a run directory (its newest sound checkpoint) or one of its checkpoints; a folder
            that `wit export` wrote; OpenAI's .pt; open_clip's .pt, .safetensors, or folder with
            open_clip_config.json; a folder of Hugging Face's CLIPModel.
        device: where the model lives.
        activation: "gelu" or "quick_gelu", for a file that doesn't say, or that says it wrongly.
        vocab: "openai" or the path of a vocabulary, in place of the checkpoint's own.

    Raises:
        CheckpointError: nothing of these, damaged, of another architecture, or the file doesn't
            say which activation it has.
    """
    weights = understand(Path(path), activation, vocab)
    config = weights.config
    if "logit_bias" in weights.entries:  # a foreign checkpoint says it by this alone
        config = config.model_copy(update={"objective": "sigmoid"})
    size = weights.tokenizer.vocab_size
    clip = fill(config, size, weights.entries, weights.path, device)
    clip.visual.reset_buffers(device, weights.preprocess.mean, weights.preprocess.std)
    return LoadedModel(
        clip=clip,
        tokenizer=weights.tokenizer,
        config=config,
        transform=weights.preprocess,
        step=weights.step,
        source=weights.source,
        fingerprint=fingerprint(weights.identity),
    )
