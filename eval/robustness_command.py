"""`wit eval robustness RUN ... --standard FILE`: effective robustness of evaluated models."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load, write_json
from wit.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from eval.robustness import Robustness

COLUMNS = ("model", "set", "reference", "shifted")


class RobustnessConfig(Settings):
    """What models have beyond the line of standard models under each shift (task shift first)."""

    runs: CliPositionalArg[list[Path]]
    """run directories, or folders of results"""
    standard: Path | None = None
    """CSV file of standard models: columns model, set, reference, shifted; accuracies in per cent,
    the reference's on the classes of the shifted set. Without it, accuracies alone (table 16)."""
    out: Path = Path("data/report")
    """Folder for robustness.json."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples of the standard models."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(RobustnessConfig, argv, prog="wit eval robustness")
    import numpy as np
    from rich.console import Console

    from eval import figures, fits, results, robustness, shift_table
    from eval.report import grid
    from eval.shift import FITTED, NAMES, OWN, SUBSET

    found = figures.of_task([one for run in config.runs for one in results.load(run)], "shift")
    if not found:
        raise InputError(f"{config.runs[0]}: no result of task shift; run `wit eval --task shift`")
    accuracies = shift_table.table(found)
    console = Console()
    console.print(grid("accuracy under shifts, in per cent (table 16)", accuracies))
    if config.standard is None:
        return 0
    standard = read_standard(config.standard)
    rows = []
    for stored in found:
        name = figures.title_of(stored)
        if len(standard.get(name, ())) < 3:
            have = ", ".join(sorted(standard)) or "none"
            raise InputError(
                f"{config.standard}: {name} has fewer than three standard models (sets: {have})"
            )
        points_N2 = np.array(standard[name])
        line = robustness.standard_line(
            points_N2[:, 0], points_N2[:, 1], config.resamples, config.seed
        )
        metrics = stored.data["metrics"]
        x = metrics[SUBSET]
        # as fits.logit does it, for a model that is always or never right
        reference = float(fits.expit(fits.logit(np.array([x["value"]]), x["n"]))[0])
        for way in (OWN, NAMES, FITTED):
            if way in metrics:
                one = robustness.effective(line, reference, metrics[way]["value"])
                rows.append((figures.model_of(stored), name, way, one))
    console.print(_table(rows))
    config.out.mkdir(parents=True, exist_ok=True)
    kept = [
        {
            "model": model, "set": name, "classifier": way, "reference": one.reference,
            "shifted": one.shifted, "expected": one.expected, "effective": one.effective,
            "interval_95": list(one.interval[:2]), "interval_method": one.interval.method,
        }
        for model, name, way, one in rows
    ]  # fmt: skip
    write_json(kept, config.out / "robustness.json")
    print(f"robustness: {config.out / 'robustness.json'}")
    return 0


def _table(rows: Sequence[tuple[str, str, str, Robustness]]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title="effective robustness, in per cent", title_justify="left", box=SIMPLE)
    for column in ("model", "set", "classifier"):
        table.add_column(column, overflow="fold")
    for column in ("reference", "shifted", "expected", "effective", "95% of the line"):
        table.add_column(column, justify="right", no_wrap=True)
    for model, name, way, one in rows:
        shares = (one.reference, one.shifted, one.expected, one.effective)
        band = f"{100 * one.interval.low:.1f} – {100 * one.interval.high:.1f}"
        table.add_row(model, name, way, *(f"{100 * share:.1f}" for share in shares), band)
    return table


def read_standard(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Reference and shifted accuracies by set, as shares of 1.

    Raises:
        InputError: unreadable, a column missing, or a value that is no per cent between 0 and 100.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {missing[0]}; it needs {', '.join(COLUMNS)}")
            rows = list(reader)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; check --standard") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    found: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(rows, 2):
        pair = []
        for name in ("reference", "shifted"):
            try:
                value = float(row[name] or "")
            except ValueError:
                value = -1.0
            if not 0 < value < 100:
                raise InputError(
                    f"{path}: line {number}: {name} = {row[name]!r} is no accuracy in per cent,"
                    " above 0 and below 100"
                )
            pair.append(value / 100)
        found.setdefault(row["set"], []).append((pair[0], pair[1]))
    return found
