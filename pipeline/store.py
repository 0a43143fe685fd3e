"""How a downloaded image is stored: upright RGB JPEG, no larger than the corpus wants it.

`Storer` has the call signature of img2dataset's Resizer and takes its place. It looks at the
header before it decodes, and it judges nothing that a later stage can judge from recorded
sizes, so a new threshold on sizes needs no new download.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from pipeline.dedupe import phash
from wit.image import Decoded, ImageError, encode_jpeg, load, probe
from wit.schema import Reason

MAX_JPEG_SIDE = 65_500  # of libjpeg
MAX_BYTES_PER_PIXEL, SPARE_BYTES = 3, 16 * 1024


class StoredImage(bytes):
    """The bytes to store, with what is known of the image."""

    format: str
    phash: int | None


Answer = tuple[
    StoredImage | None, int | None, int | None, int | None, int | None, str | None
]  # image, width, height, original width, original height, error


@dataclass(frozen=True)
class Storer:
    """Turns a downloaded body into the image to store; see `pipeline.config.ImageConfig`."""

    size: int
    quality: int
    max_pixels: int

    def __call__(self, stream: BinaryIO, boxes: object = None) -> Answer:
        """Store one image; failures come back as a `Reason` in the last place."""
        try:
            return self.store(stream.read())
        except ImageError as error:
            return None, None, None, None, None, str(error.reason)

    def store(self, data: bytes) -> Answer:
        """The image to store, its size, and the upright size of the original.

        Raises:
            ImageError: the bytes can't be used.
        """
        header = probe(data)
        if max(header.width, header.height) > MAX_JPEG_SIDE:
            too_many = header.width * header.height > self.max_pixels
            raise ImageError(Reason.TOO_MANY_PIXELS if too_many else Reason.ASPECT_RATIO)
        found = load(data, self.max_pixels, min_side=2 * self.size)
        image = shrink(found, self.size)
        keep = image is found.image and keeps_bytes(data, found)
        stored = StoredImage(data if keep else encode_jpeg(image, self.quality))
        stored.format, stored.phash = found.format, phash(image)
        return stored, *image.size, *found.size, None


def shrink(found: Decoded, size: int) -> Image.Image:
    """The image with a shorter side of at most `size` pixels; itself when it is small enough."""
    width, height = found.size
    short = min(width, height)
    if short <= size:
        return found.image
    wanted = (round(width * size / short), round(height * size / short))
    return found.image.resize(wanted, Image.Resampling.BICUBIC)


def keeps_bytes(data: bytes, found: Decoded) -> bool:
    """Whether the downloaded bytes can be stored as they are: an upright RGB or grey JPEG
    without so much metadata that it outweighs the pixels."""
    width, height = found.size
    return (
        found.format == "JPEG"
        and found.mode in ("RGB", "L")
        and found.orientation == 1
        and len(data) <= MAX_BYTES_PER_PIXEL * width * height + SPARE_BYTES
    )
