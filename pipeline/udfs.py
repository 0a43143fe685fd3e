"""The functions that SQL takes from Python, over whole Arrow columns: clean, words, language."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from wit.errors import ConfigError
from wit.text import clean_caption, words

_LONGEST = 500  # characters that the language is judged by
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
    identify = _identifier().classify
    found = [
        {"language": language, "probability": round(probability, 4)}
        for language, probability in (identify(text[:_LONGEST]) for text in texts.to_pylist())
    ]
    kind = pa.struct([("language", pa.string()), ("probability", pa.float64())])
    return pa.array(found, kind)


def check_languages(wanted: Sequence[str]) -> None:
    """Refuse a language code that `languages` never returns.

    Raises:
        ConfigError: naming the code.
    """
    known = sorted(_identifier().labels)
    for code in wanted:
        if code not in known:
            raise ConfigError(f"text.languages: unknown code {code!r}: use {', '.join(known)}")


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def register(con: duckdb.DuckDBPyConnection) -> None:
    """Make the functions known to a connection; null in, null out."""
    for name, function, result in (
        ("clean_caption", clean_captions, "VARCHAR"),
        ("caption_words", caption_words, "VARCHAR"),
        ("caption_language", languages, LANGUAGE_TYPE),
    ):
        con.create_function(name, function, ["VARCHAR"], result, type=PythonUDFType.ARROW)
