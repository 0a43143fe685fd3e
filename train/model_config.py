"""What a model is: the dimensions of its towers. No torch here.

`model.name` picks one of `MODELS`; any other `model.*` key changes that one value.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wit.config import Section

Count = Annotated[int, Field(ge=1)]
Objective = Literal["contrastive", "sigmoid", "bag_of_words", "caption"]


def vit(
    patch: int, image: tuple[int, int, int], text: tuple[int, int, int], embed_dim: int, size: int
) -> dict[str, Any]:
    """A model of the paper; width, layers and heads of each tower (tables 19 and 20)."""
    return {
        "image_size": size,
        "stem": (),
        "patch": patch,
        **dict(zip(("width", "layers", "heads"), image, strict=True)),
        **dict(zip(("text_width", "text_layers", "text_heads"), text, strict=True)),
        "embed_dim": embed_dim,
        "context_length": 77,
        "activation": "quick_gelu",
    }


def resnet(
    blocks: tuple[int, int, int, int],
    width: int,
    text: tuple[int, int, int],
    embed_dim: int,
    size: int,
) -> dict[str, Any]:
    """A ResNet of the paper (table 19); its features are 32 `width`, its heads 64 of them each."""
    return {
        "tower": "resnet",
        "image_size": size,
        "blocks": blocks,
        "width": width,
        "heads": width // 2,
        **dict(zip(("text_width", "text_layers", "text_heads"), text, strict=True)),
        "embed_dim": embed_dim,
        "context_length": 77,
        "activation": "quick_gelu",
    }


SMALL = vit(4, (256, 6, 4), (256, 6, 4), embed_dim=256, size=128)
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {},  # the defaults of ModelConfig, for a CPU
    "small": SMALL | {"stem": (32, 64), "context_length": 64},  # for any GPU, or a patient CPU
    "tiny-resnet": resnet((1, 1, 1, 1), 16, (128, 3, 4), embed_dim=128, size=64)
    | {"context_length": 32},  # for a CPU too
    "RN50": resnet((3, 4, 6, 3), 64, (512, 12, 8), embed_dim=1024, size=224),
    "RN101": resnet((3, 4, 23, 3), 64, (512, 12, 8), embed_dim=512, size=224),
    "RN50x4": resnet((4, 6, 10, 6), 80, (640, 12, 10), embed_dim=640, size=288),
    "RN50x16": resnet((6, 8, 18, 8), 96, (768, 12, 12), embed_dim=768, size=384),
    "RN50x64": resnet((3, 15, 36, 10), 128, (1024, 12, 16), embed_dim=1024, size=448),
    "ViT-B/32": vit(32, (768, 12, 12), (512, 12, 8), embed_dim=512, size=224),
    "ViT-B/16": vit(16, (768, 12, 12), (512, 12, 8), embed_dim=512, size=224),
    "ViT-L/14": vit(14, (1024, 24, 16), (768, 12, 12), embed_dim=768, size=224),
    "ViT-L/14@336px": vit(14, (1024, 24, 16), (768, 12, 12), embed_dim=768, size=336),
}


class ModelConfig(Section):
    """The two towers. `RN*` and `ViT-*` are the nine models of the paper (tables 19 and 20)."""

    name: Literal[
        "tiny",
        "small",
        "tiny-resnet",
        "RN50",
        "RN101",
        "RN50x4",
        "RN50x16",
        "RN50x64",
        "ViT-B/32",
        "ViT-B/16",
        "ViT-L/14",
        "ViT-L/14@336px",
    ] = "tiny"
    """Variant that gives the other values their defaults; `wit models` lists them."""
    tower: Literal["vit", "resnet"] = "vit"
    """Kind of the image tower: a vision transformer, or the paper's modified ResNet."""
    blocks: tuple[Count, ...] = ()
    """Residual blocks of a ResNet's four stages; none in a ViT."""
    image_size: Count = 64
    """Side of the square picture the image tower sees, in pixels; a ResNet takes 32, 64, ..."""
    stem: tuple[Count, ...] = (32, 64)
    """Channels of 3x3 convolutions before the patches; none in the paper's ViTs."""
    stem_strides: tuple[Count, ...] = ()
    """Stride of each of them; empty: all 2."""
    stem_norm: Literal["group", "batch"] = "group"
    """Norm of the stem's layers."""
    patch: Count = 2
    """Side of a patch, in pixels of the picture or of the stem's output."""
    width: Count = 128
    """Width of the image transformer; of a ResNet's stem, a 32nd of its features."""
    layers: Count = 4
    """Blocks of the image transformer."""
    heads: Count = 4
    """Attention heads of the image transformer, or of a ResNet's pooling."""
    text_width: Count = 128
    """Width of the text transformer."""
    text_layers: Count = 3
    """Blocks of the text transformer."""
    text_heads: Count = 4
    """Attention heads of the text transformer."""
    embed_dim: Count = 128
    """Dimensions of the shared space."""
    context_length: int = Field(default=32, ge=3)
    """Most tokens of a caption, start and end included."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """x*sigmoid(1.702x) in the published models; erf-GELU elsewhere."""
    pool: Literal["class", "mean", "max"] = "class"
    """Feature of a picture: its class token, as in the paper, or the mean or maximum of all."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each block's output dropped in training; none in the paper."""
    patch_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each picture's patches left out in training (Li et al. 2023); never the class
    token. Steps are faster by as much; the last steps of a run should see whole pictures."""
    objective: Objective = "contrastive"
    """What training asks for. contrastive: find the caption's picture and the picture's caption
    among those of the batch; sigmoid: tell pair by pair whether they belong together (Zhai et al.
    2023); bag_of_words: name the tokens of the caption; caption: write it, token by token."""

    @model_validator(mode="before")
    @classmethod
    def _from_variant(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        variant = MODELS.get(given.get("name", "tiny"), {})  # an unknown name fails on its own
        return {**variant, **given}

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.tower == "resnet":
            self._resnet_fits()
        elif self.blocks:
            raise ValueError(
                f"blocks = {_commas(self.blocks)} are of a ResNet; leave them out, or set"
                " tower = resnet"
            )
        widths = ((self.features, self.heads), (self.text_width, self.text_heads))
        for width, heads in widths:
            if width % heads:
                raise ValueError(f"width {width} can't be divided by {heads} heads")
        if self.stem_strides and len(self.stem_strides) != len(self.stem):
            raise ValueError(
                f"stem_strides has {len(self.stem_strides)} numbers, stem has {len(self.stem)}"
            )
        unit = self.pixels_per_token
        if self.image_size % unit:
            what = (
                "its strides" if self.tower == "resnet" else "patch times the strides of the stem"
            )
            raise ValueError(
                f"image_size {self.image_size} can't be divided by {unit} ({what});"
                f" {max(1, round(self.image_size / unit)) * unit} can"
            )
        return self

    def _resnet_fits(self) -> None:
        if len(self.blocks) != 4:
            raise ValueError(
                f"blocks has {len(self.blocks)} numbers; a ResNet has four stages: blocks = 3,4,6,3"
            )
        if self.width % 2:
            raise ValueError(f"width {self.width} of a ResNet's stem must be even")
        fields = type(self).model_fields
        keys = ("stem", "stem_strides", "stem_norm", "patch", "layers", "pool", "patch_dropout")
        for key in keys:
            if getattr(self, key) != fields[key].default:
                raise ValueError(f"{key} has no meaning in a ResNet; leave it out")

    @property
    def features(self) -> int:
        """Features of the image tower before the projection to `embed_dim`."""
        return 32 * self.width if self.tower == "resnet" else self.width

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each layer of the stem."""
        return self.stem_strides or (2,) * len(self.stem)

    @property
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token of the image tower stands for."""
        if self.tower == "resnet":
            return 32
        return self.patch * math.prod(self.strides)


def _commas(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
