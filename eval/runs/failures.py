"""Pairs whose picture the model puts nearer to the captions of others than to its own.

N pairs are looked at, drawn from a few shards, so the work is bounded whatever the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from train.loaded import LoadedModel, load_model
from wit.errors import CorpusError, InputError
from wit.image import ImageError, decode
from wit.progress import Progress
from wit.shard import index_shard, read_caption, read_member, shards_folder

SHARDS = 8  # that pairs are drawn from
BATCH = 32
MAX_PIXELS = 89_478_485
NEAREST = 3  # captions that are shown


@dataclass(frozen=True)
class Pair:
    """A sample of the shards."""

    key: str
    picture: Image.Image
    text: str


@dataclass(frozen=True)
class Failure:
    """One picture.

    Attributes:
        rank: captions that are nearer than its own.
        own: cosine with its own caption.
        nearest: the nearest captions with their cosines.
    """

    pair: Pair
    rank: int
    own: float
    nearest: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Found:
    """What was seen.

    Attributes:
        n: pairs looked at.
        unusable: samples that could not be read.
        right: pictures whose nearest caption is their own, or says the same.
        failures: the others, the worst first.
    """

    n: int
    unusable: int
    right: int
    failures: tuple[Failure, ...]


def find(run: Path, shards: Path, count: int, seed: int, progress: Progress) -> Found:
    """Look among `count` pairs of a corpus or of a folder of shards.

    Raises:
        CheckpointError: the run has no checkpoint that can be read.
        InputError: no shards there, or a model that has no text features.
    """
    model = load_model(run)
    if model.predictive:
        raise InputError(f"{run}: its model predicts captions and has no features of them")
    rows = draw(shards, count, seed)
    pairs, image_NE, text_NE, unusable = _encode(model, shards_folder(shards), rows, progress)
    if len(pairs) < 2:
        raise InputError(f"{shards}: fewer than two of its samples could be used")
    cosine_NN = image_NE @ text_NE.T
    texts = [pair.text for pair in pairs]
    same_NN = np.array(texts)[:, None] == np.array(texts)[None]
    own_N = np.diag(cosine_NN).copy()
    other_NN = np.where(same_NN, -np.inf, cosine_NN)
    rank_N = (other_NN > own_N[:, None]).sum(1)
    margin_N = other_NN.max(1) - own_N
    failures = []
    for i in np.argsort(-margin_N, kind="stable"):
        if rank_N[i]:
            nearest = _distinct(texts, cosine_NN[i])
            failures.append(Failure(pairs[i], int(rank_N[i]), float(own_N[i]), nearest))
    return Found(len(pairs), unusable, int((rank_N == 0).sum()), tuple(failures))


def _distinct(texts: Sequence[str], cosine_N: npt.NDArray[Any]) -> tuple[tuple[str, float], ...]:
    """The nearest captions; one that several pairs share counts once."""
    found: dict[str, float] = {}
    for i in np.argsort(-cosine_N, kind="stable"):
        found.setdefault(texts[i], float(cosine_N[i]))
        if len(found) == NEAREST:
            break
    return tuple(found.items())


def draw(path: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the index: `count` at random, out of a few shards.

    Raises:
        InputError: no shards there.
    """
    folder = shards_folder(path)
    index, sizes = folder / "index.parquet", folder / "sizes.json"
    if index.is_file() and sizes.is_file():
        names = sorted(json.loads(sizes.read_bytes()))
    else:
        names = sorted(tar.name for tar in folder.glob("*.tar")) if folder.is_dir() else []
    if not names:
        raise InputError(f"{path}: no shards here; give a corpus or a folder with *.tar files")
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(names), min(SHARDS, len(names)), replace=False).tolist())
    if index.is_file() and sizes.is_file():
        wanted = pc.field("shard").isin([names[i] for i in chosen])
        rows = pq.read_table(index, filters=wanted).to_pylist()
    else:
        rows = [row for i in chosen
                for row in index_shard(folder / names[i], lambda _: None).to_pylist()]  # fmt: skip
    places = rng.permutation(len(rows))[:count]
    return [rows[i] for i in sorted(places.tolist())]


def _encode(
    model: LoadedModel, folder: Path, rows: Sequence[dict[str, Any]], progress: Progress
) -> tuple[list[Pair], npt.NDArray[Any], npt.NDArray[Any], int]:
    pairs: list[Pair] = []
    images, texts = [], []
    for start in range(0, len(rows), BATCH):
        batch = [pair for row in rows[start : start + BATCH] if (pair := _read(folder, row))]
        if batch:
            img_BCSS = torch.stack([model.preprocess(pair.picture) for pair in batch])
            images.append(model.encode_image(img_BCSS, normalize=True).cpu().numpy())
            tokens_BL = model.tokenize([pair.text for pair in batch])
            texts.append(model.encode_text(tokens_BL, normalize=True).cpu().numpy())
            pairs += batch
        progress(start + len(rows[start : start + BATCH]), len(rows), "pairs")
    empty = [np.empty((0, model.embed_dim), np.float32)]
    return (
        pairs,
        np.concatenate(empty + images),
        np.concatenate(empty + texts),
        len(rows) - len(pairs),
    )


def _read(folder: Path, row: dict[str, Any]) -> Pair | None:
    try:
        with (folder / row["shard"]).open("rb") as file:
            data = read_member(file, row["offset"], row["size"])
            text = read_caption(
                row["text_ext"], read_member(file, row["text_offset"], row["text_size"])
            )
        return Pair(row["key"], decode(data, MAX_PIXELS), text)
    except (OSError, CorpusError, ImageError, ValueError):
        return None
