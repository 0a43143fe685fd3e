"""The tokenizer beside open_clip's and instant-clip-tokenizer: the same ids, how much faster?

    python bench/tokenizer.py [--captions FILE.parquet --column text] [--rows 100000] [--json]

CPU seconds of one thread, context 77, the published vocabulary, batches of 10,000. Captions repeat
words as real ones do; without a file they are made-up words drawn by Zipf's law, one caption in ten
with marks outside ASCII. "again" is ours with the words already seen, as in a long run. Vocabulary
training learns up to 49,408 ids from the same captions. The bench stops if an id differs.
"""

from __future__ import annotations

import os

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from instant_clip_tokenizer import Tokenizer as Instant
from rich.console import Console
from rich.table import Table

from wit.tokenizer import Tokenizer

AT_ONCE = 10_000
MARKS = ("café", "“quoted”", "naïve", "東京", "🐕", "señor", "&amp;", "–")


def open_clip_tokenizer() -> Callable[[list[str], int], Any]:
    """open_clip's SimpleTokenizer, its module loaded alone: the package itself needs timm."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("needs open_clip: pip install --no-deps open_clip_torch")
    path = Path(spec.submodule_search_locations[0]) / "tokenizer.py"
    module_spec = importlib.util.spec_from_file_location("open_clip_tokenizer_alone", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    tokenizer: Callable[[list[str], int], Any] = module.SimpleTokenizer()
    return tokenizer


def drawn_captions(rows: int) -> list[str]:
    """Captions of 4 to 20 words, some of 50,000 made-up words being much more frequent."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, n)) for n in rng.integers(2, 11, 50_000)]
    captions = []
    for length in rng.integers(4, 21, rows):
        chosen = [words[i] for i in np.minimum(rng.zipf(1.3, length), len(words)) - 1]
        if rng.random() < 0.1:
            chosen.append(MARKS[rng.integers(len(MARKS))])
        captions.append(" ".join(chosen).capitalize() + ".")
    return captions


def per_second(encode: Callable[[list[str]], object], captions: list[str]) -> float:
    started = time.process_time()
    for at in range(0, len(captions), AT_ONCE):
        encode(captions[at : at + AT_ONCE])
    return len(captions) / (time.process_time() - started)


def measure(captions: list[str]) -> dict[str, float]:
    ours, theirs, instant = Tokenizer.load("openai"), open_clip_tokenizer(), Instant()
    for at in range(0, len(captions), AT_ONCE):
        part = captions[at : at + AT_ONCE]
        expected_NL = theirs(part, 77).numpy()
        differing = (ours.encode(part, 77) != expected_NL).any(axis=1)
        if differing.any():
            sys.exit(f"other ids than open_clip's: {part[int(differing.argmax())]!r}")
    fresh = Tokenizer.load("openai")
    found = {
        "captions": len(captions),
        "ours": per_second(lambda part: fresh.encode(part, 77), captions),
        "ours_again": per_second(lambda part: fresh.encode(part, 77), captions),
        "open_clip": per_second(lambda part: theirs(part, 77), captions),
        "instant": per_second(
            lambda part: instant.tokenize_batch(part, context_length=77), captions
        ),
    }
    found["ratio_open_clip"] = found["ours_again"] / found["open_clip"]
    found["ratio_open_clip_first"] = found["ours"] / found["open_clip"]
    found["ratio_instant"] = found["ours_again"] / found["instant"]
    started = time.process_time()
    found["vocab_size"] = Tokenizer.train(captions, 49_408).vocab_size
    found["trained_captions_per_minute"] = 60 * len(captions) / (time.process_time() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", type=Path, help="a Parquet file")
    parser.add_argument("--column", default="text", help="its column of strings, or lists of them")
    parser.add_argument("--rows", type=int, default=100_000, help="at most")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    if options.captions:
        values = pq.read_table(options.captions, columns=[options.column])[0].to_pylist()
        lists = [[value] if isinstance(value, str) else value or [] for value in values]
        captions = [text for texts in lists for text in texts][: options.rows]
    else:
        captions = drawn_captions(options.rows)
    found = measure(captions)
    table = Table(title="captions per CPU second, one thread", title_justify="left")
    table.add_column("tokenizer")
    for column in ("captions/s", "ours is"):
        table.add_column(column, justify="right")
    names = {"ours": "ours, new words", "ours_again": "ours, again"}
    for key in ("ours", "ours_again", "instant", "open_clip"):
        ratio = found["ours_again"] / found[key]
        table.add_row(names.get(key, key), f"{found[key]:,.0f}", f"{ratio:.2f} x")
    console = Console()
    console.print(table)
    console.print(
        f"training {found['vocab_size']:,} ids: {found['trained_captions_per_minute']:,.0f}"
        " captions a minute"
    )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
