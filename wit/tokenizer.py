"""CLIP's byte-pair encoding: load, train, save, encode (Radford et al. 2021, section 2.4).

The text is cleaned and lower-cased, split by the published pattern, spelled in a byte alphabet,
and merged pair by pair; the last symbol of a word carries `</w>`. Ids are laid out as published:
256 bytes, 256 bytes with `</w>`, the merges in order, start, end. The splitting and merging run in
the `tokenizers` library, once per word: no token crosses white space, so ids of words seen before
come from a table. Cleaning is the published one and not `wit.text.clean_caption`, because
token ids must equal those that published models were trained with.

One departure: the words `<|startoftext|>` and `<|endoftext|>` inside a caption are spelled out as
plain text. Captions come from strangers, and an end token in the middle would hide the rest.
Characters newer than Unicode 14 may be split differently from Python's `regex` package.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from wit.errors import ConfigError, InputError

START, END = "<|startoftext|>", "<|endoftext|>"
# The published pattern ignores case. That touches the contractions, and U+0345, a mark that folds
# to a letter: Python's `regex` finds it neither inside nor outside \p{L}, and so drops it.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{0345}]+"
SUFFIX = "</w>"
CONTEXT_LENGTH = 77
SMALLEST_VOCABULARY = 2 * 256 + 2
PUBLISHED_FILE = "bpe_simple_vocab_16e6.txt.gz"
PUBLISHED_MERGES = 49_408 - SMALLEST_VOCABULARY  # the file holds more than CLIP uses
PUBLISHED_PACKAGES = ("open_clip", "clip")
LARGEST_FILE = 1 << 26  # bytes of a vocabulary, unpacked: ten times the largest in use
ID_BYTES = 4
MOST_WORDS, LONGEST_WORD = 1 << 18, 64  # what the table of words keeps: at most about 100 MB

_ENTITY = re.compile(r"&[^ ]")
# Letters and marks that, apart from each other, are never mojibake to ftfy. It takes ten times as
# long as all the rest, and most captions need at most their quotes made straight.
_CALM = "áâäåæçèéêëíîïñóôöøùúûüßÅÄÉÖØÜ–—…•°£€®©™·‘’‚‛“”„‟"
# Han, kana, Hangul and emoji are in none of the encodings that ftfy undoes, and are composed.
_PLAIN = " -~\u4e00-\u9fff\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3\U0001f300-\U0001faff"
_NEEDS_NO_MENDING = re.compile(rf"[{_CALM}]?+(?:[{_PLAIN}]++[{_CALM}]?+)*+")
_STRAIGHT = str.maketrans("‘’‚‛“”„‟", "''''\"\"\"\"")


def clean(text: str) -> str:
    """The published cleaning: mend mojibake, unescape HTML twice, one space, lower case."""
    return " ".join(_words(text))


def _words(text: str) -> list[str]:
    """`clean`, cut at white space."""
    if _ENTITY.search(text) or not _NEEDS_NO_MENDING.fullmatch(text):
        text = ftfy.fix_text(text)
        if "&" in text:
            text = html.unescape(html.unescape(text))
        text = " ".join(text.split())
    elif not text.isascii():
        text = text.translate(_STRAIGHT)
    return text.lower().split()


class _Table(dict[str, bytes]):
    """Ids of words, as the bytes of an int32 array, since bytes are joined at once: made when
    first asked for, forgotten all at once when there are too many."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __missing__(self, word: str) -> bytes:
        ids = np.array(self._engine.encode(word, add_special_tokens=False).ids, np.int32).tobytes()
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte, in the published order of ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


class Tokenizer:
    """Captions to token ids and back.

    Attributes:
        vocab_size: number of ids, start and end included.
        sot, eot: ids of the start and end tokens; `eot` is the largest id.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._table = engine, _Table(engine)
        self.vocab_size: int = engine.get_vocab_size()
        self.sot, self.eot = self.vocab_size - 2, self.vocab_size - 1

    @classmethod
    def load(cls, source: str | Path) -> Tokenizer:
        """Load "openai" (the published merges, from an installed package) or a file.

        A file is either what `save` wrote (`.json`; only its merges are used) or a list of merges
        in the published form (`.txt`, `.txt.gz`).

        Raises:
            ConfigError: "openai", and no installed package holds the merges.
            InputError: the file is missing or is of another form.
        """
        path = _published_path() if source == "openai" else Path(source)
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                raw = file.read(LARGEST_FILE + 1)
            if len(raw) > LARGEST_FILE:
                raise ValueError(f"larger than {LARGEST_FILE >> 20} MiB")
            text = raw.decode("utf-8")
            pairs = _pairs_of_json(text) if path.suffix == ".json" else _pairs_of_lines(text)
        except FileNotFoundError:
            raise InputError(f"{path}: no such vocabulary; check the path") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
            raise InputError(f"{path}: not a vocabulary: {error}") from None
        return cls(_engine(_checked(pairs, path)))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn merges from captions; a small corpus may yield fewer ids than `vocab_size`.

        The result depends on the captions alone, not on threads or hash seeds: all symbols get
        their ids before the first word is counted.

        Raises:
            ConfigError: `vocab_size` is smaller than the byte alphabet needs.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise ConfigError(
                f"vocab_size = {vocab_size} is out of range: the bytes alone need"
                f" {SMALLEST_VOCABULARY}"
            )
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            special_tokens=_symbols(),
            end_of_word_suffix=SUFFIX,
            show_progress=False,
        )
        learner = _engine([])
        learner.train_from_iterator((clean(text) for text in texts), trainer)
        merges = json.loads(learner.to_str())["model"]["merges"]
        return cls(_engine([(left, right) for left, right in merges]))

    def save(self, path: Path) -> None:
        """Write the tokenizer as one JSON file of the tokenizers library."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(self._engine.to_str(), "utf-8")
        temporary.replace(path)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without start, end and truncation."""
        joined = (b"".join(map(self._table.__getitem__, _words(text))) for text in texts)
        return [np.frombuffer(ids, np.int32).tolist() for ids in joined]

    def encode(
        self, texts: Sequence[str], context_length: int = CONTEXT_LENGTH
    ) -> npt.NDArray[np.int32]:
        """Token ids as an int32 array (N, context_length): start, text, end, zeros.

        A text that is too long is cut; its last id is then the end token.
        """
        of_word, most = self._table.__getitem__, ID_BYTES * (context_length - 2)
        parts = [b"".join(map(of_word, _words(text)))[:most] for text in texts]
        length_N1 = np.array([len(part) // ID_BYTES + 1 for part in parts], np.int64)[:, None]
        at_L = np.arange(context_length)
        out_NL = np.zeros((len(texts), context_length), np.int32)
        out_NL[:, 0] = self.sot
        out_NL[(at_L > 0) & (at_L < length_N1)] = np.frombuffer(b"".join(parts), np.int32)
        out_NL[at_L == length_N1] = self.eot
        return out_NL

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, up to the first end token; words apart by one space."""
        words = []
        for token in ids:
            if token == self.eot:
                break
            if token != self.sot:
                words.append(self._engine.id_to_token(int(token)) or "")
        to_byte = {symbol: byte for byte, symbol in byte_alphabet().items()} | {" ": 0x20}
        spelled = "".join(words).replace(SUFFIX, " ")
        return bytes(to_byte[symbol] for symbol in spelled).decode("utf-8", "replace").strip()


def _symbols() -> list[str]:
    alphabet = list(byte_alphabet().values())
    return alphabet + [symbol + SUFFIX for symbol in alphabet]


def _engine(merges: list[tuple[str, str]]) -> Engine:
    """The Rust tokenizer for these merges, ids in the published order."""
    tokens = [*_symbols(), *(left + right for left, right in merges), START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    engine = Engine(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=SUFFIX))
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return engine


def _published_path() -> Path:
    for package in PUBLISHED_PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder) / PUBLISHED_FILE).is_file():
                return path
    raise ConfigError(
        f"vocab = openai needs {PUBLISHED_FILE}: run `pip install --no-deps open_clip_torch`,"
        " or give the path of that file as --vocab"
    )


def _pairs_of_lines(text: str) -> list[tuple[str, str]]:
    """Merges from lines `left right`; the first line of the published file is its version."""
    lines = text.splitlines()
    body = lines[1:] if lines and "version" in lines[0] else lines
    return [(left, right) for left, right in (line.split(" ") for line in body[:PUBLISHED_MERGES])]


def _pairs_of_json(text: str) -> list[tuple[str, str]]:
    return [(left, right) for left, right in json.loads(text)["model"]["merges"]]


def _checked(merges: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    """Every merge joins symbols that exist by then, into one that doesn't."""
    known = set(_symbols())
    for number, (left, right) in enumerate(merges, 1):
        if left not in known or right not in known or left + right in known:
            raise InputError(
                f"{path}: merge {number} ({left[:20]!r} {right[:20]!r}) doesn't join known symbols"
                " into a new one"
            )
        known.add(left + right)
    return merges
