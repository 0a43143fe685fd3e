"""Features of a set, computed once for each checkpoint.

The cache is content-addressed: OUT/cache/KEY, where KEY is a hash of the checkpoint, the set's
bytes and the preprocessing, so that nothing stale can be read. Files are .npy and JSON, never
pickle, and a folder gets its name only when it is whole.

Shapes: N images, M texts, E embedding dimensions, B images or texts of one batch,
C channels, S side of a picture, L tokens.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from eval.sets import EvalSample, EvalSet
from eval.zeroshot import Features
from wit.config import fingerprint, write_json
from wit.errors import CheckpointError, TooManyBadSamples
from wit.image import ImageError, decode


class Model(Protocol):
    """What evaluation needs of a model; `train.load_model` returns one."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights, architecture and vocabulary."""

    @property
    def image_size(self) -> int:
        """Side of the square picture, in pixels."""

    @property
    def predictive(self) -> bool:
        """Whether it was trained to predict captions: it then has scores, but no text features."""

    def preprocess(self, picture: Image.Image, /) -> Tensor:
        """An RGB picture to uint8 (3, S, S)."""

    def tokenize(self, texts: Sequence[str], /) -> Tensor:
        """Token ids (M, L)."""

    def encode_image(self, img_BCSS: Tensor, /) -> Tensor:
        """uint8 pictures to features (B, E) of any length."""

    def encode_text(self, tokens_BL: Tensor, /) -> Tensor:
        """Token ids to features (B, E) of any length."""

    def score(self, img_BCSS: Tensor, tokens_ML: Tensor, /) -> Tensor:
        """How well each text fits each picture, (B, M)."""


@dataclass(frozen=True)
class BadSample:
    """An image that could not be used, for the report."""

    key: str
    file: str
    reason: str


@dataclass(frozen=True)
class ImageFeatures:
    """Features of the images that could be read, in the set's order."""

    image_NE: Features  # unit length
    kept_N: NDArray[np.int64]  # positions in `EvalSet.samples`
    bad: tuple[BadSample, ...]


@dataclass(frozen=True)
class Encoder:
    """A model with everything that decides how it is fed.

    Attributes:
        cache: folder of cached features.
        batch_size: images or texts encoded at once.
        max_pixels: cap on an image's declared pixels.
        max_bad: unreadable images that a set may have.
    """

    model: Model
    cache: Path
    batch_size: int
    max_pixels: int
    max_bad: int

    def preprocessing(self) -> dict[str, Any]:
        """What decides an image's pixels; part of every key and protocol."""
        return {
            "transform": "bicubic resize of the short side, centre crop",
            "image_size": self.model.image_size,
            "max_pixels": self.max_pixels,
            "pillow": PIL.__version__,
        }

    def images(self, data: EvalSet) -> ImageFeatures:
        """Features of a set's images, from the cache where it has them.

        Raises:
            TooManyBadSamples: more than `max_bad` images can't be decoded.
            CheckpointError: the model's features are not finite.
        """
        key = fingerprint(
            ["images", self.model.fingerprint, data.fingerprint, self.preprocessing()]
        )
        folder = self.cache / key
        if not folder.is_dir():
            with _new_folder(folder) as temporary:
                features = self._encode_images(data)
                np.save(temporary / "image.npy", features.image_NE)
                np.save(temporary / "kept.npy", features.kept_N)
                write_json([asdict(bad) for bad in features.bad], temporary / "bad.json")
        bad = json.loads((folder / "bad.json").read_text("utf-8"))
        features = ImageFeatures(
            image_NE=np.load(folder / "image.npy", allow_pickle=False),
            kept_N=np.load(folder / "kept.npy", allow_pickle=False),
            bad=tuple(BadSample(**entry) for entry in bad),
        )
        self._check_bad(features.bad)  # the bound may be tighter than when it was cached
        return features

    def texts(self, texts: Sequence[str], show: str = "") -> Features:
        """Features of unit length, (M, E). A progress bar named `show` appears if given."""
        tokens_ML = self.model.tokenize(texts)
        out: list[Features] = []
        with _progress(show, len(texts)) as advance, torch.inference_mode():
            for start in range(0, len(texts), self.batch_size):
                tokens_BL = tokens_ML[start : start + self.batch_size]
                out.append(_unit(self.model.encode_text(tokens_BL), "texts"))
                advance(len(tokens_BL))
        return np.concatenate(out)

    def cached(self, what: list[Any], build: Callable[[], Features]) -> Features:
        """Features that depend on the checkpoint and on `what` (plain values) alone."""
        folder = self.cache / fingerprint(["texts", self.model.fingerprint, *what])
        if not folder.is_dir():
            with _new_folder(folder) as temporary:
                np.save(temporary / "text.npy", build())
        features: Features = np.load(folder / "text.npy", allow_pickle=False)
        return features

    def _encode_images(self, data: EvalSet) -> ImageFeatures:
        out: list[Features] = []
        kept: list[int] = []
        bad: list[BadSample] = []
        with (
            _progress(f"{data.name}: images", len(data.samples)) as advance,
            ThreadPoolExecutor() as pool,
            torch.inference_mode(),
        ):
            for start in range(0, len(data.samples), self.batch_size):
                batch = data.samples[start : start + self.batch_size]
                pixels: list[NDArray[np.uint8]] = []
                for i, made in enumerate(pool.map(self._prepare, batch), start):
                    if isinstance(made, BadSample):
                        bad.append(made)
                    else:
                        pixels.append(made)
                        kept.append(i)
                self._check_bad(bad)
                if pixels:
                    img_BCSS = torch.from_numpy(np.stack(pixels))
                    out.append(_unit(self.model.encode_image(img_BCSS), "images"))
                advance(len(batch))
        if not out:
            raise TooManyBadSamples(f"{data.path}: none of {len(bad)} images can be decoded")
        return ImageFeatures(np.concatenate(out), np.array(kept, np.int64), tuple(bad))

    def _prepare(self, sample: EvalSample) -> NDArray[np.uint8] | BadSample:
        try:
            return np.asarray(self.model.preprocess(decode(sample.read(), self.max_pixels)))
        except ImageError as error:
            return BadSample(sample.key, str(sample.file), str(error.reason))

    def _check_bad(self, bad: Sequence[BadSample]) -> None:
        if len(bad) > self.max_bad:
            first = bad[0]
            raise TooManyBadSamples(
                f"{first.file}: image {first.key} is unusable ({first.reason}), and more than"
                f" {self.max_bad} such images are not allowed; mend the set or raise --max_bad"
            )


def _unit(features_BE: Tensor, what: str) -> Features:
    """Features scaled to unit length in float32, on the CPU."""
    features_BE = features_BE.float()
    if not torch.isfinite(features_BE).all():
        raise CheckpointError(f"the model's features of {what} are not finite: training diverged")
    unit: Features = torch.nn.functional.normalize(features_BE, dim=-1).cpu().numpy()
    return unit


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes its name when the block ends well."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    temporary.replace(folder)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on stderr; nothing without a title or a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (title and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance(n: int) -> None:
            bar.advance(task, n)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.0f}/s" if speed else "")

        yield advance
