"""Features of a set, computed once for each checkpoint; every task reads them from here.

The cache is content-addressed: CACHE/KEY, where KEY is a hash of the checkpoint, the set's bytes,
its split, the preprocessing and the precision, so that nothing stale can be read. Files are .npy
and JSON, never pickle, and a folder gets its name only when it is whole. Until then KEY.parts/
holds a file for each finished chunk of images: an evaluation that was killed goes on from there,
and under torchrun each process takes its share of the chunks.

Shapes: N images, M texts, D dimensions before the projection, E dimensions of the shared space,
B images or texts of one batch, C channels, S side of a picture, L tokens.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eval.evalset import EvalSample, EvalSet
from train.dist import World
from wit.config import fingerprint, write_json
from wit.errors import CheckpointError, TooManyBadSamples
from wit.image import ImageError, decode
from wit.progress import Progress

Features = NDArray[np.float32]
Floats = TypeVar("Floats", NDArray[np.float32], NDArray[np.float64])
CACHE_VERSION = 2  # rises when what lies in a folder changes
CHUNK = 1024  # images of one part: what is lost at most by a kill
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Model(Protocol):
    """What evaluation needs of a model; `train.load_model` returns one."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights, architecture and vocabulary."""

    @property
    def step(self) -> int:
        """Steps of training behind it; 0 where that isn't known."""

    @property
    def image_size(self) -> int:
        """Side of the square picture, in pixels."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def predictive(self) -> bool:
        """Whether it was trained to predict captions: it then has scores, but no text features."""

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by before a softmax."""

    def preprocess(self, picture: Image.Image, /) -> Tensor:
        """An RGB picture to uint8 (3, S, S)."""

    def tokenize(self, texts: Sequence[str], /) -> Tensor:
        """Token ids (M, L), the end token being the largest id of each row."""

    def image_features(self, img_BCSS: Tensor, /) -> tuple[Tensor, Tensor]:
        """uint8 pictures to features before (B, D) and after (B, E) the projection."""

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
    """Features of the images that could be read, in the set's order, as the model gave them."""

    pre_ND: Features
    post_NE: Features
    kept_N: NDArray[np.int64]  # positions in `EvalSet.samples`
    bad: tuple[BadSample, ...]

    @cached_property
    def image_NE(self) -> Features:
        """Features after the projection, scaled to unit length."""
        return unit(self.post_NE)


@dataclass(frozen=True)
class Encoder:
    """A model with everything that decides how it is fed.

    Attributes:
        cache: folder of cached features.
        batch_size: images or texts encoded at once.
        max_pixels: cap on an image's declared pixels.
        max_bad: unreadable images that a set may have.
        precision: of the towers' arithmetic; features are kept in fp32.
        world: the processes that share the encoding of images.
    """

    model: Model
    cache: Path
    batch_size: int
    max_pixels: int
    max_bad: int
    precision: str = "fp32"
    world: World = field(default=World(0, 1, torch.device("cpu")))

    @property
    def reads_text(self) -> bool:
        """Whether the model encodes texts, as zero-shot and retrieval need."""
        return True

    def preprocessing(self) -> dict[str, Any]:
        """What decides an image's features beside the model; part of every key and protocol."""
        return {
            "transform": "bicubic resize of the short side, centre crop",
            "image_size": self.model.image_size,
            "max_pixels": self.max_pixels,
            "pillow": PIL.__version__,
            "precision": self.precision,
        }

    def images(self, data: EvalSet) -> ImageFeatures:
        """Features of a set's images, from the cache where it has them.

        Every process of `world` must call it, for the same set.

        Raises:
            TooManyBadSamples: more than `max_bad` images can't be decoded.
            CheckpointError: the model's features are not finite.
        """
        about = {
            "cache_version": CACHE_VERSION,
            "model": self.model.fingerprint,
            "data": data.fingerprint,
            "split": data.split,
            "preprocessing": self.preprocessing(),
        }
        folder = self.cache / fingerprint(about)
        missing = self.world.largest(int(not folder.is_dir()))
        if missing:
            parts = folder.with_name(folder.name + ".parts")
            parts.mkdir(parents=True, exist_ok=True)
            self._encode_parts(data, parts)
            self.world.barrier()
            if self.world.main:
                with _new_folder(folder) as temporary:
                    _join(parts, len(data.samples), temporary)
                    write_json(about, temporary / "key.json")
                shutil.rmtree(parts)
            self.world.barrier()
        bad = json.loads((folder / "bad.json").read_text("utf-8"))
        features = ImageFeatures(
            pre_ND=np.load(folder / "pre.npy", mmap_mode="r", allow_pickle=False),
            post_NE=np.load(folder / "post.npy", mmap_mode="r", allow_pickle=False),
            kept_N=np.load(folder / "kept.npy", allow_pickle=False),
            bad=tuple(BadSample(**entry) for entry in bad),
        )
        self._check_bad(features.bad)  # the bound may be tighter than when it was cached
        if not len(features.kept_N):
            raise TooManyBadSamples(f"{data.path}: none of {len(bad)} images can be decoded")
        return features

    def texts(self, texts: Sequence[str], show: str = "") -> Features:
        """Features of unit length, (M, E). A progress bar named `show` appears if given.

        Texts that are the same tokens are encoded once, and texts of like length together, so
        that next to no padding is computed.
        """
        tokens_ML = self.model.tokenize(texts)
        rows_UL, first = torch.unique(tokens_ML, dim=0, return_inverse=True)
        length_U = rows_UL.argmax(dim=1)
        order_U = torch.argsort(length_U, stable=True)
        out: list[Features] = []
        with _progress(show, len(order_U)) as advance, torch.inference_mode(), self._autocast():
            for chosen_B in torch.split(order_U, self.batch_size):
                longest = int(length_U[chosen_B[-1]]) + 1
                features_BE = self.model.encode_text(rows_UL[chosen_B, :longest])
                out.append(unit(_plain(features_BE, "texts")))
                advance(len(chosen_B))
        place_U = torch.empty_like(order_U)
        place_U[order_U] = torch.arange(len(order_U))
        features_ME: Features = np.concatenate(out)[place_U[first].numpy()]
        return features_ME

    def cached(self, what: list[Any], build: Callable[[], Floats]) -> Floats:
        """What depends on the checkpoint, the precision and `what` (plain values) alone: features
        of texts, a classifier."""
        key = fingerprint(["texts", CACHE_VERSION, self.model.fingerprint, self.precision, *what])
        folder = self.cache / key
        if not folder.is_dir():
            with _new_folder(folder) as temporary:
                np.save(temporary / "text.npy", build())
        found: Floats = np.load(folder / "text.npy", allow_pickle=False)
        return found

    def _autocast(self) -> torch.autocast:
        kind = PRECISIONS[self.precision]
        return torch.autocast(self.model.device.type, kind, enabled=self.precision != "fp32")

    def _encode_parts(self, data: EvalSet, parts: Path) -> None:
        """Encode the chunks of this process that are not there yet, each into one file."""
        chunks = range(self.world.rank, -(-len(data.samples) // CHUNK), self.world.size)
        mine = sum(len(data.samples[i * CHUNK : (i + 1) * CHUNK]) for i in chunks)
        bad: list[BadSample] = []
        title = f"{data.name} {data.split}: images" if self.world.main else ""
        with _progress(title, mine) as advance, ThreadPoolExecutor() as pool:
            for chunk in chunks:
                file = parts / f"{chunk:06d}.npz"
                if file.is_file():
                    bad += _bad_of(np.load(file, allow_pickle=False))
                    advance(min(CHUNK, len(data.samples) - chunk * CHUNK))
                else:
                    arrays, found = self._encode_chunk(data, chunk * CHUNK, pool, bad, advance)
                    bad += found
                    _write_part(file, arrays, found)
                self._check_bad(bad)

    def _encode_chunk(
        self,
        data: EvalSet,
        start: int,
        pool: ThreadPoolExecutor,
        before: Sequence[BadSample],
        advance: Callable[[int], None],
    ) -> tuple[dict[str, NDArray[Any]], list[BadSample]]:
        pre: list[Features] = []
        post: list[Features] = []
        kept: list[int] = []
        bad: list[BadSample] = []
        at = start
        with torch.inference_mode(), self._autocast():
            for batch in self._prepared(data.samples[start : start + CHUNK], pool):
                pixels: list[NDArray[np.uint8]] = []
                for i, made in enumerate(batch, at):
                    if isinstance(made, BadSample):
                        bad.append(made)
                    else:
                        pixels.append(made)
                        kept.append(i)
                self._check_bad([*before, *bad])
                if pixels:
                    img_BCSS = torch.from_numpy(np.stack(pixels))
                    pre_BD, post_BE = self.model.image_features(img_BCSS)
                    pre.append(_plain(pre_BD, "images"))
                    post.append(_plain(post_BE, "images"))
                at += len(batch)
                advance(len(batch))
        arrays: dict[str, NDArray[Any]] = {"kept": np.array(kept, np.int64)}
        if pre:
            arrays |= {"pre": np.concatenate(pre), "post": np.concatenate(post)}
        return arrays, bad

    def _prepared(
        self, samples: Sequence[EvalSample], pool: ThreadPoolExecutor
    ) -> Iterator[list[NDArray[np.uint8] | BadSample]]:
        """Batches of decoded pictures; the next one is decoded while one is encoded."""
        waiting: list[list[Future[NDArray[np.uint8] | BadSample]]] = []
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            waiting.append([pool.submit(self._prepare, sample) for sample in batch])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.pop(0)]
        for futures in waiting:
            yield [future.result() for future in futures]

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


def unit(features_NE: NDArray[np.floating]) -> Features:
    """Features scaled to unit length."""
    length_N1 = np.linalg.norm(features_NE, axis=1, keepdims=True)
    scaled: Features = (features_NE / np.maximum(length_N1, 1e-12)).astype(np.float32)
    return scaled


def _plain(features_BE: Tensor, what: str) -> Features:
    """Features in float32, on the CPU."""
    if not torch.isfinite(features_BE).all():
        raise CheckpointError(f"the model's features of {what} are not finite: training diverged")
    plain: Features = features_BE.float().cpu().numpy()
    return plain


def _write_part(file: Path, arrays: dict[str, NDArray[Any]], bad: Sequence[BadSample]) -> None:
    text = json.dumps([asdict(entry) for entry in bad]).encode()
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as out:
        np.savez(out, allow_pickle=False, bad=np.frombuffer(text, np.uint8), **arrays)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def _bad_of(part: Any) -> list[BadSample]:
    return [BadSample(**entry) for entry in json.loads(bytes(part["bad"]))]


def _join(parts: Path, samples: int, folder: Path) -> None:
    """Make one .npy of each kind of features out of the parts, a part in memory at a time."""
    files = [parts / f"{chunk:06d}.npz" for chunk in range(-(-samples // CHUNK))]
    kept: list[NDArray[np.int64]] = []
    bad: list[BadSample] = []
    width: dict[str, int] = {}
    for file in files:
        with np.load(file, allow_pickle=False) as part:
            kept.append(part["kept"])
            bad += _bad_of(part)
            width |= {name: part[name].shape[1] for name in ("pre", "post") if name in part}
    kept_N = np.concatenate(kept)
    assert len(kept_N) + len(bad) == samples
    np.save(folder / "kept.npy", kept_N)
    write_json([asdict(entry) for entry in bad], folder / "bad.json")
    for name in ("pre", "post"):
        shape = (len(kept_N), width.get(name, 1))
        with (folder / f"{name}.npy").open("wb") as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for file in files:
                with np.load(file, allow_pickle=False) as part:
                    if name in part:
                        out.write(part[name].tobytes())
            out.flush()
            os.fsync(out.fileno())


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
    """Lines with rate and time left on stderr; nothing without a title."""
    progress, done = Progress(title), 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if title:
            progress(done, total, "done")

    yield advance
    progress.clear()
