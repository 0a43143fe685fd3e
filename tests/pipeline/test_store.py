"""What is stored for a downloaded image."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.dedupe import phash
from pipeline.store import StoredImage, Storer
from wit.image import ImageError, decode, probe
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


def sizes_of(found: StoredImage) -> list[tuple[int, int]]:
    return [found.size, found.original_size]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 100), (60, 40), (64, 64)])
def test_small_upright_jpegs_keep_their_bytes(mode: str, size: tuple[int, int]) -> None:
    data = encode(picture(*size).convert(mode), quality=50)
    stored = STORER.store(data)
    assert (stored.data, sizes_of(stored)) == (data, [size, size])
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
    stored = STORER.store(data)
    assert sizes_of(stored) == [size, size]
    assert stored.data != data
    assert probe(stored.data).format == "JPEG"
    image = Image.open(io.BytesIO(stored.data))
    assert (image.mode, image.size, image.getexif()) == ("RGB", size, {})
    assert stored == STORER.store(data)  # the same bytes each time
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
    stored = STORER.store(encode(picture(*original), kind))
    wanted = wanted or (round(2000 * 64 / 65), 64)
    assert sizes_of(stored) == [wanted, original]
    assert Image.open(io.BytesIO(stored.data)).size == wanted


@pytest.mark.parametrize(
    "mode", ["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"]
)
@pytest.mark.parametrize("size", [(200, 130), (130, 200), (64, 200), (40, 30), (65, 64)])
def test_the_ways_to_resize_are_those_of_img2dataset(mode: str, size: tuple[int, int]) -> None:
    """Sizes, and pixels within what another filter makes of them, beside its own Resizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset.resizer import Resizer

        data = encode(picture(*size), "PNG")
        theirs = Resizer(64, mode, resize_only_if_bigger=True)(io.BytesIO(data))
    ours = replace(STORER, resize=mode).store(data)
    assert [*ours.size, *ours.original_size] == list(theirs[1:5])
    pixels = [np.asarray(decode(found, 10**6)).astype(int) for found in (ours.data, theirs[0])]
    assert np.abs(pixels[0] - pixels[1]).mean() < 8


@pytest.mark.parametrize(("encoding", "kind"), [("webp", "WEBP"), ("avif", "AVIF")])
def test_other_formats_to_store(encoding: str, kind: str) -> None:
    storer = replace(STORER, encoding=encoding)
    stored = storer.store(encode(picture(200, 130)))
    assert probe(stored.data).format == kind
    assert stored == storer.store(encode(picture(200, 130)))
    again = storer.store(stored.data)  # of the wanted format and size: kept
    assert again.data == stored.data
    out = io.BytesIO()
    frames = [picture(40, 40), picture(40, 40).rotate(90)]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    still = storer.store(out.getvalue())
    assert still.data != out.getvalue()  # one frame of several


def test_the_hash_of_a_cut_picture_is_that_of_the_whole() -> None:
    data = encode(noise(200, 130))
    hashes = {replace(STORER, resize=m).store(data).phash for m in ("center_crop", "border", "no")}
    assert len(hashes) == 1
    (whole,) = hashes
    other = STORER.store(data).phash
    assert whole is not None
    assert other is not None
    assert (whole ^ other).bit_count() <= 3


def noise(width: int, height: int) -> Image.Image:
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_odd_sizes_are_stored_for_a_later_stage_to_judge(size: tuple[int, int]) -> None:
    assert STORER.store(encode(picture(*size), "PNG")).original_size == size


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
    with pytest.raises(ImageError) as caught:
        STORER.store(data)
    assert caught.value.reason is reason


def test_the_hash_travels_with_the_bytes() -> None:
    image = noise(640, 480)
    wanted = phash(image)
    assert wanted is not None
    for other in (image, image.resize((80, 60), Image.Resampling.LANCZOS)):
        found = STORER.store(encode(other)).phash
        assert found is not None
        assert (found ^ wanted).bit_count() <= 3
    assert STORER.store(encode(Image.new("RGB", (80, 80), "white"))).phash is None
