"""What is stored for a downloaded image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.dedupe import phash
from pipeline.store import Storer
from wit.image import decode, probe
from wit.schema import Reason

STORER = Storer(size=64, quality=90, max_pixels=4_000_000)


def picture(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    waves = 128 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)
    rgb = [x * 255 // max(width, 2), y * 255 // max(height, 2), waves]
    return Image.fromarray(np.stack(rgb, -1).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def store(data: bytes) -> Any:
    return STORER(io.BytesIO(data), None)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 100), (60, 40), (64, 64)])
def test_small_upright_jpegs_keep_their_bytes(mode: str, size: tuple[int, int]) -> None:
    data = encode(picture(*size).convert(mode), quality=50)
    stored, *sizes, error = store(data)
    assert (bytes(stored), sizes, error) == (data, [*size, *size], None)
    assert stored.format == "JPEG"


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(60, 40), exif=exif)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (encode(picture(60, 40), "PNG"), (60, 40)),
        (encode(picture(60, 40), "WEBP"), (60, 40)),
        (encode(picture(60, 40).convert("CMYK")), (60, 40)),
        (encode(picture(60, 40), "GIF"), (60, 40)),
        (turned(), (40, 60)),
        (encode(picture(60, 40), comment=b"x" * 60_000), (60, 40)),  # more comment than picture
    ],
)
def test_everything_else_becomes_rgb_jpeg(data: bytes, size: tuple[int, int]) -> None:
    stored, *sizes, error = store(data)
    assert (sizes, error) == ([*size, *size], None)
    assert bytes(stored) != data
    assert probe(stored).format == "JPEG"
    image = Image.open(io.BytesIO(stored))
    assert (image.mode, image.size, image.getexif()) == ("RGB", size, {})
    assert stored == store(data)[0]  # the same bytes each time
    difference = np.asarray(image).astype(int) - np.asarray(decode(data, 10**6))
    assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("original", "wanted"),
    [((65, 65), (64, 64)), ((640, 480), (85, 64)), ((500, 1500), (64, 192)), ((2000, 65), None)],
)
def test_the_shorter_side_shrinks_to_size(
    kind: str, original: tuple[int, int], wanted: tuple[int, int] | None
) -> None:
    stored, width, height, *sizes, error = store(encode(picture(*original), kind))
    wanted = wanted or (round(2000 * 64 / 65), 64)
    assert ((width, height), tuple(sizes), error) == (wanted, original, None)
    assert Image.open(io.BytesIO(stored)).size == wanted


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_odd_sizes_are_stored_for_a_later_stage_to_judge(size: tuple[int, int]) -> None:
    assert store(encode(picture(*size), "PNG"))[3:] == (*size, None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>", Reason.NOT_AN_IMAGE),
        (encode(picture(200, 200))[:900], Reason.TRUNCATED_IMAGE),
        (encode(Image.new("1", (4000, 4000)), "PNG"), Reason.TOO_MANY_PIXELS),
        (encode(Image.new("1", (66_000, 2)), "PNG"), Reason.ASPECT_RATIO),
        (encode(Image.new("1", (66_000, 100)), "PNG"), Reason.TOO_MANY_PIXELS),
    ],
)
def test_refusals_are_reasons(data: bytes, reason: Reason) -> None:
    assert store(data) == (None, None, None, None, None, reason.value)


def test_the_hash_travels_with_the_bytes() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = Image.fromarray(blocks).resize((640, 480), Image.Resampling.NEAREST)
    wanted = phash(image)
    assert wanted is not None
    assert (store(encode(image))[0].phash ^ wanted).bit_count() <= 3
    assert store(encode(Image.new("RGB", (80, 80), "white")))[0].phash is None
