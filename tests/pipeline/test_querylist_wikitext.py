"""Wiki markup to plain lines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.querylist.wikitext import plain_lines

PIECES = (
    *("{{", "}}", "{|", "|}", "[[", "]]", "|", "[", "]", "{{{", "}}}", "<!--", "-->"),
    *("<ref>", "</ref>", "<ref/>", "<math>", "</math>", "<b>", "<", ">", "''", "==", "http://x"),
    *("&nbsp;", "File:", ":", "dog", "\n", " "),
)
HOSTILE = ["{{", "}}", "{|", "{{|}", "[[", "[[a", "[[a|[[b", "<ref>", "<ref", "<!--", "<a", "[//"]
MARKUP = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def plain(text: str) -> str:
    return " / ".join(" ".join(line.split()) for line in plain_lines(text))


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("A '''dog''' is a ''[[domestication|domesticated]] [[mammal]]''.",
         "A dog is a domesticated mammal."),
        ("Dogs<ref name=a>A book, p. 3</ref> bark<ref name=a/> often.", "Dogs bark often."),
        ("Tall<ref>{{cite|a=[[b]]}}</ref> {{convert|3|m|{{x}}}} tree", "Tall tree"),
        ("{{Infobox dog\n| name = Rex\n| kin = {{list|\n* a}}\n}}\nRex was it.", "Rex was it."),
        ("{| class=wikitable\n|-\n| a || {{x|}} b\n{|\n| c\n|}\n|}\nafter", "after"),
        ("{{x|{|\n| a\n|}|}} after", "after"),
        ("[[File:Dog.jpg|thumb|A [[dog]] and a [[cat|kitten]]]] Text", "Text"),
        ("See [[:Category:Dogs]].\n[[Category:Dogs]]\n[[fr:Chien]]", "See Category:Dogs."),
        ("[[Star Wars: A New Hope]]", "Star Wars: A New Hope"),
        ("== History ==\n* one\n*# two\n: three", "History / one / two / three"),
        ("[https://a.example/x the site] and https://b.example/y too", "the site and too"),
        ("a <!-- hidden\nstill --> b", "a b"),
        ("x<sup>2</sup> <br/> H<sub>2</sub>O", "x 2 H 2 O"),
        ("E <math>m c^2</math> <code>int dog;</code> end", "E end"),
        ("salt &amp; pepper&nbsp;mill", "salt & pepper mill"),
        ("__NOTOC__ text", "text"),
        ("an {{unclosed template and [[link", "an {{unclosed template and [[link"),
        ("closed too often }} and |} here", "closed too often }} and |} here"),
        ("{{a {{b}} c", "{{a c"),
        ("a < b and c > d", "a < b and c > d"),
        ("", ""),
    ],
)  # fmt: skip
def test_plain_lines(markup: str, expected: str) -> None:
    assert plain(markup) == expected


@given(MARKUP)
def test_any_markup_gives_lines(markup: str) -> None:
    for line in plain_lines(markup):
        assert line
        assert "\n" not in line


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_markup_takes_time_in_proportion(piece: str) -> None:
    def seconds(text: str) -> float:
        started = time.process_time()
        for _ in plain_lines(text):
            pass
        return time.process_time() - started

    # A pass that is quadratic would take hours here, so any bound tells the two apart.
    assert seconds(piece * 100_000) < 20
