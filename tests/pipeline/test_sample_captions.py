"""Captions: true, varied, plain English."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pyarrow as pa
import pytest

from pipeline.config import TextConfig
from pipeline.sample.build import queries
from pipeline.sample.captions import NUMBERS, caption, pairs
from pipeline.sample.scenes import COLOURS, HELD_OUT, SHAPES, Scene, Thing, scene
from pipeline.udfs import languages

NAMED = re.compile(
    r"\b(?P<count>an?|two|three)"
    r"(?: (?P<size>small|little|tiny|big|large))?"
    r"(?: (?P<texture>plain|striped|dotted|spotted))?"
    rf" (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})(?:e?s)?\b"
)
DIRECTION = re.compile(r"\b(beside|next to|above|over|below|under) (it\b|an?\b|two\b|three\b)")
SIZES = {"little": "small", "tiny": "small", "large": "big"}


@pytest.fixture(scope="module")
def good() -> list[tuple[Scene, str]]:
    return pairs(0, 1000)


def _says_truly(match: re.Match[str], thing: Thing) -> bool:
    said = match.groupdict()
    texture = {"spotted": "dotted"}.get(said["texture"], said["texture"])
    return (
        (said["colour"], said["shape"]) == thing.combination
        and NUMBERS.get(len(thing.marks)) == (None if said["count"] in "an" else said["count"])
        and texture in (None, thing.texture)
        and (said["size"] is None or SIZES.get(said["size"], said["size"]) == thing.size)
    )


def test_each_thing_is_named_once_and_truly(good: list[tuple[Scene, str]]) -> None:
    for picture, text in good:
        named = list(NAMED.finditer(text.lower()))
        assert len(named) == len(picture.things), text
        for thing in picture.things:
            assert sum(_says_truly(match, thing) for match in named) == 1, (text, thing)


def _thing(match: re.Match[str], picture: Scene) -> Thing:
    named = match["colour"], match["shape"]
    return next(thing for thing in picture.things if thing.combination == named)


def test_directions_are_true(good: list[tuple[Scene, str]]) -> None:
    found: Counter[str] = Counter()
    for picture, text in good:
        named = list(NAMED.finditer(text.lower()))
        for direction in re.finditer(DIRECTION, text.lower()):
            subject = max((m for m in named if m.end() <= direction.start()), key=re.Match.end)
            base = (
                named[0]
                if direction[2] == "it"
                else next(m for m in named if m.start() == direction.start(2))
            )
            side_by_side = direction[1] in ("beside", "next to")
            axis = "x" if side_by_side else "y"
            a = [getattr(mark, axis) for mark in _thing(subject, picture).marks]
            b = [getattr(mark, axis) for mark in _thing(base, picture).marks]
            before, after = max(a) < min(b), min(a) > max(b)
            if side_by_side:
                assert before or after, text
            else:
                assert before if direction[1] in ("above", "over") else after, text
            found[direction[1]] += 1
    assert min(found[word] for word in ("beside", "next to", "above", "below")) > 2


def test_captions_are_short_and_varied(good: list[tuple[Scene, str]]) -> None:
    texts = [text for _, text in good]
    assert all(len(text) >= 5 and 3 <= len(text.split()) <= 30 for text in texts)
    assert len(set(texts)) > 750
    assert max(Counter(texts).values()) <= 10  # far from boilerplate


def test_no_caption_is_taken_for_another_language(good: list[tuple[Scene, str]]) -> None:
    found = languages(pa.chunked_array([[text for _, text in good]])).to_pylist()
    sure = TextConfig().language_threshold
    wrong = [f for f in found if f["language"] != "en" and f["probability"] >= sure]
    assert wrong == []


def test_no_caption_tells_left_from_right(good: list[tuple[Scene, str]]) -> None:
    """The recipe mirrors half of the pictures."""
    assert not [text for _, text in good if re.search(r"\b(left|right)\b", text.lower())]


def test_held_out_combinations_are_never_written(good: list[tuple[Scene, str]]) -> None:
    written = " ".join(text.lower() for _, text in good)
    for colour, shape in HELD_OUT:
        assert not re.search(rf"\b{colour} {shape}", written)


def test_the_same_seed_gives_the_same_caption() -> None:
    picture = scene(Random(5))
    assert caption(picture, Random(9)) == caption(picture, Random(9))
    assert len({caption(picture, Random(seed)) for seed in range(50)}) > 5


def test_every_good_caption_answers_a_query(good: list[tuple[Scene, str]]) -> None:
    words = queries()
    assert len(words) == len(set(words))
    for _, text in good:
        assert any(re.search(rf"\b{query}\b", text.lower()) for query in words), text
