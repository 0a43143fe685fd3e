"""Rules of the user: one line of SQL each, which names the reason of the rows it drops.

A rule is a condition on one row. It becomes a branch of the macro `custom_reason`, which
`30_filter.sql` calls, so it is part of that query and costs no pass of its own. What is more
than a condition on the row's own columns is refused before anything runs: other tables and
files, subqueries, aggregates, parameters, and functions that give another answer each time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from pipeline.config import ShardsConfig
from wit.errors import ConfigError
from wit.schema import Reason

# What a rule can ask about, with types; the arguments of the macro, in its order.
COLUMNS = {
    "url": "VARCHAR",
    "domain": "VARCHAR",
    "source": "VARCHAR",
    "raw_text": "VARCHAR",
    "text": "VARCHAR",
    "words": "VARCHAR",
    "language": "VARCHAR",
    "language_probability": "DOUBLE",
    "license": "VARCHAR",
    "declared_width": "INTEGER",
    "declared_height": "INTEGER",
    "similarity": "DOUBLE",
    "nsfw": "DOUBLE",
    "watermark": "DOUBLE",
    "aesthetic": "DOUBLE",
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PLAIN = (
    "BETWEEN",
    "CASE",
    "CAST",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "OPERATOR",
    "COLLATE",
)  # classes of DuckDB's expressions that look at nothing but the row


def macro(config: ShardsConfig) -> str:
    """The SQL that defines `custom_reason(url, ...)`: the name of the first rule that holds."""
    # TRY: where a value can't be worked out (a cast that fails), the rule does not hold
    branches = " ".join(f"WHEN TRY(\n{rule}\n) THEN '{name}'" for name, rule in config.drop.items())
    body = f"CASE {branches} END" if branches else "CAST(NULL AS VARCHAR)"
    return f"CREATE OR REPLACE TEMP MACRO custom_reason({', '.join(COLUMNS)}) AS {body}"


def check(rules: Mapping[str, str]) -> None:
    """Refuse a rule that is no condition on one row.

    Raises:
        ConfigError: naming the rule and what is wrong with it.
    """
    if not rules:
        return
    with duckdb.connect(config={"enable_external_access": False}) as con:
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in COLUMNS.items())
        con.execute(f"CREATE VIEW a_row AS SELECT {columns}")
        for name, rule in rules.items():
            problem = _bad_name(name) or _problem(con, rule)
            if problem:
                raise ConfigError(f"drop.{name} = {rule!r}: {problem}")


def _bad_name(name: str) -> str | None:
    if not _NAME.fullmatch(name):
        return "a reason is named in lower-case letters, digits and _: rename it"
    if name in set(Reason):
        return "this reason is one of the project's own: rename it"
    return None


def _problem(con: duckdb.DuckDBPyConnection, rule: str) -> str | None:
    """What keeps a rule from being a condition on a row, and the mend."""
    tree = json.loads(
        con.execute("SELECT json_serialize_sql($1)", [f"SELECT (\n{rule}\n) AS rule"]).fetchall()[
            0
        ][0]
    )
    if tree["error"]:
        return f"not SQL ({_first(tree['error_message'])}): write one condition on the row"
    node = tree["statements"][0]["node"]
    plain = (
        len(tree["statements"]) == 1
        and node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not any(node[part] for part in ("where_clause", "having", "qualify", "sample"))
        and not any(node[part] for part in ("modifiers", "group_expressions"))
        and not node["cte_map"]["map"]
    )
    if not plain:
        return "more than one condition: write one condition on the row"
    for found in _expressions(node["select_list"][0]):
        if found["class"] not in _PLAIN:
            kind = found["class"].lower().replace("_", " ")
            return f"a {kind} has no place in a rule: use the columns of the row only"
        if len(found.get("column_names", [""])) > 1:
            return f"{'.'.join(found['column_names'])}: write the plain name of a column"
        # current_date and the like are written as columns are
        name = found.get("function_name") or found.get("column_names", [""])[-1]
        problem = None if name in COLUMNS else _bad_function(con, name)
        if problem:
            return problem
    try:
        kind = con.execute(f"SELECT (\n{rule}\n) AS rule FROM a_row").description[0][1]
    except duckdb.Error as error:
        return f"{_first(str(error))}: the columns are {', '.join(COLUMNS)}"
    if str(kind) not in ("BOOLEAN", "bool", "BOOL"):
        return f"it is {kind}, not true or false: write a comparison"
    return None


def _bad_function(con: duckdb.DuckDBPyConnection, name: str) -> str | None:
    kinds = con.execute(
        "SELECT DISTINCT function_type, stability FROM duckdb_functions() WHERE function_name = $1",
        [name.lower()],
    ).fetchall()
    if name.lower() == "unnest" or any(kind == "aggregate" for kind, _ in kinds):
        return f"{name} looks at many rows: use functions of one row"
    if any(kind == "scalar" and stability != "CONSISTENT" for kind, stability in kinds):
        return f"{name} gives another answer each time: use functions of the row alone"
    return None


def _expressions(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("class"), str):
            yield value
        for inner in value.values():
            yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def _first(message: str) -> str:
    return message.strip().splitlines()[0]
