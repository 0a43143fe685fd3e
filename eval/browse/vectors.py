"""The nearest pictures or captions of a corpus to a feature, in a few milliseconds of a million.

Features are made once by the code of `wit embed`, beside the corpus and by part, so a killed run
goes on. Up to `EXACT` of them are compared one by one. More are sorted by FAISS into cells around
centres (IVF), 8 bits a number; the best candidates of the nearest cells are then compared again by
their own features. The folder is named by checkpoint and manifest, so nothing stale is read.

N features, E dimensions, K candidates.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.catalogue import INDEXES
from train.embed import MANIFEST, embed
from train.embed_command import EmbedConfig
from train.embed_sources import Item, What
from wit.config import fingerprint
from wit.errors import MissingExtra
from wit.progress import Progress, duration

if TYPE_CHECKING:
    from train.loaded import LoadedModel

EXACT = 50_000  # features that are compared one by one
CELLS = 2  # times the root of N
TRAIN = 40  # features a centre is made of
PROBES = 48  # cells that are looked into
AGAIN = 8  # candidates for each wanted result that are compared again
BLOCK = 16_384  # features read at a time

Floats = NDArray[np.float32]
Places = NDArray[np.int64]


class Vectors:
    """Features of one kind of a corpus.

    Args:
        folder: of parts as `wit embed --format npy` leaves them; the index is kept in it too.

    Attributes:
        key_N: keys of the samples, sorted, as their features are.
    """

    def __init__(self, folder: Path) -> None:
        parts = [path for path in sorted(folder.glob("*.parquet")) if path.stem.isdigit()]
        keys = [pq.read_table(path, columns=["key"])["key"] for path in parts]
        self.key_N = np.array(pa.concat_arrays([c for k in keys for c in k.chunks]).to_pylist())
        self._parts = [
            np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False) for path in parts
        ]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._all_NE: Floats | None = None
        self._index: Any = None
        if len(self.key_N) <= EXACT:
            self._all_NE = self.take(np.arange(len(self.key_N)))
        else:
            self._index = _index(folder / "ivf.faiss", self)

    def __len__(self) -> int:
        return len(self.key_N)

    def of_key(self, key: str) -> Floats | None:
        """The feature (E,) of a sample; None where there is none."""
        i = int(np.searchsorted(self.key_N, key))
        there = i < len(self) and self.key_N[i] == key
        return self.take(np.array([i]))[0] if there else None

    @property
    def width(self) -> int:
        """E."""
        return int(self._parts[0].shape[1])

    def take(self, place_K: Places) -> Floats:
        """Features (K, E) by place."""
        out_KE = np.empty((len(place_K), self.width), np.float32)
        part_K = np.searchsorted(self._starts, place_K, side="right") - 1
        for part in np.unique(part_K):
            mine_K = part_K == part
            out_KE[mine_K] = self._parts[part][place_K[mine_K] - self._starts[part]]
        return out_KE

    def nearest(
        self, query_E: Floats, count: int, allowed_N: NDArray[np.bool_] | None = None
    ) -> tuple[Places, Floats]:
        """Places and cosines of the nearest, the nearest first.

        Args:
            query_E: of length 1.
            allowed_N: which may be found; None: all.
        """
        if self._all_NE is not None:
            place_K = np.arange(len(self)) if allowed_N is None else np.flatnonzero(allowed_N)
            near_KE = self._all_NE if allowed_N is None else self._all_NE[place_K]
        elif allowed_N is not None and allowed_N.sum() <= EXACT:
            place_K = np.flatnonzero(allowed_N)
            near_KE = self.take(place_K)
        else:
            place_K = self._candidates(query_E, AGAIN * count, allowed_N)
            near_KE = self.take(place_K)
        cosine_K = near_KE @ query_E
        top_K = np.argsort(-cosine_K, kind="stable")[:count]
        return place_K[top_K], cosine_K[top_K]

    def _candidates(
        self, query_E: Floats, count: int, allowed_N: NDArray[np.bool_] | None
    ) -> Places:
        faiss = _faiss()
        bits = None if allowed_N is None else np.packbits(allowed_N, bitorder="little")
        chosen = None if bits is None else faiss.IDSelectorBitmap(bits)
        params = faiss.SearchParametersIVF(sel=chosen, nprobe=PROBES)
        _, place_1K = self._index.search(query_E[None], count, params=params)
        found: Places = np.sort(place_1K[0][place_1K[0] >= 0])
        return found


def features_of(
    model: LoadedModel,
    options: dict[str, Any],
    corpus: Path,
    state: str,
    what: What,
    list_samples: Callable[[], list[Item]],
) -> Vectors:
    """The features of a corpus' pictures or captions, made where they are not there yet.

    Args:
        options: of `EmbedConfig`: model, batch_size, threads, max_pixels.
        state: of the corpus (`state_of`).
        list_samples: gives the samples in the order of their keys, where they are needed.
    """
    top = corpus / INDEXES
    for stale in top.glob("features-*"):
        if not stale.name.startswith(f"features-{state}-"):
            shutil.rmtree(stale)
    held_out = ["val"] if (corpus / "val").is_dir() else []  # once these had no features
    made_by = fingerprint([model.fingerprint, options["max_pixels"], *held_out])
    folder = top / f"features-{state}-{made_by}" / what
    if not (folder / MANIFEST).is_file():
        config = EmbedConfig(
            input=corpus, out=folder, what=what, format="npy", dtype="float16", **options
        )
        embed(model, list_samples(), what, config)
    return Vectors(folder)


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "browse") from None
    return faiss


def _index(path: Path, vectors: Vectors) -> Any:
    """The IVF index of features, from its file or built and kept there."""
    faiss = _faiss()
    if path.is_file():
        return faiss.read_index(str(path))
    n, progress = len(vectors), Progress("vectors")
    cells = 2 ** round(np.log2(CELLS * np.sqrt(n)))
    centres = faiss.IndexFlatIP(vectors.width)
    index = faiss.IndexIVFScalarQuantizer(
        centres, vectors.width, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    print(f"{'vectors':<14} {cells:,} centres of {n:,} features", file=sys.stderr)
    index.cp.niter = 8  # centres need not be perfect: candidates are compared again
    chosen = np.random.default_rng(0).choice(n, min(n, TRAIN * cells), replace=False)
    index.train(vectors.take(np.sort(chosen)))
    for start in range(0, n, BLOCK):
        index.add(vectors.take(np.arange(start, min(n, start + BLOCK))))
        progress(min(n, start + BLOCK), n, "features")
    temporary = path.with_name(path.name + ".tmp")
    faiss.write_index(index, str(temporary))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    progress.finish(f"{n:,} features in {cells:,} cells in {duration(progress.seconds)}")
    return index
