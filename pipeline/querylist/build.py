"""`wit queries build`: count the sources, choose the list, write it, say what it holds.

OUTPUT/queries.parquet and OUTPUT/config.json are written under temporary names and renamed, the
config last: where it holds the fingerprint of what is asked for, there is nothing to do. A run that
was killed leaves the counts that were whole in OUTPUT/work, and the next one takes them up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.engine import connect, copy, engine_errors, sql_text
from pipeline.files import InputDigests
from pipeline.queries import MAX_WORDS
from pipeline.querylist import sources, wordnet
from pipeline.querylist.config import BuildConfig
from pipeline.querylist.count import add_up
from pipeline.querylist.lines import Tally, by_source
from pipeline.querylist.report import report, rows_of
from wit.config import fingerprint, write_json
from wit.errors import ConfigError, InputError
from wit.progress import Progress
from wit.text import NORMALISER_VERSION

NAME = "queries.parquet"
_SQL = (
    "queries_all_titles.sql",
    "queries_all_titles_lines.sql",
    "queries_counts_lines.sql",
    "queries_counts_part.sql",
    "queries_entries.sql",
    "queries_list.sql",
    "queries_pairs_part.sql",
    "queries_sum.sql",
    "queries_titles.sql",
    "queries_views.sql",
    "queries_views_hour.sql",
    "queries_views_lines.sql",
    "queries_words_part.sql",
)


def build(config: BuildConfig) -> None:
    """Bring OUTPUT up to date with its config and sources, and print the report.

    Raises:
        WitError: no source, a bad one, another run at work, a full disk or memory.
    """
    config = _with_sources(config)
    output = config.output
    work = output / "work"
    with _locked(output), engine_errors("wit queries build", config.engine):
        work.mkdir(exist_ok=True)
        digests = InputDigests(work / "inputs.json")
        identity = _identity(config, digests)
        if _standing(output) != fingerprint(identity):
            (output / "config.json").unlink(missing_ok=True)
            _make(config, digests, work, identity)
        else:
            print(f"{output / NAME} is up to date", file=sys.stderr)
    report(output, config.captions, config.engine)


def _with_sources(config: BuildConfig) -> BuildConfig:
    """The config, with this machine's WordNet if it names no source."""
    if config.titles_file and not config.pageviews:
        raise ConfigError(
            f"titles_file = {config.titles_file}: a list of titles says nothing of how often they"
            " are looked at: give --pageviews too"
        )
    if config.text or config.counts or config.pageviews or config.wordnet or config.lists:
        return config
    found = wordnet.installed()
    if found is None:
        raise InputError(
            "no source and no WordNet on this machine: give --text, --counts, --pageviews,"
            " --wordnet or --lists (docs/queries.md), or install WordNet (apt: wordnet-base)"
        )
    print(
        f"no source given: the list is of the names in {found} alone, a fifth of the length that"
        " Wikipedia's words, pairs and titles give it (docs/queries.md)",
        file=sys.stderr,
    )
    return config.model_copy(update={"wordnet": [found]})


def _identity(config: BuildConfig, digests: InputDigests) -> dict[str, Any]:
    return {
        "config": config.identity(),
        "files": [[path.name, digests(path)] for path in sources.files(config)],
        "versions": {"code": sources.VERSION, "normaliser": NORMALISER_VERSION},
        "max_words": MAX_WORDS,
        "sql": fingerprint([sql_text(file) for file in _SQL]),
    }


def _standing(output: Path) -> str | None:
    """The fingerprint of the list that is there whole, if one is."""
    try:
        record = json.loads((output / "config.json").read_text("utf-8"))
        whole = record["sha256"] == _sha256(output / NAME)
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return str(record["fingerprint"]) if whole else None


def _make(config: BuildConfig, digests: InputDigests, work: Path, identity: dict[str, Any]) -> None:
    """Count what is not counted yet, then choose."""
    scratch = work / "list.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    lines: list[tuple[str, str, Tally]] = []

    def tell(source: str, path: Path, tally: Tally) -> None:
        lines.append((source, path.name, tally.check(path, config.max_malformed)))

    folders = sources.count_text(config, digests, work, tell)
    with connect(config.engine, scratch / "spill") as con:
        folders += sources.count_tables(con, config, digests, work, tell)
        views = sources.count_views(con, config, digests, work, tell)
        progress = Progress("list")
        none = sources.nothing(scratch / "nothing")
        few = min(config.words.min_count, config.pairs.min_count)
        least = {"words": few, "pairs": config.pairs.min_count}
        total = add_up(con, [none, *folders], least, scratch)
        hours = [at / "views.parquet" for at in views]
        sources.titles(con, config, [none / "words-0.parquet", *hours], scratch, tell)
        con.register("given", sources.given(con, config, tell))
        con.register("synsets", sources.synsets(config, tell))
        for name in ("words", "pairs", "titles"):
            con.read_parquet(str(scratch / f"{name}.parquet")).create_view(name)
        entries, chosen = scratch / "entries.parquet", scratch / NAME
        params = {
            "total": float(total),
            "min_ratio": 2.0**config.pairs.min_pmi,
            "min_word_count": config.words.min_count,
            "min_pair_count": config.pairs.min_count,
        }
        copy(con, "queries_entries.sql", params, entries)
        limits = {"max_words": MAX_WORDS, "max_queries": config.max_queries}
        copy(con, "queries_list.sql", {"entries": str(entries), **limits}, chosen)
        told = {"entries": str(entries), "list": str(chosen), "max_words": MAX_WORDS}
        offered = rows_of(con, "queries_sources.sql", told)
    size = sum(row["listed"] for row in offered)
    if not size:
        raise InputError("the sources hold no query: lower --words.min_count, or give more sources")
    record = {
        "fingerprint": fingerprint(identity),
        **identity,
        "sha256": _publish(chosen, config.output / NAME),
        "text_words": total,
        "sources": offered,
        "lines": by_source(lines),
    }
    write_json(record, config.output / "config.json")
    for path in sources.stale(work, iter([*folders, *views])):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    progress.finish(f"{size:,} queries {progress.seconds:8.1f} s")


def _publish(new: Path, target: Path) -> str:
    """Flush a file to disk and give it its name; returns its sha256."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    digest = _sha256(new)
    new.replace(target)
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Hold the folder for this process. The system drops the lock of a process that dies."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{output}: another process is at work there: wait for it, or give another --output"
            ) from None
        yield
