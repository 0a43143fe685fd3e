"""The page of a corpus: `SECTIONS` lists its parts in order. Read this first.

Whatever the size of the corpus, the page has a bounded number of pictures and lines: DuckDB adds up
and spills what doesn't fit in its memory, and pictures are read one by one from where they lie.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline.config import EngineConfig
from pipeline.report import card, numbers, samples
from pipeline.report.source import Source, opened
from wit import page
from wit.progress import Progress
from wit.report_command import ReportConfig

Part = Callable[[Source], list[str]]
# name, what the table of contents calls it, heading, and what makes it
SECTIONS: list[tuple[str, str, str, Part]] = [
    ("funnel", "Funnel", "From the input to the shards", numbers.funnel),
    ("queries", "Queries", "Queries and the cap", numbers.queries),
    ("domains", "Domains", "Domains", numbers.domains),
    ("captions", "Captions", "Captions", numbers.captions),
    ("images", "Images", "Images", numbers.images),
    ("download", "Download", "The download", numbers.download),
    ("duplicates", "Duplicates", "Duplicates", samples.duplicates),
    ("overlaps", "Overlaps", "Overlaps with evaluation sets", samples.overlaps),
    ("sample", "At random", "Pairs at random", samples.at_random),
    ("by-query", "By query", "Pairs by query", samples.by_query),
    ("shuffle", "Shuffle", "Shuffle", numbers.shuffle),
    ("card", "Data card", "Data card", card.data_card),
]


def write(config: ReportConfig, out: Path) -> None:
    """Write the page of the corpus that `config` names.

    Raises:
        CorpusError: unfinished, or of another version.
        WitError: too little memory, or a full disk.
    """
    corpus = config.paths[0]
    engine = EngineConfig(memory_limit=config.memory_limit, threads=config.threads)
    progress = Progress("report")
    scratch = Path(tempfile.mkdtemp(prefix=".report-", dir=out.parent))
    try:
        with opened(config, engine, scratch) as source:
            parts = []
            for done, (name, _, heading, part) in enumerate(SECTIONS):
                progress(done, len(SECTIONS), "parts")
                parts.append(page.section(name, heading, part(source)))
            progress.clear()
            page.write(out, page.page(f"Corpus {corpus.resolve().name}", parts, _head(source)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _head(source: Source) -> str:
    whole = source.whole
    values = [
        ("pairs", f"{whole['kept']:,}"),
        ("of input rows", f"{whole['kept'] / max(whole['rows'], 1):.1%}"),
        ("shards", f"{whole['shards']:,}"),
        ("images", numbers.size(whole["image_bytes"])),
        ("queries with pairs", f"{whole['queries_kept']:,} of {whole['queries']:,}"),
        ("domains", f"{whole['domains']:,}"),
    ]
    title = page.text(source.corpus.resolve().name, 80)
    links = page.contents((name, short) for name, short, _, _ in SECTIONS)
    return f"<header><h1>Corpus <bdi>{title}</bdi></h1>{page.cards(values)}</header>\n{links}"
