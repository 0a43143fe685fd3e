"""A tiny corpus of coloured squares, and a model that trains on it in a second."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from train.config import TrainConfig
from wit.shard import Sample, sample_key, write_shard

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 30),
}
SIZES = ("small", "large")

TINY: dict[str, Any] = {
    "image_size": 16,
    "stem": (8,),
    "patch": 4,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "text_width": 16,
    "text_layers": 2,
    "text_heads": 2,
    "embed_dim": 16,
    "context_length": 16,
    "dropout": 0.1,
}


def picture(colour: str, size: str, seed: int) -> Image.Image:
    """A square of one colour on a noisy grey ground, 24 to 40 pixels a side."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(24, 41, 2)
    pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
    side = 6 if size == "small" else 16
    top, left = rng.integers(0, height - side), rng.integers(0, width - side)
    pixels[top : top + side, left : left + side] = COLOURS[colour]
    return Image.fromarray(pixels)


def encoded(image: Image.Image, ext: str) -> bytes:
    out = io.BytesIO()
    image.save(out, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ext])
    return out.getvalue()


def samples(shard: int, count: int) -> Iterator[Sample]:
    for i in range(count):
        colour, size = list(COLOURS)[i % 4], SIZES[i // 4 % 2]
        ext = ("jpg", "png", "webp")[i % 3]
        text = f"A {size} {colour} square. The ground is grey, picture {i}."
        data = encoded(picture(colour, size, 1000 * shard + i), ext)
        yield Sample(sample_key(shard, i), data, ext, text, {"uid": f"{shard}-{i}"})


def write_corpus(path: Path, shards: int = 2, count: int = 24) -> Path:
    """A corpus of shards/*.tar with shards/index.parquet."""
    folder = path / "shards"
    folder.mkdir(parents=True)
    tables = [write_shard(folder / f"{s:05d}.tar", samples(s, count)) for s in range(shards)]
    pq.write_table(pa.concat_tables(tables), folder / "index.parquet")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pairs in two shards."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The dimensions of a model that trains in a second."""
    return dict(TINY)


@pytest.fixture
def make_corpus() -> Callable[..., Path]:
    return write_corpus


@pytest.fixture
def make_config(corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """`make_config(section__key=value, ...)`: a run of `corpus` in `tmp_path / "run"`."""

    def make(**changes: Any) -> TrainConfig:
        return config(**{"corpus": corpus, "run": tmp_path / "run", **changes})

    return make


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., TrainConfig]:
    """`config` below, for fixtures that serve many tests."""
    return config


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config(**changes: Any) -> TrainConfig:
    """A run of 12 steps of 16 pairs; `changes` are keys, `section__key` for nested ones."""
    values: dict[str, Any] = {
        "steps": 12,
        "batch": 16,
        "vocab_size": 600,
        "device": "cpu",
        "model": dict(TINY),
        "data": {"crop_min": 0.7, "flip": True, "sentences": 0.3, "rotate_sentences": True},
        "optim": {"lr": 3e-3},
        "loop": {"log_every": 1, "save_every": 4, "threads": 1, "tensorboard": False},
    }
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    return TrainConfig(**values)
