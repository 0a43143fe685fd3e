"""Tiny models that other formats can hold, with every branch of them audible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from train import checkpoint
from train.config import ModelConfig, TrainConfig
from train.model import CLIP
from wit.config import write_config
from wit.tokenizer import Tokenizer

TEXT = {"text_width": 64, "text_layers": 2, "text_heads": 1, "embed_dim": 32, "context_length": 16}
SIZES: dict[str, dict[str, Any]] = {
    "vit": TEXT | {"stem": (), "patch": 8, "image_size": 32, "width": 128, "layers": 2, "heads": 2},
    "resnet": TEXT | {"name": "tiny-resnet", "image_size": 32, "blocks": (1, 2, 1, 1)},
}
WORDS = ["a photo of a cat", "two dogs, it's raining", "émigré 12 naïve", "the red house"] * 3


@dataclass(frozen=True)
class Made:
    """A model of random weights, and what it gives for some input."""

    clip: CLIP
    config: ModelConfig
    tokenizer: Tokenizer
    img_BCSS: Tensor
    tokens_BL: Tensor

    @property
    def state(self) -> dict[str, Tensor]:
        return self.clip.state_dict()

    @torch.no_grad()
    def features(self) -> tuple[Tensor, Tensor]:
        return self.clip.encode_image(self.img_BCSS), self.clip.encode_text(self.tokens_BL)

    def write_run(self, folder: Path) -> Path:
        """A run directory as `wit train` leaves it."""
        folder.mkdir()
        self.tokenizer.save(folder / "tokenizer.json")
        checkpoint.save(folder, 7, {"model": self.state, "step": 7}, keep=1)
        model = self.config.model_dump()
        write_config(TrainConfig(run=folder, model=model), folder / "config.json")
        return folder


def make(
    tower: str, activation: str = "quick_gelu", published: bool = False, **changes: Any
) -> Made:
    tokenizer = Tokenizer.load("openai") if published else Tokenizer.train(WORDS, 560)
    config = ModelConfig.model_validate(SIZES[tower] | {"activation": activation} | changes)
    torch.manual_seed(0)
    clip = CLIP(config, tokenizer.vocab_size).eval()
    for name, tensor in clip.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            if name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(std=0.1)
    clip.logit_scale.data.fill_(3.0)
    img_BCSS = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    ids = tokenizer.encode(["a photo of a cat", "two dogs", "it's the émigré 12"], 16)
    return Made(clip, config, tokenizer, img_BCSS, torch.from_numpy(ids).long())


@pytest.fixture
def made() -> Callable[..., Made]:
    """`made("vit" or "resnet", activation, published vocabulary?)`."""
    return make


@pytest.fixture
def vit() -> Made:
    return make("vit")


class Node(nn.Module):
    """A part of a network that is told apart by its names alone."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.fixture
def scripted() -> Callable[[dict[str, Tensor], Path], Path]:
    """Write tensors as a TorchScript archive, nested by their dotted names, code and all."""

    def write(state: dict[str, Tensor], path: Path) -> Path:
        root = Node()
        for name, tensor in state.items():
            *parents, last = name.split(".")
            node: nn.Module = root
            for parent in parents:
                if parent not in dict(node.named_children()):
                    node.add_module(parent, Node())
                node = node.get_submodule(parent)
            node.register_buffer(last, tensor)
        torch.jit.save(torch.jit.script(root), path)
        return path

    return write


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
