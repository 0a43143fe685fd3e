from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

import wit.image
from wit.image import ImageError, decode, load, probe, sniff, to_square
from wit.schema import Reason

PIXELS = 10_000_000


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth, without symmetry: red grows to the right, green downwards, a blue corner."""
    y, x = np.mgrid[0:height, 0:width]
    blue = np.where((x < width // 4) & (y < height // 4), 255, 0)
    stacked = np.stack([x * 255 // width, y * 255 // height, blue], -1)
    return Image.fromarray(stacked.astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def near(a: Image.Image, b: Image.Image, most: float = 12.0) -> bool:
    assert (a.mode, b.mode) == ("RGB", "RGB")
    assert a.size == b.size
    return float(np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean()) < most


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(side: int) -> bytes:
    """A PNG of side x side in a few hundred bytes; its pixels are never unpacked here."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


KINDS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"] + ["AVIF"] * features.check("avif")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_probed_and_decoded(kind: str) -> None:
    data = encode(picture(), kind)
    header = probe(data)
    assert (header.format, header.width, header.height) == (kind, 40, 24)
    assert near(decode(data, PIXELS), picture())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_undone(kind: str, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what stores a picture turned so
    stored = picture() if orientation == 1 else picture().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load(encode(stored, kind, exif=exif), PIXELS)
    assert near(found.image, picture())
    assert found.size == (40, 24)


def test_modes_become_rgb() -> None:
    grey = picture().convert("L")
    as_rgb = grey.convert("RGB")
    assert near(decode(encode(picture().convert("CMYK"), "JPEG"), PIXELS), picture())
    assert near(decode(encode(grey, "JPEG"), PIXELS), as_rgb)
    assert near(decode(encode(grey.convert("LA"), "PNG"), PIXELS), as_rgb)
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert near(decode(encode(wide, "PNG"), PIXELS), as_rgb, 1.0)
    assert decode(encode(picture().convert("1"), "PNG"), PIXELS).mode == "RGB"
    assert near(decode(encode(picture().quantize(255), "PNG"), PIXELS), picture())


def test_transparency_lies_over_white() -> None:
    see_through = picture().convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(see_through.size))
    white = Image.new("RGBA", see_through.size, "white")
    wanted = Image.alpha_composite(white, see_through).convert("RGB")
    assert near(decode(encode(see_through, "PNG"), PIXELS), wanted, 0.5)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    data = encode(palette, "PNG", transparency=0)
    assert decode(data, PIXELS).getpixel((3, 3)) == (255, 255, 255)


def test_floating_point_pixels_are_refused() -> None:
    data = encode(picture().convert("F"), "TIFF")
    with pytest.raises(ImageError) as caught:
        decode(data, PIXELS)
    assert caught.value.reason is Reason.IMAGE_FORMAT


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    second = Image.new("RGB", (40, 24), "black")
    data = encode(picture(), kind, save_all=True, append_images=[second], duration=100)
    assert near(decode(data, PIXELS), picture())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"<!DOCTYPE html><html>404</html>", Reason.NOT_AN_IMAGE),
        (b"GIF88a and so on", Reason.NOT_AN_IMAGE),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", Reason.NOT_AN_IMAGE),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Reason.IMAGE_FORMAT),
        (b"\xff\x0a\xfa\x1f", Reason.IMAGE_FORMAT),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.IMAGE_FORMAT),
        (b"\xff\xd8\xff\xe0", Reason.TRUNCATED_IMAGE),
        (b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED_IMAGE),
        (b"RIFF\x10\0\0\0WEBPVP8 ", Reason.TRUNCATED_IMAGE),
    ],
)
def test_what_is_no_image(data: bytes, reason: Reason) -> None:
    with pytest.raises(ImageError) as caught:
        probe(data)
    assert caught.value.reason is reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_cut_images(kind: str) -> None:
    data = encode(picture(200, 160), kind)
    with pytest.raises(ImageError) as caught:
        decode(data[: len(data) * 2 // 3], PIXELS)
    assert caught.value.reason is Reason.TRUNCATED_IMAGE


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    with pytest.raises(ImageError) as caught:
        decode(bomb(side), PIXELS)
    assert caught.value.reason is Reason.TOO_MANY_PIXELS
    assert probe(bomb(side)).width == side  # the header alone is harmless, and raises nothing


def test_webp_canvas_is_read_without_the_decoder() -> None:
    canvas = (20_000 - 1).to_bytes(3, "little")
    data = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + b"\x10\0\0\0" + canvas * 2
    assert probe(data).width == 20_000
    with pytest.raises(ImageError) as caught:
        decode(data, PIXELS)
    assert caught.value.reason is Reason.TOO_MANY_PIXELS


def test_gif_frame_beyond_its_canvas() -> None:
    data = bytearray(encode(picture().quantize(), "GIF"))
    at = data.index(b"\x2c", 13 + 3 * 256 if data[10] & 0x80 else 13)
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ImageError) as caught:
        decode(bytes(data), PIXELS)
    assert caught.value.reason in (Reason.TOO_MANY_PIXELS, Reason.TRUNCATED_IMAGE)


sound = [encode(picture(), kind) for kind in KINDS]
edits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sound), edits, st.integers(0, 10_000))
def test_damage_gives_an_image_or_a_reason(
    data: bytes, edit: list[tuple[int, int]], end: int
) -> None:
    harmed = bytearray(data)
    for at, value in edit:
        harmed[at % len(harmed)] = value
    harmed = harmed[: end or None]
    with contextlib.suppress(ImageError):  # and nothing else
        assert decode(bytes(harmed), PIXELS).mode == "RGB"


@given(st.binary(max_size=100))
def test_sniff_takes_any_bytes(data: bytes) -> None:
    assert sniff(data) is None or sniff(data + b"tail") is not None


def test_large_jpegs_may_come_back_smaller() -> None:
    data = encode(picture(800, 480), "JPEG")
    found = load(data, PIXELS, min_side=100)
    assert found.image.size == (200, 120)
    assert found.size == (800, 480)
    assert load(data, PIXELS).image.size == (800, 480)


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (375, 500), (100, 31), (31, 100)])
def test_to_square_is_the_published_transform(size: tuple[int, int]) -> None:
    """Against its two steps written out: resize the short side, cut out the centre."""
    image = picture(*size)
    found = to_square(image, 32)
    assert (found.shape, found.dtype) == ((32, 32, 3), np.uint8)
    scale = 32 / min(size)
    whole = (int(size[0] * scale), int(size[1] * scale))
    resized = np.asarray(image.resize(whole, Image.Resampling.BICUBIC))
    top, left = round((whole[1] - 32) / 2), round((whole[0] - 32) / 2)
    assert np.array_equal(found, resized[top : top + 32, left : left + 32])


def test_encoding_is_plain_and_repeatable() -> None:
    image = picture()
    image.info["comment"] = b"secret place"
    image.info["exif"] = b"Exif\0\0secret place"
    data = wit.image.encode(image, "JPEG", 90)
    assert data == wit.image.encode(picture(), "JPEG", 90)
    assert b"secret place" not in data


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0" + b"\xff" * 40  # makes Pillow warn
    data = encode(picture(), "JPEG", exif=exif)
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                decode(data, PIXELS)
        except BaseException as error:  # noqa: BLE001 - a warning turned into an error, too
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(224, 224), (500, 375), (9, 700)])
@pytest.mark.parametrize("min_side", [0, 100])
def test_the_quick_decoder_gives_the_same_pixels(
    subsampling: str,
    progressive: bool,
    size: tuple[int, int],
    min_side: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("simplejpeg")
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3))
    noisy = Image.fromarray(noise.astype(np.uint8)).resize(size)
    data = encode(noisy, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
    quick = load(data, PIXELS, min_side)
    monkeypatch.setattr("wit.image.simplejpeg", None)
    plain = load(data, PIXELS, min_side)
    assert quick.image.size == plain.image.size
    assert (quick.size, quick.mode) == (plain.size, plain.mode) == (size, "RGB")
    np.testing.assert_array_equal(np.asarray(quick.image), np.asarray(plain.image))


def test_what_is_odd_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    asked: list[bytes] = []
    decoder = simplejpeg.decode_jpeg

    def note(data: bytes, *args: Any, **options: Any) -> Any:
        asked.append(data)
        return decoder(data, *args, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", note)
    whole = encode(picture(400, 240), "JPEG")
    load(encode(picture().convert("L"), "JPEG"), PIXELS)
    load(encode(picture().convert("CMYK"), "JPEG"), PIXELS)
    load(encode(picture(), "PNG"), PIXELS)
    assert not asked
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(picture(), "JPEG", exif=exif)
    assert load(turned, PIXELS).image.size == picture().size[::-1]
    with pytest.raises(ImageError) as caught:
        load(whole[: len(whole) // 2], PIXELS)
    assert caught.value.reason is Reason.TRUNCATED_IMAGE
    assert len(asked) == 2
