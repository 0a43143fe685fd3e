"""Traps in the bytes: forms of images that must be read, and bodies that must be refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw, features

from pipeline.sample.book import Book, Pair, Row, encode
from wit.schema import Reason

BOMB_SIDE = 60_000  # pixels: 10.8 GB once decoded, from some hundred bytes
# EXIF orientation -> how to turn an upright image into what such a camera stores
ORIENTATIONS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def add_image_traps(book: Book) -> None:
    """Add images of every form that must be read, then bodies that must be refused."""
    for _ in range(2):
        _add_colour_forms(book)
        _add_formats(book)
        _add_avif(book)
    for orientation in ORIENTATIONS:
        pair = next(book.pairs)
        _keep(book, "exif_rotated", "jpg", pair, rotated(pair.image, orientation))
    for n in range(3):
        _add_sizes(book, n)
        _add_bombs(book, n)
        _add_damage(book, n)
    _add_unreadable(book)


def _keep(book: Book, kind: str, ext: str, pair: Pair, body: bytes) -> None:
    book.add(Row(kind, book.url(kind, ext), pair.text), body)


def _refuse(book: Book, kind: str, ext: str, body: bytes, reason: Reason) -> None:
    book.add(Row(kind, book.url(kind, ext), next(book.pairs).text, reason), body)


def _add_colour_forms(book: Book) -> None:
    pair = next(book.pairs)
    _keep(book, "cmyk", "jpg", pair, encode(pair.image.convert("CMYK"), "JPEG", quality=90))
    pair = next(book.pairs)
    _keep(book, "greyscale", "jpg", pair, encode(pair.image.convert("L"), "JPEG", quality=90))
    pair = next(book.pairs)
    _keep(book, "grey_alpha", "png", pair, encode(vignette(pair.image).convert("LA"), "PNG"))
    pair = next(book.pairs)
    grey = np.asarray(pair.image.convert("L")).astype(np.uint16) * 257
    _keep(book, "grey_16_bit", "png", pair, encode(Image.fromarray(grey), "PNG"))
    pair = next(book.pairs)
    _keep(book, "rgb_16_bit", "png", pair, png_16_bit(pair.image))
    pair = next(book.pairs)
    palette = vignette(pair.image).quantize(200, method=Image.Quantize.FASTOCTREE)
    _keep(book, "palette_alpha", "png", pair, encode(palette, "PNG"))
    pair = next(book.pairs)
    _keep(book, "alpha", "png", pair, encode(vignette(pair.image), "PNG"))


def _add_formats(book: Book) -> None:
    pair = next(book.pairs)
    _keep(book, "webp", "webp", pair, encode(pair.image, "WEBP", quality=80))
    pair = next(book.pairs)
    _keep(book, "webp_lossless", "webp", pair, encode(pair.image, "WEBP", lossless=True))
    pair = next(book.pairs)
    body = encode(pair.image, "JPEG", quality=80, progressive=True)
    _keep(book, "progressive", "jpg", pair, body)
    pair = next(book.pairs)
    _keep(book, "gif", "gif", pair, encode(pair.image.quantize(), "GIF"))
    for kind in ("GIF", "WEBP"):
        pair, other = next(book.pairs), next(book.pairs)
        second = other.image.resize(pair.image.size)
        body = encode(pair.image, kind, save_all=True, append_images=[second], duration=200)
        _keep(book, f"animated_{kind.lower()}", kind.lower(), pair, body)


def _add_avif(book: Book) -> None:
    """Real AVIF where this machine's Pillow knows it, else a file that says it is AVIF."""
    pair = next(book.pairs)
    if features.check("avif"):
        body = encode(pair.image, "AVIF", quality=80, speed=8, max_threads=1)
        _keep(book, "avif", "avif", pair, body)
    else:
        _refuse(book, "avif", "avif", ftyp_box(b"avif"), Reason.IMAGE_FORMAT)


def _add_sizes(book: Book, n: int) -> None:
    kind = ("GIF", "PNG", "PNG")[n]
    pixel = Image.new("RGB", (1, 1), (n, n, n))
    _refuse(book, "one_pixel", kind.lower(), encode(pixel, kind), Reason.IMAGE_TOO_SMALL)
    small = next(book.pairs).image.resize((16, 12 + n))
    _refuse(book, "icon", "png", encode(small, "PNG"), Reason.IMAGE_TOO_SMALL)
    wide = next(book.pairs).image.resize((600 + 10 * n, 100))
    if n == 2:
        wide = wide.transpose(Image.Transpose.ROTATE_90)
    _refuse(book, "extreme_aspect", "jpg", encode(wide, "JPEG"), Reason.ASPECT_RATIO)


def _add_bombs(book: Book, n: int) -> None:
    ext = ("png", "gif", "jpg")[n]
    body = (png_bomb, gif_bomb, jpeg_bomb)[n](next(book.pairs).image)
    _refuse(book, "bomb", ext, body, Reason.TOO_MANY_PIXELS)


def _add_damage(book: Book, n: int) -> None:
    kind = ("JPEG", "PNG", "WEBP")[n]
    whole = encode(next(book.pairs).image, kind)
    _refuse(book, "truncated", kind.lower(), whole[: len(whole) // 2], Reason.TRUNCATED_IMAGE)
    photo = encode(next(book.pairs).image, "JPEG", quality=90)
    part = photo[: len(photo) * (n + 3) // 6]
    _refuse(book, "truncated_jpeg", "jpg", part, Reason.TRUNCATED_IMAGE)


def _add_unreadable(book: Book) -> None:
    """Formats that are images, and that Pillow without plug-ins can't decode."""
    for brand in (b"heic", b"mif1"):
        _refuse(book, "heic", "heic", ftyp_box(brand), Reason.IMAGE_FORMAT)
    jxl = b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a" + ftyp_box(b"jxl ")
    _refuse(book, "jpeg_xl", "jxl", jxl, Reason.IMAGE_FORMAT)


def rotated(upright: Image.Image, orientation: int) -> bytes:
    """A JPEG as a turned camera stores it: pixels turned, the EXIF tag says how to turn back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(ORIENTATIONS[orientation])
    return encode(stored, "JPEG", quality=92, exif=exif)


def vignette(image: Image.Image) -> Image.Image:
    """RGBA: see-through corners, and green where nothing is seen: a wrong read shows green."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((-8, -8, image.width + 8, image.height + 8), fill=255)
    hidden = Image.new("RGB", image.size, (0, 255, 0))
    mixed = Image.composite(image, hidden, mask).convert("RGBA")
    mixed.putalpha(mask)
    return mixed


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, bits: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)  # 2: RGB
    chunks = (_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(data)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_16_bit(image: Image.Image) -> bytes:
    """A PNG of 16 bits per colour, which Pillow itself can't write."""
    rgb_HWC = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in rgb_HWC)
    return _png(image.width, image.height, 16, rows)


def png_bomb(_image: Image.Image) -> bytes:
    """A sound header of an enormous image with a little data behind it."""
    return _png(BOMB_SIDE, BOMB_SIDE, 8, bytes(100_000))


def gif_bomb(image: Image.Image) -> bytes:
    """A GIF whose screen and frame sizes were overwritten with enormous ones."""
    body = bytearray(encode(image.quantize(), "GIF"))
    size = struct.pack("<HH", BOMB_SIDE, BOMB_SIDE)
    body[6:10] = size
    frame = body.index(b"\x2c\x00\x00\x00\x00")
    body[frame + 5 : frame + 9] = size
    return bytes(body)


def jpeg_bomb(image: Image.Image) -> bytes:
    """A JPEG whose frame header was overwritten with enormous sides."""
    body = bytearray(encode(image, "JPEG", quality=85))
    frame = body.index(b"\xff\xc0")
    body[frame + 5 : frame + 9] = struct.pack(">HH", BOMB_SIDE, BOMB_SIDE)
    return bytes(body)


def ftyp_box(brand: bytes) -> bytes:
    """The first box of an ISO media file of that brand, with noise behind it."""
    return struct.pack(">I", 16) + b"ftyp" + brand + bytes(4) + bytes(range(256)) * 4
