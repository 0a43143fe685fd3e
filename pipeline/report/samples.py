"""The parts of the page that are pictures: pairs at random and by query, duplicates, overlaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from pipeline.overlaps import in_words
from pipeline.report.source import Row, Source
from wit import page

QUERIES, PER_QUERY = 8, 5
PER_KIND = 6  # duplicates shown of each kind
OVERLAPS = 12
GONE = "picture not kept"


def _card(row: Row, pictures: Mapping[int, Image.Image]) -> str:
    """One pair: picture, caption, and where it is from."""
    picture = page.thumbnail(pictures.get(row["row"]), row["text"] or "", GONE)
    size = f"{row['original_width']}×{row['original_height']}" if row["original_width"] else ""
    facts = [fact for fact in (row["domain"], size, row["license"]) if fact]
    small = " · ".join(f"{page.text(fact, 60)}" for fact in facts)
    return (
        f"<li>{picture}<p><bdi>{page.text(row['text'] or '')}</bdi></p><small>{small}</small></li>"
    )


def _gallery(source: Source, numbers: Sequence[int]) -> str:
    rows = source.rows(numbers)
    pictures = source.pictures(rows)
    return f'<ul class="pairs">{"".join(_card(row, pictures) for row in rows)}</ul>'


def at_random(source: Source) -> list[str]:
    """A random sample of the shards."""
    found = [row["row"] for row in source.ask("sample", top=source.samples, seed=str(source.seed))]
    if not found:
        return ["<p>No pair is shown.</p>"]
    return [
        f"<p>{len(found)} of {source.whole['kept']:,} pairs, by a hash: --seed shows others.</p>",
        _gallery(source, found),
    ]


def by_query(source: Source) -> list[str]:
    """Pairs of queries from the head of the list to its tail."""
    queries = source.ask("queries", top=QUERIES)
    if not queries:
        return ["<p>No query has pairs in the shards.</p>"]
    ids = [row["query_id"] for row in queries]
    rows = source.ask("sample_queries", queries=ids, top=PER_QUERY, seed=str(source.seed))
    parts = ["<p>From the query with most pairs to one of those with fewest.</p>"]
    for query in queries:
        mine = [row["row"] for row in rows if row["query_id"] == query["query_id"]]
        parts.append(
            f"<h3><bdi>{page.text(query['query'], 80)}</bdi></h3>"
            f'<p class="note">place {query["place"]:,}: {query["matched"]:,} rows of the input,'
            f" {query['kept']:,} pairs in the shards</p>{_gallery(source, mine)}"
        )
    return parts


def duplicates(source: Source) -> list[str]:
    """Rows dropped as duplicates, beside the row that stayed."""
    found = source.ask("duplicates", top=PER_KIND, seed=str(source.seed))
    if not found:
        return ["<p>Nothing was dropped as a duplicate.</p>"]
    wanted = [row[side] for row in found for side in ("row", "kept_row") if row[side] is not None]
    pictures = source.pictures(source.rows(wanted))
    kinds = {row["reason"]: row for row in source.ask("reasons")}
    parts = []
    for reason in dict.fromkeys(row["reason"] for row in found):
        kind = kinds[reason]
        mine = [row for row in found if row["reason"] == reason]
        items = "".join(_beside(row, pictures) for row in mine)
        parts.append(
            f"<h3>{page.text(reason)}</h3>"
            f'<p class="note">{kind["rows"]:,} rows: {page.text(kind["meaning"])}; stays: '
            f'{page.text(mine[0]["rule"])}</p><ul class="pairs wide">{items}</ul>'
        )
    return parts


def _beside(row: Row, pictures: Mapping[int, Image.Image]) -> str:
    sides = (("dropped", row["row"], row["text"], row["url"]),
             ("stays", row["kept_row"], row["kept_text"], row["kept_url"]))  # fmt: skip
    return f'<li><div class="sides">{"".join(_side(*side, pictures) for side in sides)}</div></li>'


def _side(
    what: str,
    row: int | None,
    text: str | None,
    url: str | None,
    pictures: Mapping[int, Image.Image],
) -> str:
    picture = page.thumbnail(pictures.get(row) if row is not None else None, text or "", GONE)
    return (
        f"<div><b>{what}</b>{picture}<p><bdi>{page.text(text or '', 160)}</bdi></p>"
        f"<small><bdi>{page.text(url or '', 120)}</bdi></small></div>"
    )


def overlaps(source: Source) -> list[str]:
    """Pairs that show a picture of an evaluation set."""
    dedupe = source.settings["dedupe"]
    searched = [*dedupe["evaluation"], *dedupe.get("evaluation_features", ())]
    sets = source.ask("overlap_sets")
    if not sets:
        names = ", ".join(page.text(name) for name in searched)
        said = f"None was found in {names}." if searched else (
            "No evaluation set was named when the corpus was built: --dedupe.evaluation FOLDER."
        )  # fmt: skip
        return [f"<p>{said}</p>"]
    found = source.ask("overlaps", top=OVERLAPS, seed=str(source.seed))
    rows = {row["row"]: row for row in source.rows([row["row"] for row in found])}
    pictures = source.pictures(list(rows.values()))
    theirs = source.evaluation_pictures({(row["set"], row["key"]) for row in found})
    items = []
    for row in found:
        pair = rows[row["row"]]
        mine = _side("corpus", row["row"], pair["text"], pair["url"], pictures)
        how = in_words(row["how"], row["distance"])
        other = page.thumbnail(theirs.get((row["set"], row["key"])), row["key"], "set not at hand")
        items.append(
            f'<li><div class="sides">{mine}<div><b>{page.text(row["set"], 60)}</b>{other}'
            f"<p>{page.text(row['key'], 80)}</p><small>{how}; the pair is {pair['verdict']}</small>"
            "</div></div></li>"
        )
    table = page.table(list(sets[0]), [row.values() for row in sets], "Overlaps by evaluation set")
    return [table, f'<ul class="pairs wide">{"".join(items)}</ul>']
