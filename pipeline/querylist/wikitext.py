"""Wiki markup to plain lines: what a reader sees as running text.

Dropped with all that they hold: comments, references, templates, tables, pictures, categories,
formulas, code. Links, headings, lists and inline HTML leave their text. Markup that is not closed
loses its brackets only. Every pass takes time in proportion to the page, whatever it holds. A full
parser (mwparserfromhell) keeps more structure than counting words needs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

# Elements whose content is no running text.
_OPAQUE = (
    "ce|chem|code|gallery|graph|hiero|imagemap|includeonly|mapframe|maplink|math|pre|ref|score"
    "|source|syntaxhighlight|templatedata|timeline"
)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_EMPTY = re.compile(rf"<(?:{_OPAQUE})\b[^<>]*/>", re.IGNORECASE)
_ELEMENT = re.compile(rf"<(/?)({_OPAQUE})\b[^<>]*>", re.IGNORECASE)
_BRACES = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})")
_OPENING = {"}}": "{{", "|}": "{|"}
_LINK = re.compile(r"\[\[([^\[\]|]*)((?:\|[^\[\]]*)?)\]\]")
_NESTED_LINKS = 4  # a picture's caption holds links; deeper ones are not found in practice
_HIDDEN = re.compile(r"\s*(?:file|image|media|category|[a-z]{2,3}(?:-[a-z]+)?):\S", re.IGNORECASE)
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:)?//[^\s\[\]]*([^\[\]\n]*)\]")
_URL = re.compile(r"\b(?:https?|ftp)://\S+")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_QUOTES = re.compile(r"''+")
_SWITCH = re.compile(r"__[A-Z]+__")
_LEAD = "*#:; \t\r\xa0"  # of lists


def plain_lines(wikitext: str) -> Iterator[str]:
    """The lines of a page without markup, none of them empty."""
    text = _EMPTY.sub(" ", _COMMENT.sub(" ", wikitext))
    text = _without_braces(_without_elements(text))
    for _ in range(_NESTED_LINKS):
        text, found = _LINK.subn(_link_text, text)
        if not found:
            break
    if "//" in text:
        text = _URL.sub(" ", _EXTERNAL.sub(r"\1", text))
    text = _SWITCH.sub(" ", _QUOTES.sub("", _TAG.sub(" ", text)))
    for line in html.unescape(text).split("\n"):
        line = (line.strip("= ") if line.startswith("=") else line.lstrip(_LEAD)).strip()
        if line:
            yield line


def _link_text(match: re.Match[str]) -> str:
    target, label = match[1], match[2]
    if _HIDDEN.match(target):
        return " "
    # [[a|]] shows "a", as [[a]] does; [[:Category:a]] shows itself
    return label[1:] or target.lstrip(":")


def _without_elements(text: str) -> str:
    """Without <ref>…</ref> and the like; the end of one element is the next of its own name."""
    spans, open_ = [], ""
    start = 0
    for match in _ELEMENT.finditer(text):
        name = match[2].lower()
        if not match[1] and not open_:
            open_, start = name, match.start()
        elif match[1] and name == open_:
            spans.append((start, match.end()))
            open_ = ""
    return _cut(text, spans)


def _without_braces(text: str) -> str:
    """Without {{templates}} and {| tables |}, nested as they may be."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    depth = {"{{": 0, "{|": 0}
    for match in _BRACES.finditer(text):
        mark = match[0]
        if mark in depth:
            stack.append((mark, match.start()))
            depth[mark] += 1
            continue
        opening = _OPENING[mark]
        while depth[opening]:  # what is open inside of it ends with it
            popped, start = stack.pop()
            depth[popped] -= 1
            if popped == opening:
                while spans and spans[-1][0] > start:
                    spans.pop()
                spans.append((start, match.end()))
                break
    return _cut(text, spans)


def _cut(text: str, spans: list[tuple[int, int]]) -> str:
    """Without some spans, which are in order and apart."""
    if not spans:
        return text
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    return " ".join([*kept, text[at:]])
