"""The tables of the catalogue and how they hang together, as an SVG: `wit sql --diagram FILE`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import duckdb

from pipeline.engine import sql_text

# Which column refers to which. `pairs` is in the middle.
RELATIONS = (
    ("matches.query_id", "queries.query_id"),
    ("matches.row", "pairs.row"),
    ("duplicates.row", "pairs.row"),
    ("duplicates.duplicate_of", "pairs.uid"),
    ("eval_overlaps.row", "pairs.row"),
    ("pairs.reason", "reasons.reason"),
    ("pairs.stage", "stages.stage"),
    ("pairs.domain", "domains.domain"),
    ("pairs.language", "languages.language"),
    ("pairs.shard", "shards.shard"),
)
PLACES = (
    ("queries", "words", "image_sizes"),
    ("matches", "duplicates", "eval_overlaps"),
    ("pairs",),
    ("domains", "languages", "reasons", "stages", "shards"),
)
WIDTH, GAP, LINE, HEAD, MARGIN, APART = 200, 64, 17, 25, 16, 20  # pixels
STYLE = """
svg { color-scheme: light dark; --ink: #101010; --muted: #616161; --line: #c4c8ce; --panel: #fff;
  --head: #e8f1f8; --link: #0072b2; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8e8e8; --muted: #a3a7ad; --line: #454a51;
  --panel: #1a1d21; --head: #1d3445; --link: #56b4e9; } }
text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.type { fill: var(--muted); text-anchor: end; }
.name { font-weight: 600; }
.box { fill: var(--panel); stroke: var(--line); }
.head { fill: var(--head); stroke: var(--line); }
.link { fill: none; stroke: var(--link); stroke-width: 1.3; }
.end { fill: var(--link); }
"""
Columns = Sequence[tuple[str, str, str]]  # name, type, meaning


def diagram(con: duckdb.DuckDBPyConnection) -> str:
    """The SVG of an open catalogue; equal schemas give equal text.

    Raises:
        KeyError: a table that `PLACES` doesn't name, or that is gone.
    """
    tables: dict[str, list[tuple[str, str, str]]] = {}
    for table, column, kind, meaning in con.execute(sql_text("sql_tables.sql")).fetchall():
        tables.setdefault(table, []).append((column, kind, meaning or ""))
    meanings = dict(con.execute(sql_text("sql_meanings.sql")).fetchall())
    corners = _corners(tables)
    height = max(y + _height(tables[name]) for name, (_, y) in corners.items()) + MARGIN
    width = 2 * MARGIN + len(PLACES) * WIDTH + (len(PLACES) - 1) * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="The tables of corpus.duckdb">',
        f"<style>{STYLE}</style>",
        *(_link(tables, corners, *relation) for relation in RELATIONS),
        *(
            _table(name, meanings[name], tables[name], corners[name])
            for column in PLACES
            for name in column
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _height(columns: Columns) -> int:
    return HEAD + LINE * len(columns) + 6


def _corners(tables: Mapping[str, Columns]) -> dict[str, tuple[int, int]]:
    """Upper left corner of each table; the stacks stand on one middle line."""
    stacks = [sum(_height(tables[n]) for n in s) + APART * (len(s) - 1) for s in PLACES]
    found = {}
    for i, (stack, height) in enumerate(zip(PLACES, stacks, strict=True)):
        y = MARGIN + (max(stacks) - height) // 2
        for name in stack:
            found[name] = (MARGIN + i * (WIDTH + GAP), y)
            y += _height(tables[name]) + APART
    missing = tables.keys() - found.keys()
    if missing:
        raise KeyError(f"{min(missing)} has no place in the diagram")
    return found


def _table(name: str, meaning: str, columns: Columns, corner: tuple[int, int]) -> str:
    x, y = corner
    lines = [
        f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{_height(columns)}" rx="5"/>',
        f'<rect class="head" x="{x}" y="{y}" width="{WIDTH}" height="{HEAD}" rx="5"/>',
        f'<text class="name" x="{x + 9}" y="{y + 17}">{name}<title>{html.escape(meaning)}</title>'
        "</text>",
    ]
    for i, (column, kind, comment) in enumerate(columns):
        base = y + HEAD + LINE * i + 14
        lines.append(
            f'<g><title>{html.escape(comment)}</title><text x="{x + 9}" y="{base}">{column}</text>'
            f'<text class="type" x="{x + WIDTH - 9}" y="{base}">{kind}</text></g>'
        )
    return "\n".join(lines)


def _link(
    tables: Mapping[str, Columns], corners: Mapping[str, tuple[int, int]], child: str, parent: str
) -> str:
    """A curve from a column to the one it refers to, which has the dot."""
    (x1, y1), (x2, y2) = (_middle(tables, corners, name) for name in (child, parent))
    if x1 < x2:
        x1 += WIDTH
    else:
        x2 += WIDTH
    turn = (x1 + x2) // 2
    return (
        f'<path class="link" d="M{x1} {y1} C{turn} {y1} {turn} {y2} {x2} {y2}"/>'
        f'<circle class="end" cx="{x2}" cy="{y2}" r="3"/>'
    )


def _middle(
    tables: Mapping[str, Columns], corners: Mapping[str, tuple[int, int]], name: str
) -> tuple[int, int]:
    table, _, column = name.partition(".")
    place = [each for each, _, _ in tables[table]].index(column)
    x, y = corners[table]
    return x, y + HEAD + LINE * place + 10
