"""Matching beside pyahocorasick, ahocorasick_rs and daachorse: the same matches, how much faster?

    python bench/match.py [--captions FILE.parquet --column text] [--queries FILE ...]
        [--rows 40000] [--engine-rows 10000] [--json]

CPU seconds of one thread. "normalise" makes words of cleaned text as stage 15 does, the same for
everybody: all get its words. "match" is from those words to the distinct queries of each caption.
Peers get each query with a space on both sides, so that every match they report is a match, and
their ids go through a set. Ours is stage 20's SQL in DuckDB, ordered and written to Parquet, which
peers are spared. "captions/s" is normalising and matching; "match only" leaves the former out, and
"ours is" compares it. The bench stops if a caption's matches differ.

Without files, 462,000 queries are made-up words and runs of two to four of them, captions are drawn
by Zipf's law, and of four words one is no query. --queries takes lists (.txt) and n-gram tables
(.csv, first column); a list shorter than 460,000 is filled up with made-up names.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.config import EngineConfig
from pipeline.engine import connect, sql_text
from pipeline.matching import match_captions
from pipeline.queries import MAX_WORDS
from wit.text import words

QUERIES = 462_000
MODULES = {
    "pyahocorasick": "ahocorasick",
    "ahocorasick_rs": "ahocorasick_rs",
    "daachorse": "daachorse",
}
Matcher = Callable[[str], Iterable[int]]


def made_up(rows: int) -> tuple[list[str], list[str]]:
    """Captions of 6 to 24 words and queries, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    names = list({"".join(rng.choice(letters, n)): None for n in rng.integers(2, 11, 330_000)})
    share = np.cumsum(1 / np.arange(1, len(names) + 1))
    lengths = rng.integers(6, 25, rows)
    drawn = np.searchsorted(share / share[-1], rng.random(lengths.sum()))
    captions = [
        " ".join(names[n] for n in part).capitalize() + "."
        for part in np.split(drawn, np.cumsum(lengths)[:-1])
    ]
    queries = {name: None for n, name in enumerate(names) if n % 4}
    while len(queries) < QUERIES:
        for size in rng.integers(2, 5, 10_000):
            chosen = np.searchsorted(share / share[-1], rng.random(size))
            queries[" ".join(names[n] for n in chosen)] = None
    return captions, list(queries)[:QUERIES]


def listed(paths: list[Path]) -> list[str]:
    """Normalised queries of some files, filled up to QUERIES with made-up ones."""
    found: dict[str, None] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            lines = (row[0] for row in csv.reader(file)) if path.suffix == ".csv" else file
            found |= {" ".join(w): None for line in lines if 0 < len(w := words(line)) <= MAX_WORDS}
    print(f"{len(found):,} queries from files", file=sys.stderr)
    for query in made_up(1)[1]:
        if len(found) >= QUERIES:
            break
        found[query] = None
    return list(found)


def peers(queries: list[str]) -> dict[str, Callable[[], Matcher]]:
    """Name -> what builds its matcher; each takes normalised words between two spaces."""

    def pyahocorasick() -> Matcher:
        import ahocorasick

        automaton = ahocorasick.Automaton()
        for n, query in enumerate(queries):
            automaton.add_word(f" {query} ", n)
        automaton.make_automaton()
        return lambda text: [n for _, n in automaton.iter(text)]

    def ahocorasick_rs() -> Matcher:
        from ahocorasick_rs import BytesAhoCorasick, Implementation

        kind = Implementation.ContiguousNFA  # its fastest for so many patterns
        patterns = [f" {query} ".encode() for query in queries]
        search = BytesAhoCorasick(patterns, implementation=kind).find_matches_as_indexes
        return lambda text: [match[0] for match in search(text.encode(), overlapping=True)]

    def daachorse() -> Matcher:
        from daachorse import DoubleArrayAhoCorasick

        automaton = DoubleArrayAhoCorasick([f" {query} ".encode() for query in queries])
        return lambda text: [match[2] for match in automaton.find_overlapping(text.encode())]

    made = {
        "pyahocorasick": pyahocorasick,
        "ahocorasick_rs": ahocorasick_rs,
        "daachorse": daachorse,
    }
    return {name: build for name, build in made.items() if importlib.util.find_spec(MODULES[name])}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def measure(
    captions: list[str], queries: list[str], plain_rows: int
) -> dict[str, dict[str, float]]:
    """Matcher -> seconds to normalise, to build and to match, captions matched, matches."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        con = connect(EngineConfig(threads=1), at / "spill")
        text = {"row": pa.array(range(len(captions)), pa.int64()), "raw_text": captions}
        pq.write_table(pa.table(text), at / "ingest.parquet")
        cleaned = f"SELECT row, text FROM ({sql_text('15_clean.sql')})"
        files = {"ingest": str(at / "ingest.parquet"), "text": str(at / "text.parquet")}
        con.execute(f"COPY ({cleaned}) TO $text (FORMAT parquet)", files)
        normalise = seconds(lambda: normalised(con, at))[0]
        clean = pq.read_table(at / "clean.parquet").column("words").to_pylist()
        numbers = pa.array(range(len(queries)), pa.int32())
        pq.write_table(pa.table({"query_id": numbers, "words": queries}), at / "queries.parquet")
        pq.write_table(pa.table({"row": text["row"], "words": clean})[:0], at / "none.parquet")
        pq.write_table(
            pa.table({"row": text["row"], "words": clean})[:plain_rows], at / "few.parquet"
        )
        for name, engine, table, rows in (
            ("ours, ngrams (default)", "ngrams", "clean", len(clean)),
            ("ours, sql", "sql", "few", min(plain_rows, len(clean))),
        ):

            def run(table: str, engine: str = engine) -> None:
                tables = {
                    "clean": str(at / f"{table}.parquet"),
                    "queries": str(at / "queries.parquet"),
                }
                with connect(EngineConfig(threads=1), at / "spill") as fresh:
                    match_captions(fresh, engine, tables, at / "out.parquet")

            build = min(seconds(lambda run=run: run("none"))[0] for _ in range(2))
            match = seconds(lambda run=run, table=table: run(table))[0] - build
            if engine == "ngrams":
                ours = matches(at / "out.parquet", len(clean))
            elif matches(at / "out.parquet", rows) != ours[:rows]:
                sys.exit("ngrams and sql differ")
            found[name] = report(normalise * rows / len(clean), build, match, rows, ours[:rows])
        con.close()
    for name, make in peers(queries).items():
        build, matcher = seconds(make)
        match, theirs = seconds(lambda m=matcher: [set(m(f" {text} ")) for text in clean])
        wrong = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
        if wrong is not None:
            sys.exit(f"{name} finds other queries than ours in {clean[wrong]!r}")
        found[name] = report(normalise, build, match, len(clean), theirs)
    return found


def normalised(con: duckdb.DuckDBPyConnection, at: Path) -> None:
    """The words of stage 15, of text that is cleaned already."""
    query = "SELECT row, normalised_words(text) AS words FROM read_parquet($text) ORDER BY row"
    params = {"text": str(at / "text.parquet"), "clean": str(at / "clean.parquet")}
    con.execute(f"COPY ({query}) TO $clean (FORMAT parquet)", params)


def report(
    normalise: float, build: float, match: float, rows: int, found: list[set[int]]
) -> dict[str, float]:
    return {
        "captions_per_s": rows / (normalise + match),
        "match_only_per_s": rows / match,
        "build_s": build,
        "matches_per_caption": sum(map(len, found)) / rows,
        "normalise_us": normalise / rows * 1e6,
    }


def matches(path: Path, rows: int) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(rows)]
    table = pq.read_table(path)
    for row, query in zip(table["row"].to_pylist(), table["query_id"].to_pylist(), strict=True):
        found[row].add(query)
    return found


def captions_of(path: Path, column: str, rows: int) -> list[str]:
    """The captions of a file, repeated until there are enough."""
    table = pq.read_table(path, columns=[column])[0].to_pylist()
    lists = [[value] if isinstance(value, str) else value or [] for value in table]
    texts = [text for part in lists for text in part]
    return (texts * (rows // len(texts) + 1))[:rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", type=Path, help="a Parquet file")
    parser.add_argument("--column", default="text", help="its column of strings, or lists of them")
    parser.add_argument("--queries", type=Path, action="append", default=[], help=".txt or .csv")
    parser.add_argument("--rows", type=int, default=40_000, help="captions")
    parser.add_argument(
        "--engine-rows", type=int, default=10_000, help="captions of the sql engine"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    captions, queries = made_up(options.rows)
    if options.captions:
        captions = captions_of(options.captions, options.column, options.rows)
    if options.queries:
        queries = listed(options.queries)
    found = measure(captions, queries, options.engine_rows)
    ours, *_ = found
    title = f"{len(queries):,} queries, {len(captions):,} captions, one thread, CPU time"
    table = Table(title=title, title_justify="left")
    table.add_column("matcher")
    for column in ("captions/s", "match only", "build s", "matches each", "ours is"):
        table.add_column(column, justify="right")
    for name, row in found.items():
        table.add_row(
            name,
            f"{row['captions_per_s']:,.0f}",
            f"{row['match_only_per_s']:,.0f}",
            f"{row['build_s']:.1f}",
            f"{row['matches_per_caption']:.1f}",
            f"{found[ours]['match_only_per_s'] / row['match_only_per_s']:.2f} x",
        )
    for name in MODULES.keys() - found.keys():
        table.add_row(name, "not installed", "", "", "", "")
    Console().print(table)
    if options.json:
        print(json.dumps(summary(found, len(queries), len(captions))))


def summary(found: dict[str, dict[str, float]], queries: int, captions: int) -> dict[str, Any]:
    """Ratios of captions/s, normalising included, and of matching alone."""
    (_, ours), *_ = found.items()
    theirs = {name: row for name, row in found.items() if name in MODULES}
    result: dict[str, Any] = {
        "queries": queries,
        "captions": captions,
        "captions_per_s": ours["captions_per_s"],
        "match_only_per_s": ours["match_only_per_s"],
        "matchers": found,
    }
    for key, suffix in (("captions_per_s", ""), ("match_only_per_s", "_match_only")):
        if "pyahocorasick" in theirs:
            ratio = ours[key] / theirs["pyahocorasick"][key]
            result[f"ratio_pyahocorasick{suffix}"] = ratio
        if theirs:
            fastest = max(row[key] for row in theirs.values())
            result[f"ratio_fastest_peer{suffix}"] = ours[key] / fastest
    return result


if __name__ == "__main__":
    main()
