"""`wit stats`: what a corpus holds, and what it dropped on the way and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import CorpusError
from wit.progress import Progress

# heading -> (file in pipeline/sql, whether it takes $top); printed in this order
SECTIONS = {
    "corpus": ("stats_corpus.sql", False),
    "funnel": ("stats_funnel.sql", False),
    "reasons": ("stats_reasons.sql", False),
    "queries, head": ("stats_queries_head.sql", True),
    "queries, tail": ("stats_queries_tail.sql", True),
    "query coverage": ("stats_coverage.sql", False),
    "domains": ("stats_domains.sql", True),
    "languages": ("stats_languages.sql", True),
    "caption words": ("stats_words.sql", True),
    "caption length": ("stats_lengths.sql", False),
    "image sizes": ("stats_sizes.sql", False),
    "formats": ("stats_formats.sql", False),
    "shards": ("stats_shards.sql", True),
}


class StatsConfig(Settings):
    """Print what a corpus holds: funnel, reasons, queries, domains, languages, sizes."""

    corpus: CliPositionalArg[Path] = Path("data/corpus")
    """corpus directory"""
    top: Annotated[int, Field(ge=1)] = 10
    """lines of each list"""
    as_json: Annotated[bool, Field(alias="json")] = False
    """print one JSON object instead of tables"""


def main(argv: Sequence[str]) -> int:
    """Print the report."""
    config = load(StatsConfig, argv, prog="wit stats")
    found = report(config.corpus, config.top)
    if config.as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    from pipeline.sql_command import table

    for heading, rows in found.items():
        names = list(rows[0]) if rows else ["nothing"]
        print(f"\n{heading}\n\n{table(names, [list(row.values()) for row in rows])}")
    return 0


def report(corpus: Path, top: int) -> dict[str, list[dict[str, Any]]]:
    """Heading -> rows, each a column -> value.

    Raises:
        CorpusError: there is no catalogue, or an older or damaged one.
    """
    import duckdb

    from pipeline.catalogue import NAME, open_catalogue
    from pipeline.engine import sql_text

    found: dict[str, list[dict[str, Any]]] = {}
    progress = Progress("stats")
    with open_catalogue(corpus) as con:
        for heading, (file, limited) in SECTIONS.items():
            progress(len(found), len(SECTIONS), "answers")
            try:
                con.execute(sql_text(file), {"top": top} if limited else None)
                names = [column[0] for column in con.description or []]
                found[heading] = [dict(zip(names, row, strict=True)) for row in con.fetchall()]
            except duckdb.Error as error:
                first = str(error).splitlines()[0]
                raise CorpusError(
                    f"{corpus / NAME}: damaged or of another version: {first}: delete it and"
                    " run `wit shards` again"
                ) from None
    progress.clear()
    return found
