"""A checkpoint that was understood but not read yet, whatever its format."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from train.config import ModelConfig
from train.interchange.entries import Entries, read_json
from train.model.pixels import MEAN, STD
from wit.config import fingerprint
from wit.errors import CheckpointError, InputError
from wit.tokenizer import Tokenizer

Activation = Literal["gelu", "quick_gelu"]
PUBLISHED_VOCAB = 49_408
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """The evaluation transform: bicubic resize of the shorter side, centre square, normalised.

    Attributes:
        size: side of the square, in pixels.
        mean, std: of the three channels, of values from 0 to 1.
    """

    size: int
    mean: Triple = MEAN
    std: Triple = STD


@dataclass(frozen=True)
class Weights:
    """What `train.load_model` makes a model of.

    Attributes:
        source: format of the file, and how its activation was decided, for people.
        path: the file or folder that messages name.
        config: dimensions of the towers.
        entries: the tensors under the published names, unread.
        tokenizer: its vocabulary.
        preprocess: the transform of its pictures.
        step: steps it was trained for; 0 where the file doesn't say.
        identity: plain values that are equal for equal weights, vocabulary and config.
    """

    source: str
    path: Path
    config: ModelConfig
    entries: Entries
    tokenizer: Tokenizer
    preprocess: Preprocess
    step: int
    identity: list[Any]


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def vocabulary(given: str | None, folder: Path | None, size: int, path: Path) -> Tokenizer:
    """The tokenizer that was asked for, or of the folder, or the published one.

    Args:
        given: "openai" or the path of a vocabulary; None: what belongs to the checkpoint.
        folder: where tokenizer.json, or vocab.json with merges.txt, may lie.
        size: ids that the checkpoint has embeddings for.

    Raises:
        CheckpointError: the vocabulary has another size or another layout than CLIP's.
    """
    if given is not None:
        tokenizer = Tokenizer.load(given)
    elif folder is not None and (folder / "tokenizer.json").is_file():
        model = read_json(folder / "tokenizer.json").get("model")
        model = model if isinstance(model, dict) else {}
        tokenizer = _of_merges(model.get("merges"), model.get("vocab"), folder / "tokenizer.json")
    elif folder is not None and (folder / "merges.txt").is_file():
        lines = (folder / "merges.txt").read_text("utf-8").splitlines()
        merges = [line for line in lines if line and not line.startswith("#version")]
        tokenizer = _of_merges(merges, read_json(folder / "vocab.json"), folder / "merges.txt")
    elif size == PUBLISHED_VOCAB:
        tokenizer = Tokenizer.load("openai")
    else:
        raise CheckpointError(
            f"{path}: has {size:,} ids and brings no vocabulary, and the published one has"
            f" {PUBLISHED_VOCAB:,}; give the file of its merges as vocab"
        )
    if tokenizer.vocab_size != size:
        raise CheckpointError(
            f"{path}: has embeddings of {size:,} ids, its vocabulary has {tokenizer.vocab_size:,}"
        )
    return tokenizer


def digest(tokenizer: Tokenizer) -> str:
    """16 hex digits that are equal for equal vocabularies."""
    return fingerprint(words(tokenizer)["merges"])


def words(tokenizer: Tokenizer) -> dict[str, Any]:
    """`vocab` (token to id) and `merges` (pairs in order) of a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(path)
        model: dict[str, Any] = json.loads(path.read_text("utf-8"))["model"]
    return model


def _of_merges(merges: Any, vocab: Any, path: Path) -> Tokenizer:
    """A tokenizer from another's merges, if they give each token the id that it has there."""
    if not isinstance(merges, list) or not isinstance(vocab, dict):
        raise CheckpointError(f"{path}: not a byte-pair vocabulary")
    lines = _lines(merges, path)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "merges.txt"
        own.write_text("#version: 0.2\n" + "\n".join(lines), "utf-8")
        try:
            tokenizer = Tokenizer.load(own)
        except InputError as error:
            reason = str(error).partition(": ")[2]
            raise CheckpointError(f"{path}: not CLIP's kind of vocabulary: {reason}") from None
    if words(tokenizer)["vocab"] != vocab:
        raise CheckpointError(f"{path}: its ids are not in CLIP's order; give another as vocab")
    return tokenizer


def _lines(merges: Iterable[Any], path: Path) -> list[str]:
    lines = [merge if isinstance(merge, str) else " ".join(map(str, merge)) for merge in merges]
    if any("\n" in line for line in lines):
        raise CheckpointError(f"{path}: a merge with a line break")
    return lines
