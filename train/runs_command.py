"""`wit runs`: runs below a folder, where each stands, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.table import Table

from train.config import identity
from wit.config import Settings, load
from wit.errors import InputError

SHOWN = ("step", "epoch", "loss", "accuracy", "samples_per_second", "data_wait", "seconds")


class RunsConfig(Settings):
    """List runs with their last metrics and the settings in which they differ."""

    folders: CliPositionalArg[list[Path]] = Field(default=[Path("data")])
    """Run directories, or folders that hold some at any depth up to three."""
    as_json: bool = Field(default=False, alias="json")
    """Print a list of JSON objects instead of tables."""


def runs_below(folder: Path) -> list[Path]:
    """Run directories: those that hold a config and metrics.

    Raises:
        InputError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a run, or a folder of runs")
    patterns = ("", "*/", "*/*/", "*/*/*/")
    found = {file.parent for at in patterns for file in folder.glob(f"{at}metrics.jsonl")}
    runs = sorted(path for path in found if (path / "config.json").is_file())
    if not runs:
        raise InputError(f"{folder}: no run here; `wit train --run DIR` makes one")
    return runs


def describe(run: Path) -> dict[str, Any]:
    """One run as plain data: its settings, its state and its last line of metrics."""
    try:
        config = json.loads((run / "config.json").read_text("utf-8"))["config"]
        settings = {key: str(value) for key, value in identity(config).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{run / 'config.json'}: damaged; put back the run's own") from None
    rows = _rows(run / "metrics.jsonl")
    return {
        "run": str(run),
        "state": "finished" if (run / "done.json").is_file() else "stopped or running",
        "metrics": {key: value for row in rows for key, value in row.items()},  # the last of each
        "lowest_loss": min((row["loss"] for row in rows if "loss" in row), default=None),
        "settings": settings | {"corpus": str(config.get("corpus", ""))},
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the end of a line that is being written, or that a crash cut off
            continue
    return rows


def differences(found: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs: each with its value in every run."""
    keys = sorted({key for run in found for key in run["settings"]})
    values = {key: [run["settings"].get(key, "") for run in found] for key in keys}
    return {key: row for key, row in values.items() if len(set(row)) > 1}


def main(argv: Sequence[str]) -> int:
    config = load(RunsConfig, argv, prog="wit runs")
    paths = dict.fromkeys(run for folder in config.folders for run in runs_below(folder))
    found = [describe(run) for run in paths]
    if config.as_json:
        print(json.dumps(found, indent=1))
        return 0
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("run")
    table.add_column("state", no_wrap=True)
    for name in ("step", "epoch", "loss", "accuracy", "samples/s", "data", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in found:
        table.add_row(run["run"], run["state"], *_cells(run["metrics"]))
    console.print(table)
    if changed := differences(found):
        console.print("\ndifferent settings")
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name in ("setting", *(run["run"] for run in found)):
            table.add_column(name)
        for key, values in changed.items():
            table.add_row(key, *values)
        console.print(table, highlight=False)
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    if not row:
        return [""] * len(SHOWN)
    step, epoch, loss, accuracy, rate, wait, seconds = (row.get(key, 0.0) for key in SHOWN)
    return [
        *(f"{step:,.0f}", f"{epoch:.1f}", f"{loss:.4f}", f"{accuracy:.1%}"),
        *(f"{rate:,.0f}", f"{wait:.0%}", f"{seconds / 3600:.2f}"),
    ]
