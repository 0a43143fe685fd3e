"""The data card: what the corpus is, where it comes from, what decided it, and what it can't."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from pipeline.config import ShardsConfig
from pipeline.report.source import Source
from wit import page

TOP = 30  # sources and licences that are listed


def data_card(source: Source) -> list[str]:
    """Sources, licences, filters with their thresholds, versions, known limits."""
    sources = source.ask("sources", top=TOP)
    licenses = source.ask("licenses", top=TOP)
    facts = [
        ("Pairs", f"{source.whole['kept']:,} of {source.whole['rows']:,} rows of metadata"),
        ("Built", _when(source)),
        ("Fingerprint", source.manifest.fingerprint),
        ("Versions", ", ".join(f"{n} {v}" for n, v in source.manifest.versions.items())),
        ("Input", ", ".join(source.settings["input"]) or "not recorded"),
        ("Query list", source.settings["queries"] or "frequent words of the corpus itself"),
        ("Images", _images(source.settings["image"])),
    ]
    if source.sources:
        prints = ", ".join(source.sources)
        facts.insert(1, ("Cut from", f"corpora {prints}; settings are those of the first"))
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{page.text(text, 1000)}</dd>" for name, text in facts
    )
    changed = [row for row in thresholds(source.settings) if row[3]]
    plain = [row[:3] for row in thresholds(source.settings)]
    filters = ("key", "value", "by default")
    return [
        f'<dl class="facts">{items}</dl>',
        "<h3>Source</h3>",
        page.table(("file", "rows", "in the shards"), [row.values() for row in sources], "Sources"),
        "<h3>Licences</h3>",
        "<p>Licences are what the metadata declare, nothing more; the shards hold copies of images"
        " whose rights lie with their owners. URLs, captions and verdicts are in the catalogue, so"
        " that a pair can be traced and taken out with <code>wit remove</code>.</p>",
        page.table(
            ("declared licence", "rows", "in the shards"),
            [row.values() for row in licenses],
            "Licences",
        ),
        "<h3>Filters</h3>",
        page.table(filters, [row[:3] for row in changed], "Settings that were changed", 200)
        if changed
        else "<p>Every threshold is the default.</p>",
        page.folded("All settings", page.table(filters, plain, "All settings", 200)),
        "<h3>Known limits</h3>",
        "<ul>" + "".join(f"<li>{limit}</li>" for limit in limits(source)) + "</ul>",
    ]


def _images(settings: dict[str, Any]) -> str:
    return (
        f"{settings['encoding']}, at most {settings['size']} pixels ({settings['resize']}), quality"
        f" {settings['quality']} where they had to be encoded again"
    )


def _when(source: Source) -> str:
    """The day of the last run, from the log; it is no part of the corpus itself."""
    try:
        lines = (source.corpus / "log.jsonl").read_text("utf-8").splitlines()
        runs = [json.loads(line)["run"] for line in lines if '"run"' in line]
        return str(runs[-1])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return "not recorded"


def thresholds(settings: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Key, value, default of every setting that decides the content, and whether they differ."""
    default = dict(_flat(ShardsConfig().identity()))
    rows = []
    for key, value in _flat(settings):
        known = default.get(key)
        rows.append((key, _plain(value), _plain(known), value != known))
    return rows


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(value: Any) -> str:
    if value is None or value in ([], {}):
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def limits(source: Source) -> list[str]:
    """What a user of this corpus should know, from its settings and numbers; HTML."""
    settings, rows = source.settings, max(source.whole["rows"], 1)
    scored = source.ask("scores")[0]
    unlicensed = sum(
        r["rows"] for r in source.ask("licenses", top=TOP) if r["license"] == "none declared"
    )
    found = [
        "Captions are what stood beside the images on the web: they may be wrong, incomplete,"
        " offensive or private, and no person has read them.",
        f"{unlicensed / rows:.0%} of the input declares no licence.",
        "Languages are guessed from the caption alone; a guess about a few words is often wrong, so"
        " a caption is dropped only when the guess is sure.",
        "Perceptual hashes find other sizes and encodings of a picture; crops and edits they find"
        " only when they are slight.",
    ]
    absent = [name for name in ("nsfw", "watermark", "similarity", "aesthetic") if not scored[name]]
    unused = [name for name in ("nsfw", "watermark", "similarity", "aesthetic")
              if scored[name] and not any(settings["scores"][name].values())]  # fmt: skip
    if absent:
        found.append(
            f"No row has a score for {' or '.join(absent)}, so nothing was filtered by it."
        )
    if unused:
        found.append(f"Scores for {' and '.join(unused)} are there and no rule uses them.")
    if not settings["dedupe"]["evaluation"]:
        found.append("No evaluation set was looked for: numbers on public sets may be too good.")
    if not settings["fetch"]["robots"]:
        found.append("robots.txt was not asked for.")
    removed = source.corpus / "optouts.txt"
    entries = len(removed.read_text("utf-8").splitlines()) if removed.is_file() else 0
    found.append(
        f"{entries:,} opt-outs were applied after the download."
        if entries
        else "No opt-out was applied after the download (<code>wit remove</code>)."
    )
    return found
