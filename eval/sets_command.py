"""`wit eval sets DIR`: which sets of the paper are in a folder, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from eval import registry, sets
from eval.config import EvalConfig
from wit.config import Settings, load
from wit.errors import WitError


class SetsConfig(Settings):
    """List the registry's sets: which are in a folder, which are missing or not as published."""

    folder: CliPositionalArg[Path] = Path("data/sets")
    """folder that holds the sets, each under a name of the registry"""
    registry: Path | None = None
    """TOML file in place of the paper's registry."""
    split: str = EvalConfig.model_fields["split"].default
    """Split that is evaluated."""
    check: bool = False
    """Open every set that is there and hold it against the registry (reads all its bytes)."""
    as_json: bool = Field(default=False, alias="json")
    """Print a list of JSON objects instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(SetsConfig, argv, prog="wit eval sets")
    rows = listing(config)
    if config.as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        _print(rows)
    return 0


def listing(config: SetsConfig) -> list[dict[str, Any]]:
    """One row for each entry of the registry."""
    known = registry.read(config.registry)
    places = registry.find(known, config.folder) if config.folder.is_dir() else {}
    rows = []
    for name, entry in known.entries.items():
        place = places.get(name)
        rows.append(
            {
                "set": name,
                "title": entry.title,
                "group": entry.group,
                "classes": entry.classes,
                "train": entry.train,
                "test": entry.test,
                "metric": entry.metric,
                "templates": len(known.templates(name)),
                "path": None if place is None else str(place),
                "splits": [] if place is None else sets.splits(place),
                "state": "missing" if place is None else _state(known, place, config),
                "note": entry.note,
            }
        )
    return rows


def _state(known: registry.Registry, place: Path, config: SetsConfig) -> str:
    if not config.check:
        return "there"
    try:
        registry.apply(known, sets.open_set(place, config.split))
    except WitError as error:
        return str(error)
    return "as published"


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("set", "state", "classes", "train", "test", "prompts", "metric"):
        right = column in ("classes", "train", "test", "prompts")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "metric")
    group = rows[0]["group"] if rows else ""
    wrong = [row for row in rows if row["state"] not in ("missing", "there", "as published")]
    for row in rows:
        if row["group"] != group:
            table.add_section()
            group = row["group"]
        numbers = [row[key] for key in ("classes", "train", "test")]
        counts = ["" if number is None else f"{number:,}" for number in numbers]
        state = "differs" if row in wrong else row["state"]
        table.add_row(row["set"], state, *counts, str(row["templates"]), row["metric"])
    console = Console()
    console.print(table)
    for row in wrong:
        console.print(row["state"], highlight=False, markup=False, soft_wrap=True)
    there = sum(row["path"] is not None for row in rows)
    console.print(f"{there} of {len(rows)} sets are there; notes and places: --json")
