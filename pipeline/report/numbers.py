"""The parts of the page that are charts: funnel, queries, cap, domains, captions, images, download,
shuffle. Each is a function of the corpus that gives HTML, with the numbers behind every chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from pipeline.catalogue import NAME
from pipeline.plan import Plan
from pipeline.report import charts
from pipeline.report.source import Source
from wit import page
from wit.charts import style, svg
from wit.errors import CorpusError
from wit.manifest import PROVENANCE
from wit.progress import duration
from wit.schema import Reason

TOP = 15  # bars of a chart
LONG = 50  # lines of a table
BINS = 48  # of the time of the download
SHARDS = 50  # that the shuffle is measured on
POINTS = 1500  # of the picture of the shuffle

CUT = "the rows that a cap left out stayed with the corpora that this one was cut from"

_ORDER = list(Reason)
DOWNLOAD = set(_ORDER[_ORDER.index(Reason.URL_REFUSED) : _ORDER.index(Reason.NOT_AN_IMAGE)])
PICTURES = {Reason.OVERLAP, Reason.DUPLICATE_IMAGE, Reason.NEAR_DUPLICATE_IMAGE}
STEPS = {
    "rules": "rules on text and URL",
    "duplicates": "duplicate URLs",
    "cap": "cap per query",
    "download": "download",
    "images": "rules on images",
    "pictures": "duplicate pictures",
    "again": "cap again",
}


def step_of(reason: str, stage: str) -> str:
    """Which step of the funnel a reason belongs to, as a value of `STEPS`."""
    if stage == "70_images":
        name = "download" if reason in DOWNLOAD else "pictures" if reason in PICTURES else "images"
    else:
        name = {"30_filter": "rules", "40_dedupe": "duplicates", "50_balance": "cap",
                "75_cap": "again"}.get(stage, "rules")  # fmt: skip
    return STEPS[name]


def drawn(figure: Figure, caption: str, rows: Sequence[dict[str, Any]], longest: int = 60) -> str:
    """A chart with the numbers behind it."""
    if not rows:
        return page.figure(svg(figure, caption), caption)
    columns = list(rows[0])
    table = page.table(columns, [row.values() for row in rows[:LONG]], caption, longest)
    more = f"<p>and {len(rows) - LONG:,} more lines</p>" if len(rows) > LONG else ""
    return page.figure(svg(figure, caption), caption, table + more)


def funnel(source: Source) -> list[str]:
    """From the input to the shards, and the reasons on the way."""
    if source.sources:
        return [_cut(source)]
    found = source.ask("reasons")
    groups = {row["reason"]: step_of(row["reason"], row["stage"]) for row in found}
    dropped = dict.fromkeys(STEPS.values(), 0)
    for row in found:
        dropped[step_of(row["reason"], row["stage"])] += row["rows"]
    left = source.whole["rows"]
    steps = [("input", left, 0)]
    for name, gone in dropped.items():
        left -= gone
        if gone or name != STEPS["again"]:
            steps.append((name, left, gone))
    if left != source.whole["kept"]:
        raise CorpusError(
            f"{source.corpus / NAME}: {left} rows are left of its reasons and"
            f" {source.whole['kept']} are in the shards; run `wit shards` again"
        )
    lines = [{"step": name, "rows left": rows, "dropped": gone} for name, rows, gone in steps]
    with style():
        parts = [drawn(charts.funnel(steps), "Rows from the input to the shards", lines)]
        if found:
            top = found[:TOP]
            parts.append(drawn(charts.reasons(top, groups), "Why rows were dropped", found, 200))
    return [f'<div class="charts">{"".join(parts)}</div>']


def _cut(source: Source) -> str:
    """What was taken of other corpora."""
    (stage,) = source.manifest.stages
    lines = [("samples of the corpora it was cut from", stage["rows_in"])]
    lines += [(f"left out: {name}", -number) for name, number in sorted(stage["reasons"].items())]
    lines.append(("in the shards", stage["rows_out"]))
    return page.table(("", "samples"), lines, "From other corpora to these shards")


def queries(source: Source) -> list[str]:
    """Pairs per query, and what the cap does."""
    cap = source.settings["balance"]["cap"]
    found = source.ask("queries_curve")
    if not found:
        return ["<p>No query occurs in a caption.</p>"]
    with style():
        title = "Pairs per query before and after the cap, both axes logarithmic"
        parts = [drawn(charts.queries(found, cap), title, found)]
        method = source.settings["balance"]["method"]
        plan: Plan | None = None
        try:
            plan = Plan(source.corpus, method, source.con)
        except CorpusError as error:
            why = CUT if source.sources else str(error)
            said = f'<p class="note">The size against the cap is not drawn: {page.text(why)}</p>'
        if plan is not None:
            points = [(point.cap, point.pairs, point.tail_share) for point in plan.curve()]
            lines = [{"cap": at, "pairs": pairs, "matches in the tail": share}
                     for at, pairs, share in points]  # fmt: skip
            title = "Size of the corpus against the cap, before the download"
            parts.append(drawn(charts.curve(points, cap), title, lines))
            here = plan.point(cap)
            said = (
                f"<p>With the cap of {cap:,}, {here.tail_queries:,} of {source.whole['queries']:,}"
                f" queries have fewer pairs than the cap; they hold {here.tail_share:.1%} of all"
                " matches.</p>"
            )
    head = source.ask("queries", top=20)
    columns = ("place", "query", "source", "matched", "reached", "kept")
    table = page.table(columns, [[row[c] for c in columns] for row in head], "Some queries", 80)
    return [said, f'<div class="charts">{"".join(parts)}</div>',
            page.folded("Queries from the head of the list to its tail", table)]  # fmt: skip


def domains(source: Source) -> list[str]:
    """Where pairs come from."""
    found = source.ask("domains", top=LONG)
    if not any(row["domain"] for row in found):
        return ["<p>The images are local files: there are no domains.</p>"]
    curve = source.ask("domains_curve")
    with style():
        parts = [drawn(charts.shares(found[:TOP], "domain"), "Domains with most rows", found, 60)]
        if len(curve) > 1:
            title = "Pairs per domain, both axes logarithmic"
            parts.append(drawn(charts.domains_curve(curve), title, curve))
    return [f'<div class="charts">{"".join(parts)}</div>']


def captions(source: Source) -> list[str]:
    """Languages and lengths."""
    parts = []
    with style():
        found = source.ask("languages", top=LONG)
        if found:
            figure = charts.shares(found[:TOP], "language", log=True)
            parts.append(drawn(figure, "Languages, as guessed from the caption", found))
        lengths = (("words", "words of a caption; 60 stands for more", False),
                   ("characters", "characters of a caption", True))  # fmt: skip
        for name, words, log in lengths:
            found = source.ask(name)
            if found:
                figure = charts.lengths(filled(found, name, log), name, words, log)
                parts.append(drawn(figure, f"Length of captions in {name}", found))
    return [f'<div class="charts">{"".join(parts)}</div>']


def filled(rows: Sequence[dict[str, Any]], name: str, log: bool) -> list[dict[str, Any]]:
    """Classes of lengths with those that are empty, so that a line through them is true."""
    by_class = {round(4 * math.log2(row[name])) if log else row[name]: row for row in rows}
    return [
        by_class.get(i, {name: 2 ** (i / 4) if log else i, "rows": 0, "kept": 0})
        for i in range(min(by_class), max(by_class) + 1)
    ]


def images(source: Source) -> list[str]:
    """Sizes and formats as they were downloaded."""
    found = source.ask("shapes")
    if not found:
        return ["<p>No image is in the shards.</p>"]
    lines = [
        {
            "width from": round(2 ** (row["width_class"] / 4)),
            "height from": round(2 ** (row["height_class"] / 4)),
            "pairs": row["pairs"],
        }
        for row in sorted(found, key=lambda row: -row["pairs"])
    ]
    with style():
        title = "Sizes of the downloaded images that are in the shards"
        parts = [drawn(charts.shapes(found), title, lines)]
    stats = [("stats_sizes.sql", "Shorter side of the downloaded image"),
             ("stats_formats.sql", "Formats of the downloaded images")]  # fmt: skip
    tables = [f"<h3>{title}</h3>{_stats_table(source, file, title)}" for file, title in stats]
    return [f'<div class="charts">{"".join(parts)}<div>{"".join(tables)}</div></div>']


def _stats_table(source: Source, file: str, name: str) -> str:
    from pipeline.engine import sql_text

    source.con.execute(sql_text(file))
    columns = [column[0] for column in source.con.description or []]
    return page.table(columns, source.con.fetchall(), name)


def download(source: Source) -> list[str]:
    """What came of the URLs, and when."""
    file = source.file(PROVENANCE)
    if file is None:
        return [
            f'<p class="note">{PROVENANCE} of this corpus is gone: it says what came of URLs.</p>'
        ]
    outcomes = source.ask("outcomes", provenance=file)
    if not outcomes:
        return ["<p>Nothing was to be downloaded.</p>"]
    timed = source.ask("times", provenance=file, bins=BINS)
    meanings = {row["reason"]: row["meaning"] for row in source.ask("reasons")}
    for row in outcomes:
        row["meaning"] = meanings.get(row["outcome"], "")
    urls = sum(row["urls"] for row in outcomes)
    stored = sum(row["urls"] for row in outcomes if row["outcome"] == charts.STORED)
    taken = size(sum(row["bytes"] for row in outcomes))
    share = f"{stored:,} of {urls:,} URLs ({stored / urls:.1%})"
    said = f"<p>{share} gave an image; {taken} were taken.</p>"
    parts = []
    with style():
        if timed:
            lines = [{"second": round(row["bin"] * row["length"] / BINS, 1),
                      "outcome": row["outcome"], "urls": row["urls"], "bytes": row["bytes"]}
                     for row in timed]  # fmt: skip
            title = f"URLs over the {duration(timed[0]['length'])} of the download, UTC"
            parts.append(drawn(charts.times(timed, BINS), title, lines))
        title = "What came of the URLs in all"
        parts.append(drawn(charts.outcomes(outcomes), title, outcomes, 200))
    none = "" if timed else '<p class="note">The times of the answers were not kept.</p>'
    return [said, none, f'<div class="charts">{"".join(parts)}</div>']


def size(count: int) -> str:
    """Bytes as people read them: 3.38 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def shuffle(source: Source) -> list[str]:
    """How well the order of the shards is mixed, beside what chance would give."""
    shards = [row["shard"] for row in source.ask("shards", top=SHARDS)]
    found = source.ask("neighbours", shards=shards)
    if not found or found[0]["pairs"] < 2:
        return ["<p>There are too few pairs to tell.</p>"]
    row = found[0]
    lines = []
    for name, words in (("domain", "neighbours from one domain, %"),
                        ("source", "neighbours from one input file, %"),
                        ("language", "neighbours of one language, %")):  # fmt: skip
        seen, chance = row[f"{name}_seen"], row[f"{name}_chance"]
        if seen is not None and chance:
            lines.append([words, 100 * seen, 100 * chance, seen / chance])
    if row["distance_chance"]:
        ratio = row["distance_seen"] / row["distance_chance"]
        lines.append(["rows between neighbours in the input", row["distance_seen"],
                      row["distance_chance"], ratio])  # fmt: skip
    which = "all shards" if len(shards) == source.whole["shards"] else f"{len(shards)} shards"
    columns = ("what", "in the shards", "in a perfect shuffle", "ratio")
    table = page.table(columns, lines, "Shuffle quality")
    places = source.ask("order", shards=shards, top=POINTS)
    with style():
        title = "Place in the input against place in the shards: evenly filled is well shuffled"
        figure = drawn(charts.order(places), title, [])
    return [
        "<p>Samples lie in the order of a hash over the whole corpus, so that a trainer which reads"
        " shard after shard sees no neighbours from one site. Measured on"
        f" {row['pairs'] + len(shards):,} pairs of {which}; a ratio of 1 is ideal.</p>",
        f'<div class="charts"><div>{table}</div>{figure}</div>',
    ]
