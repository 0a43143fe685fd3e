"""Why a pair is not in the corpus: of rows that were in the input, and of those that never were.

An address is looked up by its canonical key and a caption by its cleaned text, with the SQL of the
stages. What was not in the input goes through the stages of a build up to the rules on rows, with
the corpus' own config and queries, so the answer is the one that a build would give.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline import optout
from pipeline.config import ScoresConfig, ShardsConfig
from pipeline.engine import connect, sql_text
from pipeline.runner import Runner
from pipeline.stages import STAGES
from wit.errors import CorpusError, InputError
from wit.schema import REASONS, Reason

LAST = "30_filter"  # the last stage that looks at a row by itself
MOST = 50  # rows that an answer names
LONGEST = 20_000  # characters of an address or a caption that is asked about

# Keys of the config that decide a reason; a reason without one has no threshold.
LIMITS: dict[Reason, tuple[str, ...]] = {
    Reason.URL_SCHEME: ("url.schemes",),
    Reason.URL_EXTENSION: ("url.block_extensions",),
    Reason.URL_DOMAIN: ("url.block_domains",),
    Reason.OPT_OUT_LIST: ("url.opt_out",),
    Reason.LICENSE: ("license.allow", "license.block"),
    Reason.TEXT_TOO_SHORT: ("text.min_chars", "text.min_words"),
    Reason.TEXT_TOO_LONG: ("text.max_chars", "text.max_words"),
    Reason.FILE_NAME: ("text.file_names",),
    Reason.PLACEHOLDER: ("text.placeholders",),
    Reason.URL_TAIL: ("text.url_tails",),
    Reason.FEW_LETTERS: ("text.min_alnum",),
    Reason.LANGUAGE: ("text.languages", "text.language_threshold"),
    Reason.BOILERPLATE: ("text.boilerplate_urls", "text.boilerplate_domains"),
    Reason.DECLARED_TOO_SMALL: ("image.declared_min_side",),
    Reason.DECLARED_ASPECT: ("image.declared_max_aspect",),
    Reason.LOW_SIMILARITY: ("scores.similarity",),
    Reason.NSFW: ("scores.nsfw",),
    Reason.WATERMARK: ("scores.watermark",),
    Reason.LOW_AESTHETIC: ("scores.aesthetic",),
    Reason.NO_QUERY: ("queries", "match.engine"),
    Reason.DUPLICATE_PAIR: ("dedupe.keep",),
    Reason.NEAR_DUPLICATE_CAPTION: ("dedupe.caption_likeness", "dedupe.keep"),
    Reason.DUPLICATE_URL: ("dedupe.captions_per_image", "dedupe.keep"),
    Reason.NEAR_DUPLICATE_TEXT: ("dedupe.near_texts.threshold", "dedupe.keep"),
    Reason.OVER_CAP: ("balance.cap", "balance.method", "balance.survival"),
    Reason.URL_REFUSED: ("fetch.any_port", "fetch.userinfo"),
    Reason.ROBOTS_TXT: ("fetch.robots", "fetch.user_agent"),
    Reason.CONNECTION: ("fetch.retries",),
    Reason.TIMEOUT: ("fetch.timeout", "fetch.deadline", "fetch.min_rate"),
    Reason.PRIVATE_ADDRESS: ("fetch.allow_loopback",),
    Reason.HTTP_5XX: ("fetch.retries",),
    Reason.TOO_MANY_BYTES: ("fetch.max_bytes",),
    Reason.TOO_MANY_PIXELS: ("image.max_pixels",),
    Reason.IMAGE_TOO_SMALL: ("image.min_side",),
    Reason.ASPECT_RATIO: ("image.max_aspect",),
    Reason.OVERLAP: (
        "dedupe.evaluation",
        "dedupe.evaluation_features",
        "dedupe.overlap",
        "dedupe.phash_distance",
        "dedupe.max_cosine",
    ),
    Reason.NEAR_DUPLICATE_IMAGE: (
        "dedupe.phash_distance",
        "dedupe.features",
        "dedupe.max_cosine",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What would become of a pair that was not in the input.

    Attributes:
        reason: null where it passes every rule on a row.
        stage: that found the reason.
        text: the caption as cleaned; None where none was given.
        queries: that occur in it.
        notes: what could not be asked, in sentences.
    """

    reason: str | None
    stage: str | None
    text: str | None
    queries: list[str]
    notes: list[str]


class Why:
    """Answers about one corpus.

    Args:
        corpus: a finished corpus.

    Raises:
        CorpusError: its config.json is missing or damaged.
    """

    def __init__(self, corpus: Path) -> None:
        path = corpus / "config.json"
        try:
            self.plain: dict[str, Any] = json.loads(path.read_bytes())["config"]
            config = ShardsConfig.model_validate(self.plain)
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise CorpusError(f"{path}: not a corpus' config: {first}; run `wit shards`") from None
        self.corpus, self.config = corpus, config

    def meaning(self, reason: str) -> str:
        """A reason in words; that of a user's rule is its SQL."""
        if reason in set(Reason):
            return REASONS[Reason(reason)]
        return f"your rule: {self.plain.get('drop', {}).get(reason, reason)}"

    def limits(self, reason: str) -> dict[str, Any]:
        """Keys of the config that decided a reason, with their values."""
        if reason not in set(Reason):
            return {f"drop.{reason}": self.plain.get("drop", {}).get(reason)}
        found = {}
        for key in LIMITS.get(Reason(reason), ()):
            value: Any = self.plain
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            found[key] = value
        return found

    def rows_of_url(self, con: duckdb.DuckDBPyConnection, url: str) -> list[int]:
        """Rows of the catalogue whose address is the same as the pipeline sees it."""
        if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*:", url) is None:  # a path of a local folder
            found = con.execute(sql_text("why_path.sql"), {"path": url.strip()}).fetchall()
            return [row for (row,) in found]
        path = re.match(r"[^:]*://[^/?#\\\s]*([^?#]*)", url.strip(" \t\r\n"))
        with self._scratch() as (own, folder):
            asked = _urls(own, folder, [(-1, url)])[0]
            given = {"domain": asked["domain"], "path": path[1] if path else ""}
            near = con.execute(sql_text("why_domain.sql"), given).fetchall()
            if not near or asked["url_key"] is None:
                return []
            keys = _urls(own, folder, near)
        return [line["row"] for line in keys if line["url_key"] == asked["url_key"]]

    def clean(self, text: str) -> str:
        """A caption as stage 15 leaves it."""
        with self._scratch() as (own, folder):
            pq.write_table(pa.table({"row": [0], "raw_text": [text]}), folder / "caption.parquet")
            given = {"ingest": str(folder / "caption.parquet")}
            found = own.execute(sql_text("15_clean.sql"), given).fetchall()
        return str(found[0][1] or "")

    def verdict(self, con: duckdb.DuckDBPyConnection, url: str, text: str) -> Verdict:
        """What a build would say of a pair, up to the rules that look at a row by itself.

        Where the address or the caption is empty, one of a pair that was kept stands for it.
        """
        kept = con.execute(sql_text("why_kept.sql")).fetchall()
        stand_in = kept[0] if kept else ("", "")
        notes = ["rules on scores need a row with scores: they were not asked"]
        config = self.config.model_copy(update={"scores": ScoresConfig()})
        if self.config.scores == ScoresConfig():
            notes.clear()
        lists = [path for path in config.url.opt_out if path.is_file()]
        if len(lists) < len(config.url.opt_out):
            notes.append("an opt-out list of the build is no longer there: it was not asked")
        config = config.model_copy(
            update={"url": config.url.model_copy(update={"opt_out": lists})},
        )
        if url and optout.read(self.corpus).forbid(url):
            return Verdict(Reason.OPTED_OUT, "60_fetch", text or None, [], notes)
        pair = {"url": url or stand_in[0], "text": text or stand_in[1]}
        reason, stage, cleaned, queries = self._build(config, pair)
        shown = cleaned if text else None
        return Verdict(reason, stage, shown, queries if text else [], notes)

    def _build(
        self, config: ShardsConfig, pair: dict[str, str]
    ) -> tuple[str | None, str | None, str, list[str]]:
        with (
            tempfile.TemporaryDirectory(prefix="wit-why-") as name,
            Path(os.devnull).open("w") as no,
        ):
            folder = Path(name)
            (folder / "row.jsonl").write_text(json.dumps(pair) + "\n", "utf-8")
            update = {"input": [str(folder / "row.jsonl")], "corpus": folder / "corpus"}
            queries = self.corpus / "queries.parquet"
            engine = config.engine.model_copy(update={"name": "local", "threads": 1})
            runner = Runner(
                config.model_copy(update={**update, "queries": queries, "engine": engine}), no
            )
            for stage in STAGES:
                runner.run(stage)
                if stage.name == LAST:
                    break

            def table(stage: str) -> list[dict[str, Any]]:
                parts = sorted(runner.results[stage].folder.glob("*.parquet"))
                return [line for part in parts for line in pq.read_table(part).to_pylist()]

            reason = table(LAST)[0]["reason"]
            matched = {line["query_id"] for line in table("20_match")}
            listed = {line["query_id"]: line["query"] for line in table("18_queries")}
            cleaned = table("15_clean")[0]["text"] or ""
        return reason, LAST if reason else None, cleaned, [listed[i] for i in sorted(matched)]

    def _scratch(self) -> _Scratch:
        return _Scratch(self.config)


class _Scratch:
    """A database with the pipeline's functions, and a folder for its tables; both go away."""

    def __init__(self, config: ShardsConfig) -> None:
        self._engine = config.engine.model_copy(update={"threads": 1})

    def __enter__(self) -> tuple[duckdb.DuckDBPyConnection, Path]:
        self._folder = tempfile.TemporaryDirectory(prefix="wit-why-")
        folder = Path(self._folder.name)
        self._con = connect(self._engine, folder / "spill")
        # tables are rewritten within the granularity of the times of files
        self._con.execute("SET enable_external_file_cache = false")
        return self._con, folder

    def __exit__(self, *_: object) -> None:
        self._con.close()
        self._folder.cleanup()


def check(url: str, text: str) -> None:
    """Refuse a question that is none.

    Raises:
        InputError: nothing was given, or more than a caption can be.
    """
    if not url.strip() and not text.strip():
        raise InputError("paste an address or a caption first")
    if len(url) > LONGEST or len(text) > LONGEST:
        raise InputError(f"too long: at most {LONGEST:,} characters can be asked about")


def measured(pair: dict[str, Any]) -> str:
    """What a dropped pair had where its reason has a threshold, in words; empty otherwise."""
    text = str(pair.get("text") or "")
    letters = sum(c.isalnum() for c in text)
    sides = [pair.get("original_width"), pair.get("original_height")]
    declared = [pair.get("declared_width"), pair.get("declared_height")]
    match pair.get("reason"):
        case Reason.TEXT_TOO_SHORT | Reason.TEXT_TOO_LONG:
            return f"{len(text):,} characters, {len(text.split()):,} words"
        case Reason.FEW_LETTERS:
            return f"{letters} letters and digits of {len(text.replace(' ', ''))} characters"
        case Reason.LANGUAGE:
            return f"{pair['language']}, probability {pair['language_probability']:.2f}"
        case Reason.DECLARED_TOO_SMALL | Reason.DECLARED_ASPECT if all(declared):
            return f"declared as {declared[0]} × {declared[1]} pixels"
        case Reason.IMAGE_TOO_SMALL | Reason.ASPECT_RATIO | Reason.TOO_MANY_PIXELS if all(sides):
            return f"{sides[0]} × {sides[1]} pixels"
        case Reason.LOW_SIMILARITY:
            return f"similarity {pair['similarity']}"
        case Reason.NSFW | Reason.WATERMARK as score:
            return f"{score} {pair[str(score)]}"
        case Reason.LOW_AESTHETIC:
            return f"aesthetic {pair['aesthetic']}"
    return ""


def _urls(
    own: duckdb.DuckDBPyConnection, folder: Path, rows: list[tuple[Any, ...]]
) -> list[dict[str, Any]]:
    """row, url_key, domain, tail and reason of (row, url) by the SQL of stage 12."""
    table = {
        "row": pa.array([row for row, _ in rows], pa.int64()),
        "local": pa.array([False] * len(rows), pa.bool_()),
        "source": pa.array([""] * len(rows), pa.string()),
        "url": pa.array([url for _, url in rows], pa.string()),
    }
    pq.write_table(pa.table(table), folder / "urls.parquet")
    given = {"ingest": str(folder / "urls.parquet"), "schemes": ["http", "https"]}
    found = own.execute(sql_text("12_urls.sql"), given)
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
