"""THE LIST: what `wit shards` does, in order. Read this first.

Each stage reads the work tables of earlier ones and writes its own; `context.Stage` says what
the fields mean, `runner.py` runs a stage. `row` numbers the captions of the input and ties all
tables together; captions and URLs themselves are joined back once, at the end.
"""

from __future__ import annotations

from pipeline import (
    balance,
    catalogue,
    fetch,
    filters,
    images,
    ingest,
    lists,
    matching,
    near_texts,
    pack,
    pairs,
    queries,
    rules,
    scores,
    sources,
)
from pipeline.context import Stage
from wit.text import NORMALISER_VERSION

STAGES: tuple[Stage, ...] = (
    # Metadata of any kind: row, uid, rank, source, local, url, raw_text, and what it declares.
    Stage(
        "10_ingest",
        (),
        ingest.ingest,
        params=sources.names,
        files=sources.local_files,
        sql=("10_ingest.sql",),
    ),
    # The same address under one key, its domain, and what is wrong with it.
    Stage(
        "12_urls",
        ("10_ingest",),
        "12_urls.sql",
        params=lambda config: {"schemes": config.url.schemes},
        split="files",
    ),
    # Domains and URLs that are not wanted.
    Stage(
        "13_lists",
        (),
        lists.lists,
        params=lists.params,
        files=lists.files,
        sql=("12_urls.sql",),
        version=2,
    ),
    # Caption as the model reads it, normalised words, language.
    Stage(
        "15_clean",
        ("10_ingest",),
        "15_clean.sql",
        split="files",
        python=True,
        sql=("words.sql",),
        version=NORMALISER_VERSION,
    ),
    # The query list.
    Stage(
        "18_queries",
        ("15_clean",),
        queries.queries,
        params=queries.params,
        files=queries.files,
        sql=("18_queries_given.sql", "18_queries_corpus.sql"),
        version=NORMALISER_VERSION,
    ),
    # Which query occurs in which caption.
    Stage(
        "20_match",
        ("15_clean", "18_queries"),
        "20_match.sql",
        params=matching.params,
        sql=matching.MORE_SQL,
        make=matching.maker,
        split="files",
        python=True,
    ),
    # Captions that stand on too many images or domains.
    Stage(
        "25_repeats",
        ("12_urls", "15_clean"),
        "25_repeats.sql",
        params=filters.repeats_params,
        split="keys",
    ),
    # Bounds on the scores that come with the metadata.
    Stage("28_scores", ("10_ingest",), scores.scores, params=scores.params, sql=("28_top.sql",)),
    # Rules on a row by itself; the user's own too.
    Stage(
        "30_filter",
        (
            "10_ingest",
            "12_urls",
            "13_lists",
            "15_clean",
            "20_match",
            "25_repeats",
            "28_scores",
        ),
        "30_filter.sql",
        params=filters.filter_params,
        macros=rules.macro,
        split="files",
        judges="10_ingest",
    ),
    # One row per URL and caption, a few captions per URL; near-duplicate captions if asked for.
    Stage(
        "40_dedupe",
        ("15_clean", "30_filter"),
        near_texts.dedupe,
        params=near_texts.params,
        judges="30_filter",
        sql=("40_dedupe.sql",),
    ),
    # Which pairs each query brings in.
    Stage(
        "48_bring",
        ("18_queries", "20_match", "40_dedupe"),
        balance.bring,
        params=balance.params_before,
        sql=tuple(balance.BRING.values()),
    ),
    # The cap per query.
    Stage(
        "50_balance",
        ("40_dedupe", "48_bring"),
        "50_balance.sql",
        split="files",
        judges="40_dedupe",
    ),
    # Every wanted URL once: images, and what became of each URL.
    Stage(
        "60_fetch",
        ("10_ingest", "12_urls", "50_balance"),
        fetch.fetch,
        params=fetch.params,
        images=fetch.local_images,
        sql=("60_fetch.sql",),
    ),
    # Opt-outs, sizes, overlaps with evaluation sets, and duplicates of the images.
    Stage(
        "70_images",
        ("10_ingest", "12_urls", "50_balance", "60_fetch"),
        images.images,
        params=images.params,
        files=images.files,
        judges="50_balance",
        sql=images.SQL_FILES,
        publish=("overlaps",),
    ),
    # The cap again, on what came of the download.
    Stage(
        "75_cap",
        ("10_ingest", "18_queries", "20_match", "40_dedupe", "70_images"),
        balance.cap,
        params=balance.params_after,
        judges="70_images",
        sql=balance.SQL_FILES,
    ),
    # The shards, in the order of rank.
    Stage(
        "80_pack",
        ("10_ingest", "12_urls", "15_clean", "60_fetch", "70_images", "75_cap"),
        pack.pack,
        params=pack.params,
        sql=("80_pack.sql",),
        publish=("shards", "val"),
    ),
    # Every row with its verdict.
    Stage(
        "90_pairs",
        pairs.INPUTS,
        pairs.pairs,
        judges="10_ingest",
        sql=("90_ends.sql", "90_pairs.sql"),
        publish=("pairs",),
        table="pairs/*.parquet",
    ),
    # What people ask questions about.
    Stage(
        "95_catalogue",
        (*pairs.INPUTS, "18_queries", "20_match", "60_fetch", "90_pairs"),
        catalogue.catalogue,
        sql=catalogue.SQL_FILES,
        publish=("queries.parquet", "corpus.duckdb"),
    ),
)
