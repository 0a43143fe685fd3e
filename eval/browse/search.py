"""Words and filters as one query over the catalogue.

Every word must stand in a caption; what is in quotes must stand there as it is, and `umbrel*` finds
what begins so. Captions are ranked by BM25 (Robertson and Zaragoza 2009, with its usual k1 and b).
Values are parameters, column names are those of the catalogue: no SQL of a visitor gets in here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engine import sql_text
from wit.errors import InputError
from wit.text import words

K1, B = 1.2, 0.75
MOST_TERMS, MOST_FILTERS = 16, 16
# Scripts without spaces: a caption's words are long runs there, so a search looks inside of them.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_PARTS = re.compile(r'"([^"]*)"|(\S+)')
# What a filter may ask, as SQL with {column}, {value} (cast to its type) and {text}.
OPERATORS = {
    "is": "{column} IS NOT DISTINCT FROM {value}",
    "is not": "{column} IS DISTINCT FROM {value}",
    "contains": "contains(lower(CAST({column} AS VARCHAR)), lower({text}))",
    "at least": "{column} >= {value}",
    "at most": "{column} <= {value}",
    "is empty": "{column} IS NULL",
    "is not empty": "{column} IS NOT NULL",
}
# Filters that are no column of `pairs`.
RELATED = {
    "query": "pairs.row IN (SELECT matches.row FROM matches JOIN queries USING (query_id)"
    " WHERE queries.query = {text} OR queries.words = lower({text}))",
    "eval_overlap": "pairs.row IN (SELECT eval_overlaps.row FROM eval_overlaps WHERE set = {text})",
}
NUMBERS = ("INT", "DOUBLE", "FLOAT", "DECIMAL")


@dataclass
class Query:
    """A piece of SQL and its parameters."""

    conditions: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    def add(self, value: Any) -> str:
        """Make a value a parameter; returns its name in the SQL."""
        name = f"v{len(self.params)}"
        self.params[name] = value
        return f"${name}"

    @property
    def where(self) -> str:
        return " AND ".join(f"({condition})" for condition in self.conditions) or "true"


def filters(asked: Any, columns: Mapping[str, str]) -> Query:
    """Conditions on `pairs`.

    Args:
        asked: a list of {"column", "op", "value"}.
        columns: name to type, of the catalogue.

    Raises:
        InputError: no such column or operator, or a value of another type.
    """
    query = Query()
    if not isinstance(asked, list) or len(asked) > MOST_FILTERS:
        raise InputError(f"filters: give a list of at most {MOST_FILTERS}")
    for one in asked:
        if not isinstance(one, dict):
            raise InputError("filters: each has a column, an op and a value")
        name, op, value = (str(one.get(key, "")) for key in ("column", "op", "value"))
        if name in RELATED:
            query.conditions.append(RELATED[name].format(text=query.add(value)))
            continue
        if name not in columns or op not in OPERATORS:
            raise InputError(f"there is no filter {name[:40]} {op[:40]}")
        kind = columns[name]
        if "{value}" in OPERATORS[op]:
            _check_value(name, kind, value)
        place = query.add(value) if "empty" not in op else ""
        condition = OPERATORS[op].format(
            column=f'pairs."{name}"', value=f"CAST({place} AS {kind})", text=place
        )
        query.conditions.append(condition)
    return query


def _check_value(name: str, kind: str, value: str) -> None:
    if not any(number in kind for number in NUMBERS):
        return
    whole = "INT" in kind
    try:
        float(int(value) if whole else float(value))
    except (ValueError, OverflowError):
        raise InputError(
            f"{name} is a {'whole ' if whole else ''}number: {value[:40]!r} is none"
        ) from None


@dataclass(frozen=True)
class Terms:
    """What was typed, taken apart.

    Attributes:
        ranges: lowest and highest word; equal, unless a prefix was asked for.
        pieces: strings that a caption must hold as they are, whatever their case.
    """

    ranges: list[tuple[str, str]]
    pieces: list[str]


def terms(text: str) -> Terms:
    """Take a search apart.

    Raises:
        InputError: more words than are looked up at once.
    """
    ranges: dict[tuple[str, str], None] = {}
    pieces: dict[str, None] = {}
    for quoted, bare in _PARTS.findall(text):
        found = words(quoted or bare)
        if quoted and len(found) > 1:
            pieces[quoted.lower().strip()] = None
        for i, word in enumerate(found):
            if _UNSPACED.search(word):
                pieces[word] = None
            elif bare.endswith("*") and i == len(found) - 1:
                ranges[word, word + "\U0010ffff"] = None
            else:
                ranges[word, word] = None
    if text.strip() and not ranges and not pieces:  # nothing but signs
        pieces[text.strip().lower()] = None
    if len(ranges) + len(pieces) > MOST_TERMS:
        raise InputError(f"at most {MOST_TERMS} words are looked up at once")
    return Terms(list(ranges), list(pieces))


def ranked(found: Terms, query: Query, order: str = "") -> tuple[str, str]:
    """Two SELECTs on the captions that hold all terms: `row` of the best, and how many there are.

    Args:
        query: the filters; gets the parameters of the words. The first SELECT also takes $limit,
            $offset, $rows (of pairs) and $size (words of a caption, on average).
        order: columns to order by in place of the score.
    """
    tables, joins, scores = [], [], []
    for i, (low, high) in enumerate(found.ranges):
        file = "browse_word.sql" if low == high else "browse_prefix.sql"
        body = sql_text(file).replace("$low", query.add(low))
        body = body.replace("$high", query.add(high)) if low != high else body
        tables.append(f"t{i} AS (\n{body}\n)")
        joins.append(f"JOIN t{i} ON t{i}.row = pairs.row")
        rarity = f"ln(1 + ($rows - (SELECT count(*) FROM t{i}) + 0.5)"
        rarity += f" / ((SELECT count(*) FROM t{i}) + 0.5))"
        length = f"{K1} * ({1 - B} + {B} * t{i}.size / $size)"
        scores.append(f"{rarity} * t{i}.times * {K1 + 1} / (t{i}.times + {length})")
    for piece in found.pieces:
        query.conditions.append(f"contains(lower(pairs.text), {query.add(piece)})")
    head = f"WITH {', '.join(tables)}\n" if tables else ""
    matched = f"FROM pairs\n{' '.join(joins)}\nWHERE {query.where}"
    by = order or (f"{' + '.join(scores)} DESC, pairs.rank" if scores else "pairs.rank")
    best = (
        f"{head}SELECT pairs.row\n{matched}\nORDER BY {by}, pairs.row LIMIT $limit OFFSET $offset"
    )
    return best, f"{head}SELECT count(*)\n{matched}"


def order_by(asked: Sequence[str], columns: Mapping[str, str]) -> str:
    """`column` or `-column` (descending) as SQL, nulls last.

    Raises:
        InputError: no such column.
    """
    parts = []
    for name in asked:
        down, plain = name.startswith("-"), name.removeprefix("-")
        if plain not in columns:
            raise InputError(f"there is no column {plain[:40]}")
        parts.append(f'pairs."{plain}" {"DESC" if down else "ASC"} NULLS LAST')
    return ", ".join(parts)
