"""Search by features: a text, a dropped picture or a pair to the nearest pictures or captions.

E dimensions of the shared space, N samples of the corpus.
"""

from __future__ import annotations

import base64
import binascii
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from eval.browse.pictures import Pictures
from eval.browse.reader import Reader
from eval.browse.vectors import Floats, Vectors, features_of
from train.classify_command import classify
from train.embed_sources import Item
from wit.errors import InputError
from wit.image import ImageError, decode
from wit.schema import REASONS

if TYPE_CHECKING:
    from train.loaded import LoadedModel

Target = Literal["images", "captions"]
TARGETS: tuple[Target, ...] = ("images", "captions")
MOST_LABELS = 100
DECODED = 2  # dropped pictures in memory at once: each may be one of --max_pixels


class Nearest:
    """A model with the features of a corpus.

    Args:
        name: of the checkpoint, to be shown.
        state: of the corpus.
        options: of the embedding: model, batch_size, threads, max_pixels.
        max_bytes: of a picture that is dropped on the page.

    Raises:
        InputError: the model has no text features.
    """

    def __init__(
        self,
        model: LoadedModel,
        name: str,
        corpus: Path,
        state: str,
        reader: Reader,
        pictures: Pictures,
        options: dict[str, Any],
        max_bytes: int,
    ) -> None:
        if model.predictive:
            raise InputError(f"{name}: was trained to predict captions and has no text features")
        self.model, self.name = model, name
        self.max_pixels, self.max_bytes = int(options["max_pixels"]), max_bytes
        self._lock = threading.Lock()  # one forward pass at a time
        self._dropped = threading.BoundedSemaphore(DECODED)
        row_M, key_M = reader.samples()
        self.vectors: dict[Target, Vectors] = {}
        self.row_N: dict[Target, Any] = {}
        for what in TARGETS:

            def samples(what: Target = what) -> list[Item]:
                return _samples(what, reader, pictures)

            vectors = features_of(model, options, corpus, state, what, samples)
            self.vectors[what] = vectors
            self.row_N[what] = row_M[np.searchsorted(key_M, vectors.key_N.astype("S"))]

    def about(self) -> dict[str, Any]:
        """What the page says of the model."""
        return {"name": self.name, "step": self.model.step, "source": self.model.source}

    def query(self, mode: Any, asked: dict[str, Any], pictures: Pictures) -> Floats:
        """What is searched for as a feature (E,) of length 1.

        Raises:
            InputError: nothing that can be searched for.
        """
        if mode == "text":
            text = asked.get("text")
            if not isinstance(text, str) or not text.strip():
                raise InputError("write what the pictures should show")
            with self._lock:
                found_1E = self.model.encode_text(self.model.tokenize([text]), normalize=True)
            return _plain(found_1E)
        if mode == "image":
            with self._dropped:
                return self._feature(self.read(asked))
        if mode == "like":
            key = str(asked.get("key", ""))
            if pictures.place(key) is None:
                raise InputError("this pair has no picture in the corpus")
            by: Target = "captions" if asked.get("by") == "caption" else "images"
            found_E = self.vectors[by].of_key(key)
            if found_E is None:
                raise InputError("this pair has no features")
            return _unit(found_E)
        raise InputError(f"there is no search by {str(mode)[:40]}")

    def rows(self, query_E: Floats, target: Target, count: int, allowed: Any) -> dict[int, float]:
        """The nearest rows with their cosines, the nearest first.

        Args:
            allowed: rows that may be found; None: all.
        """
        vectors, row_N = self.vectors[target], self.row_N[target]
        allowed_N = None
        if allowed is not None:
            passes = np.zeros(int(max(row_N.max(initial=0), allowed.max(initial=0))) + 1, bool)
            passes[allowed] = True
            allowed_N = passes[row_N]
        place_K, cosine_K = vectors.nearest(query_E, count, allowed_N)
        pairs = zip(row_N[place_K].tolist(), cosine_K.tolist(), strict=True)
        return {row: round(cosine, 4) for row, cosine in pairs}

    def classify(self, asked: dict[str, Any], labels: list[str], template: str) -> dict[str, Any]:
        """Probabilities of labels for a picture, the best first.

        Raises:
            InputError: fewer than two labels, too many, a template without {c}, no picture.
        """
        names = list(dict.fromkeys(name.strip() for name in labels if name.strip()))
        if not 2 <= len(names) <= MOST_LABELS:
            raise InputError(f"give 2 to {MOST_LABELS} different labels")
        if max(map(len, names)) > 400:
            raise InputError("a label is longer than 400 characters")
        if "{c}" not in template:
            raise InputError("write {c} in the template where the label belongs")
        with self._dropped:
            picture = self.read(asked)
            with self._lock:
                (found,) = classify(self.model, [picture], names, [template])
            return {"labels": found, "width": picture.width, "height": picture.height}

    def read(self, asked: dict[str, Any]) -> Image.Image:
        """A picture that was dropped on the page, decoded as carefully as one of the web.

        Raises:
            InputError: no picture, or one over the caps.
        """
        try:
            data = base64.b64decode(str(asked.get("picture", "")), validate=True)
        except binascii.Error:
            raise InputError("the picture did not arrive whole: drop it again") from None
        if not data:
            raise InputError("drop a picture first")
        if len(data) > self.max_bytes:
            raise InputError(f"the picture has more than {self.max_bytes:,} bytes")
        try:
            return decode(data, self.max_pixels)
        except ImageError as error:
            raise InputError(f"not a picture that can be used: {REASONS[error.reason]}") from None

    def _feature(self, picture: Image.Image) -> Floats:
        ready_1CSS = self.model.preprocess(picture)[None]
        with self._lock:
            return _plain(self.model.encode_image(ready_1CSS, normalize=True))


def _samples(what: Target, reader: Reader, pictures: Pictures) -> list[Item]:
    """The pairs in the shards, in the order of their keys, as `wit embed` takes them."""
    found = []
    for line in reader.rows("browse_samples.sql"):
        place = pictures.where(line["key"])
        if place is None:
            continue
        if what == "captions":
            found.append(Item(line["key"], place[0], text=line["text"]))
        else:
            found.append(Item(line["key"], *place))
    return found


def _plain(found_1E: Any) -> Floats:
    return _unit(found_1E[0].float().cpu().numpy())


def _unit(feature_E: Floats) -> Floats:
    scaled: Floats = feature_E / max(float(np.linalg.norm(feature_E)), 1e-12)
    return scaled
