"""The scenes of the embedded corpus: honest, distinct, and the same on every machine."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.sample.scenes import (
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    Scene,
    corpus,
    render,
    scene,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return corpus(0, 1000)


def test_no_training_scene_holds_a_held_out_combination(scenes: list[Scene]) -> None:
    held = {thing.combination for picture in scenes for thing in picture.things}
    assert held == set(SEEN)
    assert not held & set(HELD_OUT)


def test_each_held_out_colour_and_shape_is_seen_often(scenes: list[Scene]) -> None:
    things = [thing.combination for picture in scenes for thing in picture.things]
    for position, names in enumerate((COLOURS, SHAPES)):
        for i, name in enumerate(names):
            assert sum(pair[position] == name for pair in HELD_OUT) == (2 if i < 6 else 0)
            assert sum(pair[position] == name for pair in things) > 180


def test_most_scenes_hold_several_things_and_no_attribute_gives_another_away(
    scenes: list[Scene],
) -> None:
    things = Counter(len(picture.things) for picture in scenes)
    assert set(things) == {1, 2, 3}
    assert things[2] + things[3] > 700
    pairs = Counter(thing.combination for picture in scenes for thing in picture.things)
    assert min(pairs.values()) > 15  # of about 38 for each seen combination


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_things_keep_apart_inside_the_picture(seed: int) -> None:
    picture = scene(Random(seed))
    assert len(picture.things) in (1, 2, 3)
    marks = [mark for thing in picture.things for mark in thing.marks]
    for i, mark in enumerate(marks):
        assert mark.radius < mark.x < 1 - mark.radius
        assert mark.radius < mark.y < 1 - mark.radius
        for other in marks[:i]:
            assert math.hypot(mark.x - other.x, mark.y - other.y) > mark.radius + other.radius
    assert all(thing.combination in SEEN for thing in picture.things)
    for position in (0, 1):
        assert len({thing.combination[position] for thing in picture.things}) == len(picture.things)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_pictures_are_rgb_of_the_sizes_promised(seed: int) -> None:
    picture = scene(Random(seed))
    image = render(picture)
    assert (image.mode, image.size) == ("RGB", (picture.width, picture.height))
    assert 64 <= min(image.size) <= max(image.size) <= 160
    assert max(image.size) <= 1.25 * min(image.size)


def test_a_thing_is_drawn_in_its_colour_where_it_stands() -> None:
    for seed in range(40):
        picture = scene(Random(seed))
        pixels = np.asarray(render(picture)).astype(int)
        side = min(picture.width, picture.height)
        for thing in picture.things:
            close = (np.abs(pixels - np.array(thing.rgb)).sum(axis=2) < 30).sum()
            areas = [math.pi * (mark.radius * side) ** 2 for mark in thing.marks]
            assert close > 0.12 * sum(areas), (seed, thing.combination)


def test_the_same_seed_gives_the_same_pixels(scenes: list[Scene]) -> None:
    digest = hashlib.sha256()
    for picture in scenes[:20]:
        digest.update(render(picture).tobytes())
    assert digest.hexdigest() == PIXELS
    assert corpus(0, 40) == scenes[:40]
    assert corpus(1, 40) != scenes[:40]


PIXELS = "75321a43f1d3fc49599d93cce24f13cf685d8a76ef32fd03fa4b45102c8f0f67"


def _perceptual_hash(image: Image.Image) -> np.ndarray:
    """The usual 64 bits: signs of the 8x8 lowest cosines of the 32x32 grey picture."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=float)
    k = np.arange(8)[:, None]
    cosines = np.cos(math.pi * (np.arange(32)[None, :] + 0.5) * k / 32)
    low = (cosines @ grey @ cosines.T).ravel()
    return low > np.median(low[1:])


def test_no_two_pictures_are_near_duplicates(scenes: list[Scene]) -> None:
    bits = np.array([_perceptual_hash(render(picture)) for picture in scenes]).astype(np.int32)
    agree = bits @ bits.T + (1 - bits) @ (1 - bits).T
    distance = 64 - agree[np.triu_indices(len(bits), 1)]
    assert distance.min() >= 6  # the corpus drops pictures at 3 or less
