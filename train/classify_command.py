"""`wit classify`: which of some labels fit a picture best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg

from train.options import ModelOptions
from wit.config import load
from wit.errors import InputError

if TYPE_CHECKING:
    from train.loaded import LoadedModel


class ClassifyConfig(ModelOptions):
    """Say which of your labels fit a picture best: zero-shot classification."""

    images: CliPositionalArg[list[Path]] = Field(min_length=1)
    """picture files"""
    labels: str
    """Names of the classes, with commas between them."""
    template: list[str] = Field(default=["a photo of a {c}."], min_length=1)
    """Prompt with {c} in the place of the label; give it several times to average prompts."""
    top: int = Field(default=5, ge=1)
    """Labels shown for each picture, the best first."""
    as_json: bool = Field(default=False, alias="json")
    """Print a list of JSON objects instead of lines."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Pictures that declare more pixels than this are not decoded."""

    @field_validator("labels")
    @classmethod
    def _two(cls, labels: str) -> str:
        names = _names(labels)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError('name at least two different labels: "a cat,a dog"')
        return labels

    @field_validator("template")
    @classmethod
    def _place(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if "{c}" not in template:
                raise ValueError("write {c} where the label belongs")
        return templates


def main(argv: Sequence[str]) -> int:
    """Print a list or JSON; a picture that can't be read ends the command."""
    config = load(ClassifyConfig, argv, prog="wit classify")
    pictures = [_read(path, config.max_pixels) for path in config.images]
    model = config.open_model()
    found = classify(model, pictures, _names(config.labels), config.template)
    rows: list[dict[str, Any]] = [
        {"image": str(path), "labels": labels[: config.top]}
        for path, labels in zip(config.images, found, strict=True)
    ]
    if config.as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    for row in rows:
        print(row["image"])
        for label in row["labels"]:
            print(f"  {label['probability']:6.1%}  cosine {label['cosine']:.3f}  {label['label']}")
    return 0


def classify(
    model: LoadedModel, pictures: Sequence[Any], labels: Sequence[str], templates: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """For each RGB picture its labels, the best first, with probability and cosine.

    Probabilities are a softmax over the labels; those of a model of the sigmoid objective are
    each label's own.
    """
    import torch
    import torch.nn.functional as F

    prompts = [t.replace("{c}", label) for label in labels for t in templates]
    text_CTE = model.encode_text(model.tokenize(prompts), normalize=True)
    text_CE = F.normalize(text_CTE.view(len(labels), len(templates), -1).mean(dim=1), dim=-1)
    found = []
    for picture in pictures:
        image_1E = model.encode_image(model.preprocess(picture)[None], normalize=True)
        cosine_C = (image_1E @ text_CE.T)[0].double()
        if model.logit_bias is None:
            share_C = torch.softmax(model.logit_scale * cosine_C, dim=0)
        else:
            share_C = torch.sigmoid(model.logit_scale * cosine_C + model.logit_bias)
        order = torch.argsort(cosine_C, descending=True, stable=True).tolist()
        pairs = zip(labels, share_C.tolist(), cosine_C.tolist(), strict=True)
        rows = [{"label": n, "probability": share, "cosine": cos} for n, share, cos in pairs]
        found.append([rows[i] for i in order])
    return found


def _names(labels: str) -> list[str]:
    return [name.strip() for name in labels.split(",") if name.strip()]


def _read(path: Path, max_pixels: int) -> Any:
    from wit.image import ImageError, decode

    try:
        return decode(path.read_bytes(), max_pixels)
    except ImageError as error:
        raise InputError(f"{path}: can't be used as a picture: {error.reason}") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; check the path") from None
