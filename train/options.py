"""Options of the commands that use a trained model. No torch here, so `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wit.config import Settings
from wit.errors import ConfigError

if TYPE_CHECKING:
    from train.loaded import LoadedModel


class ModelOptions(Settings):
    """What a model is loaded with."""

    model: Path = Path("data/run")
    """Run directory, exported folder, or checkpoint of OpenAI, open_clip or Hugging Face."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """For a checkpoint that doesn't say which it has, or says it wrongly."""
    vocab: str | None = None
    """"openai" or the path of a vocabulary, in place of the checkpoint's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes CUDA where there is one."""

    def open_model(self) -> LoadedModel:
        """Load the model, and say on stderr what the checkpoint was taken for."""
        import torch  # takes seconds

        from train.loaded import load_model

        cuda = torch.cuda.is_available()
        if self.device == "cuda" and not cuda:
            raise ConfigError("device = 'cuda', but torch sees no CUDA device; use --device cpu")
        device = "cuda" if cuda and self.device != "cpu" else "cpu"
        model = load_model(self.model, device, activation=self.activation, vocab=self.vocab)
        print(f"{self.model}: {model.source}", file=sys.stderr)
        return model
