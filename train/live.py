"""How a run looks while it goes on: one line at a time, or, in a terminal, a table in its place."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of the curve, in rows of metrics

Row = Mapping[str, float]


def cells(row: Row) -> dict[str, str]:
    """The numbers of a row as people read them, those that it has."""
    forms = {
        "epoch": ("epoch", "{:.1f}"),
        "loss": ("loss", "{:.4f}"),
        "accuracy": ("acc", "{:.1%}"),
        "scale": ("scale", "{:.1f}"),
        "lr": ("lr", "{:.1e}"),
        "grad_norm": ("grad", "{:.2g}"),
        "samples_per_second": ("samples/s", "{:.0f}"),
        "mfu": ("mfu", "{:.1%}"),
        "data_wait": ("data", "{:.0%}"),
        "gpu_gb": ("GB", "{:.1f}"),
    }
    found = {name: form.format(row[key]) for key, (name, form) in forms.items() if key in row}
    if row.get("skipped"):
        found["skipped"] = f"{row['skipped']:.0f}"
    return found


def left(row: Row, steps: int) -> str:
    """Time until the run is done, at the rate of this row."""
    return str(timedelta(seconds=round((steps - row["step"]) * row["seconds_per_step"])))


def line(row: Row, steps: int) -> str:
    """A progress line."""
    parts = [f"step {row['step']:.0f}/{steps}"]
    for name, text in cells(row).items():
        parts.append(f"{text} {name}" if name == "samples/s" else f"{name} {text}")
    return " ".join([*parts, f"eta {left(row, steps)}"])


class Live:
    """A table at the foot of the terminal; what is printed meanwhile scrolls above it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._losses: deque[float] = deque(maxlen=WIDTH)
        console = console or Console(file=sys.stdout)
        self._screen = Screen(console=console, auto_refresh=False, redirect_stderr=False)
        self._screen.start()

    def show(self, row: Row, steps: int) -> None:
        if "loss" in row:
            self._losses.append(row["loss"])
        grid = Table(title=self._title, box=None, padding=(0, 2, 0, 0), title_justify="left")
        for name in cells(row):
            grid.add_column(name, justify="right", no_wrap=True)
        grid.add_row(*cells(row).values())
        bar = ProgressBar(total=steps, completed=row["step"], width=WIDTH)
        about = f"step {row['step']:.0f} of {steps}, {left(row, steps)} left"
        self._screen.update(
            Group(grid, f"loss {curve(list(self._losses))}", bar, about), refresh=True
        )

    def close(self) -> None:
        self._screen.stop()


def curve(values: list[float]) -> str:
    """Values as a row of bars between their least and greatest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in values)
