"""The models, and a trained one ready for use: `load_model(RUN)`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from train import checkpoint
from train.config import ModelConfig
from train.model.clip import CLIP
from wit.config import fingerprint
from wit.errors import CheckpointError
from wit.image import to_square
from wit.tokenizer import Tokenizer

__all__ = ["CLIP", "LoadedModel", "load_model"]


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its vocabulary and its picture transform.

    Attributes:
        clip: the network, in evaluation mode.
        tokenizer: of the run.
        config: dimensions of the towers.
        step: steps it was trained for.
        fingerprint: 16 hex digits over weights, vocabulary and config: same digits, same features.
    """

    clip: CLIP
    tokenizer: Tokenizer
    config: ModelConfig
    step: int
    fingerprint: str

    @property
    def context_length(self) -> int:
        return self.config.context_length

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def device(self) -> torch.device:
        return self.clip.logit_scale.device

    @property
    def logit_scale(self) -> float:
        """What the cosines are multiplied by: at most 100."""
        return self.clip.logit_scale.exp().item()

    def preprocess(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        """The evaluation transform: an RGB picture to uint8 (3, S, S)."""
        return np.ascontiguousarray(to_square(picture, self.image_size).transpose(2, 0, 1))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts to ids (N, context length)."""
        return torch.from_numpy(self.tokenizer.encode(texts, self.config.context_length)).long()

    @torch.no_grad()
    def encode_image(self, img_BCSS: Tensor) -> Tensor:
        """uint8 (or normalised float) pictures (B, 3, S, S) to unnormalised features (B, E)."""
        return self.clip.encode_image(img_BCSS.to(self.device))

    @torch.no_grad()
    def image_features(self, img_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Features before and after the projection into the shared space: (B, D) and (B, E).

        D is a ViT's width, or what a ResNet's attention pooling gives before it is projected.
        """
        pooled_BD = self.clip.visual.pooled(img_BCSS.to(self.device))
        return pooled_BD, self.clip.visual.project(pooled_BD)

    @torch.no_grad()
    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Ids (B, L) to unnormalised features (B, E); padding of all rows costs nothing."""
        longest = int(tokens_BL.argmax(dim=-1).max()) + 1
        return self.clip.encode_text(tokens_BL[:, :longest].to(self.device))


def load_model(run: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The newest sound checkpoint of a run directory.

    Raises:
        CheckpointError: not a run directory, no checkpoint yet, or its files are damaged.
    """
    path = run / "config.json"
    try:
        stored = json.loads(path.read_text("utf-8"))["config"]["model"]
        config = ModelConfig(**stored)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{run}: not a run directory (no config.json); train first") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: damaged; put back the run's own, or train anew") from None
    found = checkpoint.load(run, device)
    if found is None:
        raise CheckpointError(f"{run}: holds no checkpoint yet; train longer")
    state = found.state
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    with torch.device("meta"):
        clip = CLIP(config, tokenizer.vocab_size)
    clip.load_state_dict(state["model"], assign=True)
    clip.visual.reset_buffers(device)
    parts = [found.sha256, (run / "tokenizer.json").read_text("utf-8"), stored]
    return LoadedModel(clip.eval(), tokenizer, config, state["step"], fingerprint(parts))
