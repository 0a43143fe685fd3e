"""Pages that are one HTML file: no scripts, no addresses, light or dark as the reader has it.

What the corpus and its pictures say is hostile: every text goes through `text`, and the content
security policy of the page forbids scripts and connections whatever it holds.
"""

from __future__ import annotations

import base64
import html
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from wit.files import write_durably
from wit.image import encode

LONGEST = 300  # characters of a text that are shown
SIDE, MOST_BYTES = 200, 16 * 1024  # of a thumbnail
QUALITIES = (80, 60, 40, 20)
STYLE = (Path(__file__).parent / "page.css").read_text("utf-8")
JOINERS = "\u200c\u200d"  # of letters and emoji
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}</style></head><body>
<a class="skip" href="#main">Skip to the contents</a>
{head}<main id="main">
{body}
</main></body></html>
"""


def page(title: str, body: Iterable[str], head: str = "") -> str:
    """The whole file.

    Args:
        title: plain text.
        body: HTML of the parts, in order.
        head: HTML that stands before the main part: heading and table of contents.
    """
    filled = {"title": html.escape(title), "style": STYLE, "head": head, "body": "\n".join(body)}
    return PAGE.format_map(filled)


def text(value: object, longest: int = LONGEST) -> str:
    """Any text as HTML that shows it and does nothing.

    Characters that turn the direction of the text or can't be seen appear as their code point; a
    long text is cut, and says how long it was.
    """
    plain = str(value)
    shown = html.escape("".join(map(_visible, plain[:longest])))
    return shown if len(plain) <= longest else f"{shown}… ({len(plain):,} characters)"


def _visible(char: str) -> str:
    if char in "\t\n\r":
        return " "
    # control, format (which turns direction), surrogate, private use, not assigned
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn") and char not in JOINERS:
        return f"⟨U+{ord(char):04X}⟩"
    return char


def section(name: str, heading: str, parts: Iterable[str]) -> str:
    """One part of the page, with the anchor that a table of contents leads to."""
    inner = "\n".join(parts)
    return (
        f'<section id="{name}" aria-labelledby="{name}-h">'
        f'<h2 id="{name}-h">{html.escape(heading)}</h2>\n{inner}\n</section>'
    )


def contents(sections: Iterable[tuple[str, str]]) -> str:
    """Links to sections given as (name, heading)."""
    links = "".join(f'<a href="#{name}">{html.escape(title)}</a>' for name, title in sections)
    return f'<nav aria-label="Contents">{links}</nav>\n'


def table(
    columns: Sequence[str], rows: Iterable[Iterable[Any]], name: str = "", longest: int = LONGEST
) -> str:
    """A table that scrolls sideways by itself where it is too wide; numbers to the right.

    Args:
        name: what a screen reader calls it.
    """
    lines = [list(row) for row in rows]
    right = [
        bool(lines) and all(_number(line[i]) or line[i] is None for line in lines)
        for i in range(len(columns))
    ]
    align = [' class="n"' if to_right else "" for to_right in right]
    head = "".join(
        f'<th scope="col"{where}>{html.escape(column)}</th>'
        for column, where in zip(columns, align, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{where}>{_cell(value, longest)}</td>"
            for value, where in zip(line, align, strict=True)
        )
        + "</tr>\n"
        for line in lines
    )
    name = html.escape(name or ", ".join(columns))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object, longest: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else f"<bdi>{text(value, longest)}</bdi>"


def figure(svg: str, caption: str, numbers: str = "") -> str:
    """A chart with its caption, and the numbers behind it for those who can't see it."""
    name = html.escape(caption)
    return (
        f'<figure><div role="img" aria-label="{name}">{svg}</div>'
        f"<figcaption>{name}</figcaption>{folded('The numbers', numbers)}</figure>"
    )


def folded(summary: str, inner: str) -> str:
    """HTML that opens on a click or a key."""
    return f"<details><summary>{html.escape(summary)}</summary>{inner}</details>" if inner else ""


def cards(values: Iterable[tuple[str, str]]) -> str:
    """A few large numbers, given as (what, number)."""
    inner = "".join(
        f"<div><dt>{html.escape(what)}</dt><dd>{html.escape(number)}</dd></div>"
        for what, number in values
    )
    return f'<dl class="cards">{inner}</dl>'


def thumbnail(picture: Image.Image | None, alt: str, missing: str = "no picture") -> str:
    """A small copy of an RGB picture inside the page; at most `MOST_BYTES` before it is base64.

    Args:
        alt: for those who can't see it; any text.
        missing: what stands in its place where there is none.
    """
    if picture is None:
        return f'<span class="none">{html.escape(missing)}</span>'
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    data = b""
    for quality in QUALITIES:
        data = encode(small, "JPEG", quality)
        if len(data) <= MOST_BYTES:
            break
    source = base64.b64encode(data).decode()
    return (
        f'<img src="data:image/jpeg;base64,{source}" alt="{text(alt, 120)}"'
        f' width="{small.width}" height="{small.height}" decoding="async">'
    )


def write(path: Path, whole: str) -> None:
    """Write a page durably."""
    write_durably(path, whole.encode())
