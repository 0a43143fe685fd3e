"""The functions that SQL takes from Python, over whole Arrow columns: clean, words, language."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType

from pipeline.language import model
from wit.errors import ConfigError
from wit.text import clean_caption, words

LANGUAGE_TYPE = "STRUCT(language VARCHAR, probability DOUBLE)"


def clean_captions(texts: pa.ChunkedArray) -> pa.Array:
    """`clean_caption` over a column of strings."""
    return pa.array([clean_caption(text) for text in texts.to_pylist()], pa.string())


def caption_words(texts: pa.ChunkedArray) -> pa.Array:
    """`words` over a column of strings, joined by one space."""
    return pa.array([" ".join(words(text)) for text in texts.to_pylist()], pa.string())


def languages(texts: pa.ChunkedArray) -> pa.Array:
    """The most likely language of each string and its probability (py3langid), or null.

    The probabilities are py3langid's, tempered by length, so a short caption is never sure of
    anything. Rounded, since their last digits depend on the CPU.
    """
    found = [
        {"language": language, "probability": round(probability, 4)}
        for language, probability in model().classify(texts.to_pylist())
    ]
    kind = pa.struct([("language", pa.string()), ("probability", pa.float64())])
    return pa.array(found, kind)


def alike(bags: pa.ChunkedArray, thresholds: pa.ChunkedArray) -> pa.Array:
    """Which captions of a URL give way, and to which.

    `bags` holds, for each URL, the distinct words of its captions, the best caption first. A
    caption gives way to the first that stays and with which it shares at least the threshold of
    their common words (Jaccard). Likeness doesn't carry over: a caption never gives way along a
    chain. Returns for each caption the place, from 1, of the one that stays for it.
    """
    found = []
    for captions, threshold in zip(bags.to_pylist(), thresholds.to_pylist(), strict=True):
        words_of = [frozenset(caption.split(" ")) for caption in captions]
        kept: list[int] = []
        answer = []
        for place, own in enumerate(words_of):
            like = (k for k in kept if len(own & words_of[k]) >= threshold * len(own | words_of[k]))
            stays = next(like, place)
            if stays == place:
                kept.append(place)
            answer.append(stays + 1)
        found.append(answer)
    return pa.array(found, pa.list_(pa.int32()))


def check_languages(wanted: Sequence[str]) -> None:
    """Refuse a language code that `languages` never returns.

    Raises:
        ConfigError: naming the code.
    """
    known = sorted(set(model().codes))
    for code in wanted:
        if code not in known:
            raise ConfigError(f"text.languages: unknown code {code!r}: use {', '.join(known)}")


def register(con: duckdb.DuckDBPyConnection) -> None:
    """Make the functions known to a connection; null in, null out."""
    for name, function, given, result in (
        ("clean_caption", clean_captions, ["VARCHAR"], "VARCHAR"),
        ("caption_words", caption_words, ["VARCHAR"], "VARCHAR"),
        ("caption_language", languages, ["VARCHAR"], LANGUAGE_TYPE),
        ("alike", alike, ["VARCHAR[]", "DOUBLE"], "INTEGER[]"),
    ):
        con.create_function(name, function, given, result, type=PythonUDFType.ARROW)
