"""Hostile bytes to upright RGB under a pixel cap, and the one evaluation transform.

The format is decided by the first bytes, never by a name or a content type, and the matching
Pillow plugin is called directly: no other parser sees the data, and Pillow's own limit on
pixels (a global, which only warns up to twice its value) gives way to the caller's cap.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from wit.errors import WitError
from wit.schema import Reason

try:
    import simplejpeg
except ModuleNotFoundError:
    simplejpeg = None

# What Pillow is known to raise on damaged or malicious files; its plugins promise no less.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)

PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
LONGEST = 100  # a strip of one pixel by a hundred million must not become 224 times as wide
OPTIONAL = {"WEBP": "webp", "AVIF": "avif"}  # formats that a build of Pillow may lack

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    # images all the same, but of kinds that are not decoded here
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL ", "JXL"),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"<svg", "SVG"),
)
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

# one thread for AVIF: the number of threads decides its tiles, and so its bytes
ENCODING: dict[str, dict[str, object]] = {
    "JPEG": {"subsampling": "4:2:0"},
    "WEBP": {"method": 4},
    "AVIF": {"speed": 6, "max_threads": 1},
}

# mode that a colour JPEG is decoded to -> its name in simplejpeg
TURBO = {"RGB": "RGB", "L": "GRAY"}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(WitError):
    """Bytes that can't be used as an image; `reason` says why, from the closed set."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """What an image says about itself before any pixel is decoded."""

    format: str
    width: int
    height: int


def sniff(data: bytes) -> str | None:
    """The format that the first bytes announce, or None if they announce no image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = [data[i : i + 4] for i in range(8, min(len(data), 64), 4)]
        if any(brand in AVIF_BRANDS for brand in brands):
            return "AVIF"
        return "HEIF" if any(brand in HEIF_BRANDS for brand in brands) else None
    return next((name for magic, name in MAGIC if data.startswith(magic)), None)


def probe(data: bytes) -> Header:
    """Read the header alone: format, width and height in pixels, as stored.

    Raises:
        ImageError: NOT_AN_IMAGE, IMAGE_FORMAT (a kind that isn't decoded here), or
            TRUNCATED_IMAGE (the header itself is damaged).
    """
    found = sniff(data)
    if found == "JPEG" and simplejpeg is not None:
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return Header("JPEG", width, height)
        except ValueError:
            pass  # Pillow says what is wrong
    if found == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        # the decoder sets up two canvases as soon as it opens; this header is read without it
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        return Header("WEBP", width, height)
    with quiet(), _open(data, found) as image:
        return Header(image.format or "", *image.size)


@dataclass(frozen=True)
class Decoded:
    """A decoded image and what it was before.

    Attributes:
        image: RGB (or L, where grey was asked for), upright.
        format: of the encoded bytes, e.g. JPEG.
        mode: of the pixels before they became RGB, e.g. L or CMYK.
        orientation: EXIF orientation that was undone; 1 when it was upright already.
        size: width and height of the upright original, in pixels.
        animated: whether it has more frames than the one that was decoded.
    """

    image: Image.Image
    format: str
    mode: str
    orientation: int
    size: tuple[int, int]
    animated: bool = False


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode the first frame, upright, as RGB, with transparency laid over white.

    Args:
        data: the encoded image.
        max_pixels: cap on width times height, checked before any pixel is decoded.

    Raises:
        ImageError: what `probe` raises, TOO_MANY_PIXELS, or TRUNCATED_IMAGE.
    """
    return load(data, max_pixels).image


def load(
    data: bytes,
    max_pixels: int,
    min_side: int = 0,
    grey: bool = False,
    header: Header | None = None,
) -> Decoded:
    """As `decode`, and say what the image was before.

    With `min_side`, a JPEG may come back at 1/2, 1/4 or 1/8 of its size, by scaled DCT, as
    long as its shorter side keeps that many pixels: faster, and good enough to shrink from. With
    `grey` too, it may come back as its luminance alone (mode L), which is faster still. `header`
    is what `probe` found, where it is known already.
    """
    header = header or probe(data)
    if header.width * header.height > max_pixels:
        raise ImageError(Reason.TOO_MANY_PIXELS)
    with quiet(), _open(data, header.format) as image:
        size, mode = image.size, image.mode
        try:
            if size[0] * size[1] > max_pixels:  # a first frame beyond its canvas
                raise ImageError(Reason.TOO_MANY_PIXELS)
            if min_side and isinstance(image, JpegImagePlugin.JpegImageFile):
                image.draft("L" if grey else mode, _draft_size(size, min_side))
            quick = _turbo(data, image)
            if quick is None:
                image.load()
        except BOMB:
            raise ImageError(Reason.TOO_MANY_PIXELS) from None
        except DAMAGED:
            raise ImageError(Reason.TRUNCATED_IMAGE) from None
        turn = orientation(image)
        drafted = min_side > 0 and header.format == "JPEG"
        try:
            if quick is not None:
                rgb = quick
            else:
                rgb = image if drafted and image.mode == "L" != mode else to_rgb(image)
        except (ValueError, OSError):  # a colour space that Pillow reads but doesn't convert
            raise ImageError(Reason.IMAGE_FORMAT) from None
        animated = bool(getattr(image, "is_animated", False))
    if turn != 1:
        rgb = rgb.transpose(TURNS[turn])
    upright = (size if turn < 5 else size[::-1]) if drafted else rgb.size
    return Decoded(rgb, header.format, mode, turn, upright, animated)


def _turbo(data: bytes, image: ImageFile.ImageFile) -> Image.Image | None:
    """A JPEG by simplejpeg where that is installed: the same pixels (the same libjpeg-turbo, at the
    scale that `draft` chose), a fifth sooner. None: leave it to Pillow, also to say what is wrong.
    """
    if simplejpeg is None or image.mode not in TURBO or image.format != "JPEG":
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        scales = {(-(-width * n // 8), -(-height * n // 8)) for n in (1, 2, 4, 8)}
        if space != "YCbCr" or image.size not in scales:  # two parsers, two opinions: don't ask on
            return None
        pixels_HWC = simplejpeg.decode_jpeg(
            data, TURBO[image.mode], min_height=image.height, min_width=image.width
        )
    except ValueError:
        return None
    if pixels_HWC.shape != (image.height, image.width, len(image.getbands())):
        return None
    return Image.fromarray(pixels_HWC if image.mode == "RGB" else pixels_HWC[:, :, 0])


def _draft_size(size: tuple[int, int], min_side: int) -> tuple[int, int]:
    scale = min_side / min(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where it is absent or can't be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16-bit grey by its high byte, transparency over white.

    Raises:
        ValueError: Pillow has no conversion from this mode.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white")
    if image.mode.startswith("I"):
        grey_HW = np.clip(np.asarray(image).astype(np.int64), 0, 0xFFFF) >> 8
        return Image.fromarray(grey_HW.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode != "RGB":
        return image.convert("RGB")
    # a JPEG that is loaded holds nothing but its pixels; others may go on to further frames
    return image if isinstance(image, JpegImagePlugin.JpegImageFile) else image.copy()


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """The evaluation transform of CLIP (Radford et al. 2021, published code).

    Bicubic resize of the shorter side to `size`, then the centre square. The longer side is
    rounded down and the place of the square to even, as published. Of a picture that is more than
    `LONGEST` times as long as wide only the middle is resized: the square sees no more of it.

    Returns:
        uint8 array of shape (size, size, 3).
    """
    short, width, height = min(image.size), *image.size
    if max(width, height) > LONGEST * short:
        width, height = min(width, LONGEST * short), min(height, LONGEST * short)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    if short != size:
        image = image.resize(
            (max(size, size * width // short), max(size, size * height // short)),
            Image.Resampling.BICUBIC,
        )
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.convert("RGB").crop((left, top, left + size, top + size)))


def encode(image: Image.Image, kind: str, quality: int) -> bytes:
    """JPEG (baseline, 4:2:0), WEBP or AVIF without metadata; the same pixels, the same bytes.

    Raises:
        KeyError: another kind.
    """
    out = io.BytesIO()
    clean = image if not image.info else Image.frombytes(image.mode, image.size, image.tobytes())
    clean.save(out, kind, quality=quality, **ENCODING[kind])
    return out.getvalue()


@contextmanager
def _open(data: bytes, found: str | None) -> Iterator[ImageFile.ImageFile]:
    if found is None:
        raise ImageError(Reason.NOT_AN_IMAGE)
    if found not in PLUGINS or (found in OPTIONAL and not features.check(OPTIONAL[found])):
        raise ImageError(Reason.IMAGE_FORMAT)
    try:
        image = PLUGINS[found](io.BytesIO(data))
    except BOMB:
        raise ImageError(Reason.TOO_MANY_PIXELS) from None
    except DAMAGED:
        raise ImageError(Reason.TRUNCATED_IMAGE) from None
    with image:
        yield image


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata: what matters becomes a reason. Who decodes many
    images holds it for all of them, since changing the filters takes longer than a small image.

    `catch_warnings` alone isn't safe under threads: the first one in sets the filter, the
    last one out restores what was there.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)
