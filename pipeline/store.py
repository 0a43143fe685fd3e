"""How a downloaded image is stored: upright RGB, no larger than the corpus wants it.

`Storer` looks at the header before it decodes, and it judges nothing that a later stage can
judge from recorded sizes, so a new threshold on sizes needs no new download. The ways to resize
have the names and the results of img2dataset's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from pipeline.dedupe import phash
from wit.image import Decoded, Header, ImageError, encode, load, probe
from wit.schema import Reason

MAX_JPEG_SIDE = 65_500  # of libjpeg
HASH_SIDE = 64  # twice the side of what is hashed
MAX_BYTES_PER_PIXEL, SPARE_BYTES = 3, 16 * 1024

ResizeMode = Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"]
Encoding = Literal["jpg", "webp", "avif"]
FORMATS: dict[str, str] = {"jpg": "JPEG", "webp": "WEBP", "avif": "AVIF"}


@dataclass(frozen=True)
class StoredImage:
    """The bytes to store, with what is known of the image.

    Attributes:
        data: the encoded image.
        size: its width and height.
        original_size: width and height of the upright original.
        format: of the original, e.g. PNG.
        phash: of the whole picture, before any cropping.
    """

    data: bytes
    size: tuple[int, int]
    original_size: tuple[int, int]
    format: str
    phash: int | None


@dataclass(frozen=True)
class Storer:
    """Turns a downloaded body into the image to store; see `pipeline.config.ImageConfig`."""

    size: int
    quality: int
    max_pixels: int
    resize: ResizeMode = "keep_ratio"
    encoding: Encoding = "jpg"

    def store(self, data: bytes, header: Header | None = None) -> StoredImage:
        """The image to store; `header` is what `probe` found, where it is known already.

        Raises:
            ImageError: the bytes can't be used.
        """
        header = header or probe(data)
        if max(header.width, header.height) > MAX_JPEG_SIDE:
            too_many = header.width * header.height > self.max_pixels
            raise ImageError(Reason.TOO_MANY_PIXELS if too_many else Reason.ASPECT_RATIO)
        if header.format == "JPEG" and self._fits(header.width, header.height):
            # all of it is read, so damage is found, but only the hash needs its pixels
            glance = load(data, self.max_pixels, HASH_SIDE, grey=True, header=header)
            if self._keeps_bytes(data, glance):
                return StoredImage(data, glance.size, glance.size, "JPEG", phash(glance.image))
        side = self._draft_side(header.width, header.height)
        found = load(data, self.max_pixels, side, header=header)
        image = resized(found, self.size, self.resize)
        keep = image is found.image and self._keeps_bytes(data, found)
        stored = data if keep else encode(image, self._format, self.quality)
        picture = found.image if self.resize in ("center_crop", "border") else image
        return StoredImage(stored, image.size, found.size, found.format, phash(picture))

    @property
    def _format(self) -> str:
        return FORMATS[self.encoding]

    def _fits(self, width: int, height: int) -> bool:
        """Whether an image of this size need not shrink."""
        largest = self.resize in ("keep_ratio_largest", "border")
        side = max(width, height) if largest else min(width, height)
        return self.resize == "no" or side <= self.size

    def _draft_side(self, width: int, height: int) -> int:
        """Pixels of the shorter side that decoding must leave to shrink from; 0 keeps all."""
        if self.resize == "no":
            return 0
        wanted = self.size
        if self.resize in ("border", "keep_ratio_largest"):
            wanted = max(1, round(self.size * min(width, height) / max(width, height)))
        return 2 * wanted

    def _keeps_bytes(self, data: bytes, found: Decoded) -> bool:
        """Whether the downloaded bytes can be stored as they are: of the wanted format, upright,
        RGB or grey, without so much metadata that it outweighs the pixels."""
        width, height = found.size
        return (
            found.format == self._format
            and found.mode in ("RGB", "L")
            and found.orientation == 1
            and not found.animated
            and len(data) <= MAX_BYTES_PER_PIXEL * width * height + SPARE_BYTES
        )


def resized(found: Decoded, size: int, mode: ResizeMode) -> Image.Image:
    """The image in the size to store it; itself when it is small enough.

    Modes are those of img2dataset with `resize_only_if_bigger`: `keep_ratio` bounds the shorter
    side, `center_crop` cuts a square out of that, `keep_ratio_largest` bounds the longer side,
    and `border` pads that with white to a square. Images that are small enough stay as they are.
    """
    width, height = found.size
    largest = mode in ("keep_ratio_largest", "border")
    side = max(width, height) if largest else min(width, height)
    if mode == "no" or side <= size:
        return found.image
    wanted = max(1, round(width * size / side)), max(1, round(height * size / side))
    image = found.image.resize(wanted, Image.Resampling.BICUBIC)
    if mode == "center_crop":
        left, top = (wanted[0] - size) // 2, (wanted[1] - size) // 2
        return image.crop((left, top, left + size, top + size))
    if mode == "border":
        square = Image.new("RGB", (size, size), (255, 255, 255))
        square.paste(image, ((size - wanted[0]) // 2, (size - wanted[1]) // 2))
        return square
    return image
