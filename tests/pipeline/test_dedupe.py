"""Perceptual hashes, the twenty masks, and who stays."""

from __future__ import annotations

import io
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import embeddings
from pipeline.dedupe import BITS, block_masks, phash, representatives
from wit.progress import Progress


def scene(seed: int, size: int = 96) -> Image.Image:
    """Coloured rectangles over a gradient; another seed gives another picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    pixels_HWC = np.stack([x * 120 + 40, y * 120 + 40, (x + y) * 60 + 40], -1)
    for _ in range(12):
        left, top = rng.integers(0, size - 16, 2)
        w, h = rng.integers(8, size // 2, 2)
        pixels_HWC[top : top + h, left : left + w] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels_HWC.astype(np.uint8))


def bits(a: Image.Image, b: Image.Image) -> int:
    first, second = phash(a), phash(b)
    assert first is not None
    assert second is not None
    return (first ^ second).bit_count()


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


@pytest.mark.parametrize("seed", range(20))
def test_the_same_picture_in_other_forms_is_near(seed: int) -> None:
    image = scene(seed)
    assert bits(image, image) == 0
    assert bits(image, recompressed(image, 60)) <= 3
    assert bits(image, image.resize((48, 48), Image.Resampling.LANCZOS)) <= 3
    assert bits(image, image.resize((200, 200), Image.Resampling.BICUBIC)) <= 3
    assert bits(image, image.convert("L").convert("RGB")) <= 3


def test_other_pictures_are_far() -> None:
    scenes = [scene(seed) for seed in range(60)]
    distances = [bits(a, b) for i, a in enumerate(scenes) for b in scenes[:i]]
    assert min(distances) > 6


def test_the_hash_is_that_of_its_definition() -> None:
    """Against the floating-point DCT, where no coefficient is too near zero to tell."""
    image = scene(7)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR)).astype(float)
    angles = np.pi * (2 * np.arange(32) + 1) * np.arange(32)[:, None] / 64
    low = np.cos(angles) @ grey @ np.cos(angles).T
    found = phash(image)
    assert found is not None
    zigzag = [
        (d - i if d % 2 else i, i if d % 2 else d - i) for d in range(1, 11) for i in range(d + 1)
    ]
    for place, (row, column) in enumerate(zigzag[:64]):
        if abs(low[row, column]) > 5:
            other = low[row, column] > 0, low[column, row] > 0
            assert bool(found >> (63 - place) & 1) in other
    ones = sum(low[r, c] > 0 for r, c in zigzag[:64])
    assert abs(found.bit_count() - ones) <= 2


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (64, 64), "white"),
        Image.new("RGB", (64, 64), (3, 120, 40)),
        Image.linear_gradient("L").convert("RGB"),
        Image.effect_noise((64, 64), 0.5).convert("RGB"),
    ],
)
def test_pictures_of_nothing_have_no_hash(image: Image.Image) -> None:
    assert phash(image) is None


def test_masks_cover_the_bits_evenly() -> None:
    masks = block_masks()
    assert len(set(masks)) == 20
    assert all(30 <= mask.bit_count() <= 33 for mask in masks)
    assert {sum(mask >> bit & 1 for mask in masks) for bit in range(BITS)} == {10}


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=3))
def test_three_flips_always_leave_a_mask_alone(value: int, flips: list[int]) -> None:
    other = value
    for bit in flips:
        other ^= 1 << bit
    assert any(value & mask == other & mask for mask in block_masks())


def slow(items: int, edges: set[tuple[int, int]]) -> dict[int, int]:
    """The rule as one would say it: go through the items from the best; an item gives way to
    the best one that stays and is like it."""
    stay: list[int] = []
    gone = {}
    for item in range(items):
        like = [kept for kept in stay if (kept, item) in edges]
        if like:
            gone[item] = like[0]
        else:
            stay.append(item)
    return gone


@given(st.integers(0, 10**6))
def test_representatives_against_the_rule(seed: int) -> None:
    rng = random.Random(seed)
    items = rng.randrange(1, 14)
    edges = {(a, b) for b in range(items) for a in range(b) if rng.random() < 0.3}
    assert representatives(sorted(edges)) == slow(items, edges)


def test_likeness_is_not_passed_on() -> None:
    assert representatives([(0, 1), (1, 2)]) == {1: 0}  # 2 is like 1, not like 0: it stays


@pytest.mark.parametrize("block", [1, 7, 64])
def test_features_that_are_alike_in_order(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(embeddings, "BLOCK", block)
    progress = Progress("features", io.StringIO())
    rows = np.random.default_rng(0).integers(-2, 3, (50, 4)).astype(np.float32)
    other = rows[::-2] + 1
    for second in (None, other, other[:0]):
        cosines = rows @ (rows if second is None else second).T
        near = np.triu(cosines >= 4, 1) if second is None else cosines >= 4
        found = list(embeddings.alike(rows, second, 4.0, progress))
        assert found == list(zip(*(part.tolist() for part in np.nonzero(near)), strict=True))


def test_comparing_features_takes_the_memory_of_two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BLOCK", 64)
    rows = np.eye(8, dtype=np.float32)[np.arange(8192) % 8]
    tracemalloc.start()
    found = next(embeddings.alike(rows, None, 2.0, Progress("features", io.StringIO())), None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is None
    assert most < 64 * 8192  # of one block against all, fp32: four times as much
