"""What each source of a query list is turned into: tables of names and counts in a work folder.

A table is named by the content of its file and what else it depends on, so it is made once,
whatever else of the config changes, and a run that was killed takes up what is there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine import copy, sql_text
from pipeline.files import InputDigests
from pipeline.queries import LISTED, read_list
from pipeline.querylist import wordnet
from pipeline.querylist.config import BuildConfig
from pipeline.querylist.count import count_parts, folder
from pipeline.querylist.dump import PART, counted, parts
from pipeline.querylist.lines import Numbered, Tally, add_up, read_tally, shorten, write_tally
from wit.config import fingerprint
from wit.errors import InputError
from wit.progress import Progress
from wit.text import NORMALISER_VERSION, words

VERSION = 2  # raise it when the code here or in dump, count, wikitext changes a table
Told = Callable[[str, Path, Tally], None]  # hears of the lines of each file of a source
_COUNTS = pa.schema([("ngram", pa.string()), ("count", pa.int64())])


def files(config: BuildConfig) -> list[Path]:
    """Every file that the list depends on.

    Raises:
        InputError: one that is missing.
    """
    single = [config.titles_file] if config.titles_file else []
    found = [*config.text, *config.counts, *single, *pageviews(config), *synset_files(config)]
    found += config.lists
    for path in found:
        if not path.is_file():
            raise InputError(f"{path}: no such file: check the path")
    return found


def pageviews(config: BuildConfig) -> list[Path]:
    """The pageview files, folders expanded in order of name."""
    found = []
    for given in config.pageviews:
        inside = sorted(given.glob("pageviews-*")) if given.is_dir() else [given]
        if not inside:
            raise InputError(f"{given}: no file pageviews-* in this folder: check --pageviews")
        found += inside
    return found


def synset_files(config: BuildConfig) -> list[Path]:
    """The files of WordNet."""
    return [path for given in config.wordnet for path in wordnet.files(given)]


def count_text(config: BuildConfig, digests: InputDigests, work: Path, told: Told) -> list[Path]:
    """Count running text; returns the folders of its parts."""
    progress, found = Progress("text"), []
    for path in config.text:
        at = work / _name("text", path, digests, PART)
        at.mkdir(parents=True, exist_ok=True)
        todo = parts(path)
        count_parts(todo, at, config.engine, progress)
        folders = [folder(part, at) for part in todo]
        told("text", path, add_up([read_tally(each) for each in folders]))
        found += folders
    if found:
        progress.finish(f"{len(found):,} parts of text counted {progress.seconds:8.1f} s")
    return found


def count_tables(
    con: duckdb.DuckDBPyConnection,
    config: BuildConfig,
    digests: InputDigests,
    work: Path,
    told: Told,
) -> list[Path]:
    """N-grams that are counted already, in folders like those of parts of text."""
    found = []
    for path in config.counts:
        at = work / _name("counts", path, digests)
        found.append(at)
        if not at.is_dir():
            aside = _aside(at)
            con.register("counted", counted(con, path))
            try:
                for size, what in ((1, "words"), (2, "pairs")):
                    target = aside / f"{what}-0.parquet"
                    copy(con, "queries_counts_part.sql", {"size": size}, target)
                write_tally(_tally(con, "queries_counts_lines.sql"), aside)
            except duckdb.ConversionException as error:
                first = str(error).splitlines()[0]
                raise InputError(f"{path}: a count is no whole number: {first}: mend it") from None
            con.unregister("counted")
            aside.rename(at)
        told("counts", path, read_tally(at))
    return found


def count_views(
    con: duckdb.DuckDBPyConnection,
    config: BuildConfig,
    digests: InputDigests,
    work: Path,
    told: Told,
) -> list[Path]:
    """The views of every hourly file, by title: folders that hold views.parquet."""
    progress, found = Progress("pageviews"), []
    listed = pageviews(config)
    limits = {"domains": config.titles.domains, "min_count": config.titles.min_hour}
    for number, path in enumerate(listed):
        at = work / _name("views", path, digests, limits)
        found.append(at)
        if not at.is_dir():
            aside = _aside(at)
            _read_lines(con, path, "hour", "queries_views_hour.sql", {"domains": limits["domains"]})
            least = {"min_count": limits["min_count"]}
            copy(con, "queries_views.sql", least, aside / "views.parquet")
            write_tally(_tally(con, "queries_views_lines.sql"), aside)
            aside.rename(at)
        told("pageviews", path, read_tally(at))
        progress(number + 1, len(listed), unit="files")
    if listed:
        progress.finish(f"{len(listed):,} hours of pageviews read {progress.seconds:8.1f} s")
    return found


def titles(
    con: duckdb.DuckDBPyConnection, config: BuildConfig, views: list[Path], at: Path, told: Told
) -> None:
    """The titles above the threshold: AT/titles.parquet (query, words, count)."""
    sums = {"parts": [str(path) for path in views], "min_count": 1}
    copy(con, "queries_sum.sql", sums, at / "views.parquet")
    con.read_parquet(str(at / "views.parquet")).create_view("views")
    if config.titles_file:
        _read_lines(con, config.titles_file, "titles", "queries_all_titles.sql", {})
        told("titles_file", config.titles_file, _tally(con, "queries_all_titles_lines.sql"))
    else:
        con.execute("CREATE TEMP TABLE titles AS SELECT '' AS title")
    params = {"listed": bool(config.titles_file), "min_views": config.titles.min_views}
    copy(con, "queries_titles.sql", params, at / "titles.parquet")
    con.execute("DROP TABLE titles")


def _read_lines(
    con: duckdb.DuckDBPyConnection, path: Path, table: str, file: str, params: dict[str, Any]
) -> None:
    """Make a temporary table of the lines of a file, which a SQL file reads as `lines`.

    Raises:
        InputError: the file is damaged.
    """
    source = Numbered(path)
    con.register("lines", source.reader())
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql_text(file)}", params)
    except duckdb.InvalidInputException:
        if source.error:
            raise source.error from None
        raise
    con.unregister("lines")


def _tally(con: duckdb.DuckDBPyConnection, file: str) -> Tally:
    """What a SQL file says of the lines of a file."""
    lines, malformed, first, example = con.execute(sql_text(file)).fetchall()[0]
    text = example.decode("utf-8", "replace") if isinstance(example, bytes) else example
    return Tally(lines, malformed, first, text and shorten(text))


def synsets(config: BuildConfig, told: Told) -> pa.Table:
    """WordNet's names: query, words."""
    names: dict[str, None] = {}
    for path in synset_files(config):
        tally = Tally()
        names |= dict.fromkeys(wordnet.names(path, config.synsets.synonyms, tally))
        told("wordnet", path, tally)
    found = list(names)
    normalised = [" ".join(words(name)) for name in found]
    return pa.table(
        {"query": pa.array(found, pa.string()), "words": pa.array(normalised, pa.string())}
    )


def given(con: duckdb.DuckDBPyConnection, config: BuildConfig, told: Told) -> pa.Table:
    """The user's own lists, one after the other: rank, query, words, source, count, score."""
    if not config.lists:
        return LISTED.empty_table()
    tables = []
    for path in config.lists:
        table, tally = read_list(con, path), Tally()
        for number, query in enumerate(table["query"].to_pylist(), 1):
            tally.add(query, query != "", number)
        told("lists", path, tally)
        tables.append(table)
    whole = pa.concat_tables(tables)
    return whole.set_column(0, "rank", pa.array(range(len(whole)), pa.int32()))


def nothing(at: Path) -> Path:
    """A part that holds no words, so that a list can be made without text."""
    at.mkdir(parents=True, exist_ok=True)
    for what in ("words", "pairs"):
        pq.write_table(_COUNTS.empty_table(), at / f"{what}-0.parquet")
    return at


def _name(kind: str, path: Path, digests: InputDigests, *depends: Any) -> str:
    return f"{kind}-{fingerprint([VERSION, NORMALISER_VERSION, digests(path), *depends])}"


def _aside(at: Path) -> Path:
    """An empty folder in which a table is made before it gets its name."""
    aside = at.with_name(f"{at.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def stale(work: Path, used: Iterator[Path]) -> list[Path]:
    """What lies in the work folder and belongs to other inputs."""
    keep = {path.relative_to(work).parts[0] for path in used} | {"inputs.json"}
    return [path for path in sorted(work.iterdir()) if path.name not in keep]
