"""Charts for pages: drawn by matplotlib as SVG whose colours are CSS variables.

Colours come from `INK`, `MUTED`, `GRID` and `SERIES` alone, so that light and dark pages both suit;
`wit.page` gives the variables their values.
"""

from __future__ import annotations

import io
import re
import warnings
from contextlib import AbstractContextManager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

INK, MUTED, GRID = "#101010", "#707070", "#e0e0e0"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES)
}
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a $ in a name is no formula
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
WIDTH, HEIGHT = 4.6, 2.9  # inches of a chart that is readable on a telephone
LONGEST = 26  # characters of a label


def chart(height: float = HEIGHT, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty chart in the style of the pages; call it, and draw, within `style()`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def style() -> AbstractContextManager[None]:
    """A context in which charts are drawn in the style of the pages."""
    context: AbstractContextManager[None] = matplotlib.rc_context(STYLE)
    return context


def plain_numbers(axis: Axis) -> None:
    """Ticks as 500, 10k, 2M."""
    short = EngFormatter(sep="")
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: short(value) if abs(value) >= 1e4 else f"{value:,g}")
    )


def logarithmic(axes: Axes, *names: str) -> None:
    """Make the axes `x`, `y` or both logarithmic, their ticks plain numbers; call it when all is
    drawn, for a short axis gets more ticks."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1,) if high > 200 * low else (1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
        plain_numbers(axis)


def legend_above(figure: Figure, columns: int = 2) -> None:
    """The legend of all axes in a row over the chart, where it hides nothing."""
    if any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
        figure.legend(loc="outside upper left", ncols=columns, fontsize=8)


def label(text: object, longest: int = LONGEST) -> str:
    """Text for an axis or a legend: one line, printable, cut in its middle."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    if len(plain) <= longest:
        return plain
    half = (longest - 1) // 2
    return f"{plain[: longest - 1 - half]}…{plain[-half:]}"


def svg(figure: Figure, caption: str) -> str:
    """One figure as an inline <svg>; the same figure gives the same text.

    Args:
        caption: what it shows; it must differ between the figures of a page.
    """
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": caption}), warnings.catch_warnings():
        # Text is drawn by the reader's browser, whose fonts have what matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight",
                       metadata={"Date": None, "Creator": None})  # fmt: skip
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    # Ids are of one figure: several of them share the page.
    prefix = re.sub(r"\W+", "-", caption.lower())[:40]
    return re.sub(r'((?:\bid="|url\(#|href="#))', rf"\1{prefix}-", text)
