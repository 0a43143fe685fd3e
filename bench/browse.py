"""Search of `wit browse` beside a look at every row: how many milliseconds, and how much is found?

    python bench/browse.py [--rows 1000000] [--dim 512] [--part words|vectors] [--json]

Milliseconds of the wall clock, the middle of repeated questions, on as many cores as there are;
each answer is one page of 48 pairs. Captions are made-up words drawn by Zipf's law, so that the
commonest stands in more than every second one. Words and filters stand beside DuckDB's scan of all
captions (`contains`), on the same connection. Features are drawn around 20,000 centres in 64
dimensions and turned into 512 with noise; FAISS behind `eval.browse.vectors` stands beside one
product of all features with the query in numpy, which holds them in memory as fp32. "recall" is the
share of the 10 nearest by numpy that are the first 10 of ours. "few allowed" is a filter that
20,000 pairs pass, "half allowed" one that every second passes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before bench/eval.py

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from eval.browse.postings import postings
from eval.browse.reader import Reader
from eval.browse.vectors import Vectors
from pipeline.config import EngineConfig

PAGE = 48
REPEATS = 9
KEPT = {"column": "verdict", "op": "is", "value": "kept"}
Features = np.ndarray[Any, np.dtype[np.float32]]


def middle(ask: Callable[[], Any]) -> float:
    """Milliseconds of one answer, the first not counted."""
    ask()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def write_catalogue(corpus: Path, rows: int) -> list[str]:
    """A catalogue with captions alone; returns its words, the commonest first."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    made = {"".join(rng.choice(letters, n)): None for n in rng.integers(3, 11, 120_000)}
    names = np.array(list(made))
    share = np.cumsum(1 / np.arange(1, len(names) + 1))
    lengths = rng.integers(5, 16, rows)
    drawn = names[np.searchsorted(share / share[-1], rng.random(lengths.sum()))]
    ends = np.cumsum(lengths)
    texts = [" ".join(drawn[end - n : end]) for end, n in zip(ends, lengths, strict=True)]
    columns: dict[str, Any] = {
        "row": np.arange(rows),
        "rank": rng.integers(0, 2**63, rows).astype(np.uint64),
        "uid": [f"{i:032x}" for i in range(rows)],
        "url": [f"https://d{i % 5000}.example/images/{i}.jpg" for i in range(rows)],
        "domain": [f"d{i % 5000}.example" for i in range(rows)],
        "text": texts,
        "raw_text": texts,
        "verdict": np.where(rng.random(rows) < 0.8, "kept", "dropped"),
        "width": rng.integers(100, 1000, rows).astype(np.int32),
        "height": rng.integers(100, 1000, rows).astype(np.int32),
    }
    for name in ("reason", "stage", "duplicate_of", "key"):
        columns[name] = pa.nulls(rows, pa.string())
    with duckdb.connect(str(corpus / "corpus.duckdb")) as con:
        con.register("made", pa.table(columns))
        con.execute("CREATE TABLE pairs AS SELECT * FROM made ORDER BY row")
        con.execute("CHECKPOINT")
    return [str(name) for name in names]


def measure_words(rows: int) -> dict[str, Any]:
    """Question -> milliseconds of ours and of the scan."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        names = write_catalogue(corpus, rows)
        started = time.perf_counter()
        index = postings(corpus, "bench", EngineConfig())
        build_s = time.perf_counter() - started
        reader = Reader(corpus, index, "2GB", 600.0)
        questions = {
            "the commonest word": ([names[0]], []),
            "a word in 1 of 100": ([names[10]], []),
            "a rare word": ([names[5000]], []),
            "two common words": ([names[0], names[1]], []),
            "three words": ([names[3], names[10], names[40]], []),
            "a word on one domain": (
                [names[1]],
                [{"column": "domain", "op": "is", "value": "d77.example"}],
            ),
            "no word, one domain": ([], [{"column": "domain", "op": "is", "value": "d77.example"}]),
            "no word, width at least": (
                [],
                [{"column": "width", "op": "at least", "value": "990"}],
            ),
        }
        found: dict[str, Any] = {
            "rows": rows,
            "build_s": build_s,
            "index_bytes": index.stat().st_size,
        }
        answers: dict[str, Any] = {}
        for name, (words, filters) in questions.items():
            asked = [KEPT, *filters]
            _, total = reader.find(" ".join(words), asked, [], PAGE, 0)

            def ours(words: Sequence[str] = words, asked: Any = asked) -> None:
                best, _ = reader.find(" ".join(words), asked, [], PAGE, 0)
                reader.cards(best)

            answers[name] = {"pairs": total, "ms": middle(ours)}
            if words:
                answers[name]["scan_ms"] = middle(lambda w=words, f=filters: scan(reader, w, f))
        reader.close()
        return {**found, "questions": answers}


def scan(reader: Reader, words: Sequence[str], filters: Sequence[dict[str, str]]) -> None:
    """The same question by a look at every caption: a page and how many there are."""
    conditions = ["verdict = 'kept'", *(f"{f['column']} = '{f['value']}'" for f in filters)]
    names = [f"$w{i}" for i in range(len(words))]
    conditions += [f"contains(' ' || lower(text) || ' ', {name})" for name in names]
    params = {f"w{i}": f" {word} " for i, word in enumerate(words)}
    where = " AND ".join(conditions)
    with reader.cursor() as cursor:
        query = f"SELECT row FROM pairs WHERE {where} ORDER BY rank LIMIT {PAGE}"
        best = [row for (row,) in cursor.execute(query, params).fetchall()]
        cursor.execute(f"SELECT count(*) FROM pairs WHERE {where}", params).fetchall()
    reader.cards(best)


def drawn(rows: int, dim: int, seed: int, turn: Features, centres: Features) -> Features:
    """Features of length 1 around the centres."""
    rng = np.random.default_rng(seed)
    low = centres[rng.integers(0, len(centres), rows)]
    low = low + 0.5 * rng.standard_normal(low.shape, np.float32)
    high = low @ turn + 0.3 * rng.standard_normal((rows, dim), np.float32)
    scaled: Features = high / np.linalg.norm(high, axis=1, keepdims=True)
    return scaled


def measure_vectors(rows: int, dim: int) -> dict[str, Any]:
    """Milliseconds of ours and of numpy, and the recall."""
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((64, dim), np.float32) / 8
    centres = rng.standard_normal((20_000, 64), np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder, part = Path(name), 8192
        every = np.empty((rows, dim), np.float32)
        for start in range(0, rows, part):
            stop = min(rows, start + part)
            piece = drawn(stop - start, dim, start + 1, turn, centres).astype(np.float16)
            every[start:stop] = piece
            np.save(folder / f"{start // part:05d}.npy", piece)
            keys = pa.table({"key": [f"{i:09d}" for i in range(start, stop)]})
            pq.write_table(keys, folder / f"{start // part:05d}.parquet")
        started = time.perf_counter()
        vectors = Vectors(folder)
        build_s = time.perf_counter() - started
        query_QE = drawn(100, dim, 10**9, turn, centres)
        few = np.zeros(rows, bool)
        few[:: max(1, rows // 20_000)] = True
        half = np.arange(rows) % 2 == 0
        hits = 0
        for query_E in query_QE:
            best = np.argpartition(-(every @ query_E), 10)[:10]
            hits += len(set(best.tolist()) & set(vectors.nearest(query_E, PAGE)[0][:10].tolist()))

        def numpy_all() -> None:
            cosine = every @ query_QE[0]
            top = np.argpartition(-cosine, PAGE)[:PAGE]
            top[np.argsort(-cosine[top])]

        turns = iter(np.tile(query_QE, (40, 1)))
        index = next(iter(folder.glob("*.faiss")), None)
        return {
            "rows": rows,
            "dim": dim,
            "build_s": build_s,
            "index_bytes": index.stat().st_size if index else 0,
            "recall_at_10": hits / (10 * len(query_QE)),
            "ms": middle(lambda: vectors.nearest(next(turns), PAGE)),
            "ms_half_allowed": middle(lambda: vectors.nearest(next(turns), PAGE, half)),
            "ms_few_allowed": middle(lambda: vectors.nearest(next(turns), PAGE, few)),
            "numpy_ms": middle(numpy_all),
        }


def show(found: dict[str, Any]) -> None:
    """Tables for people."""
    if "words" in found:
        words = found["words"]
        table = Table(title=f"words and filters, {words['rows']:,} captions", title_justify="left")
        for column in ("question", "pairs", "ours, ms", "scan, ms", "scan / ours"):
            table.add_column(column, justify="left" if column == "question" else "right")
        for name, line in words["questions"].items():
            peer = line.get("scan_ms")
            ratio = f"{peer / line['ms']:.1f}" if peer else ""
            shown = f"{peer:.1f}" if peer else ""
            table.add_row(name, f"{line['pairs']:,}", f"{line['ms']:.1f}", shown, ratio)
        Console().print(table)
        print(f"index: {words['build_s']:.0f} s, {words['index_bytes'] / 1e6:.0f} MB")
    if "vectors" in found:
        line = found["vectors"]
        title = f"features, {line['rows']:,} x {line['dim']}"
        table = Table(title=title, title_justify="left")
        for column in (
            "ours, ms",
            "half allowed",
            "few allowed",
            "numpy, ms",
            "numpy / ours",
            "recall",
        ):
            table.add_column(column, justify="right")
        names = ("ms", "ms_half_allowed", "ms_few_allowed", "numpy_ms")
        numbers = [f"{line[name]:.1f}" for name in names]
        ratio = f"{line['numpy_ms'] / line['ms']:.1f}"
        table.add_row(*numbers, ratio, f"{line['recall_at_10']:.3f}")
        Console().print(table)
        print(f"index: {line['build_s']:.0f} s, {line['index_bytes'] / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--part", choices=("words", "vectors"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.part != "vectors":
        found["words"] = measure_words(options.rows)
    if options.part != "words":
        if importlib.util.find_spec("faiss"):
            found["vectors"] = measure_vectors(options.rows, options.dim)
        else:
            print("features are left out: pip install -e '.[browse]' brings FAISS")
    show(found)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
