"""Perceptual hashes, and which of the images that look alike stays.

The hash is the sign of the 64 lowest-frequency DCT coefficients of a 32x32 grey thumbnail
(after Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010;
signs instead of a median, so that a coefficient near zero flips one bit and not two). It is
computed in whole numbers, so every machine gets the same bits: as floats, for the speed of their
matrix product, in which no sum passes 2^53.

Hashes that differ in at most 3 of 64 bits agree in at least 3 of 6 blocks of bits, so equality
on each of the C(6,3) = 20 choices of blocks finds every such pair (Manku et al., "Detecting
near-duplicates for web crawling", 2007). Each choice is one join on about 32 bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from PIL import Image

SIDE = 32
BITS = 64
# A hash is kept when this many coefficients stand out of what JPEG does to a flat area;
# fewer, and the hash would mostly say that there is little to see.
CLEAR, CLEAR_COEFFICIENTS = 16.0, 32

_SCALE = 1 << 12
_FREQUENCIES = 11  # the 64 lowest in both directions lie among these
_angles = np.pi * (2 * np.arange(SIDE) + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * SIDE)
_COSINES = np.rint(np.cos(_angles) * _SCALE)  # (frequency, position), whole numbers


def _zigzag() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 64 lowest frequencies, without the constant one."""
    cells = itertools.product(range(_FREQUENCIES), repeat=2)
    order = sorted(cells, key=lambda c: (sum(c), c if sum(c) % 2 else c[::-1]))
    rows, columns = zip(*order[1 : BITS + 1], strict=True)
    return np.array(rows), np.array(columns)


_ROWS, _COLUMNS = _zigzag()


def phash(image: Image.Image) -> int | None:
    """The 64-bit perceptual hash of an image, or None when there is too little in it to tell."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    grey_YX = np.asarray(grey).astype(np.float64)
    low = (_COSINES @ grey_YX @ _COSINES.T)[_ROWS, _COLUMNS]
    if np.count_nonzero(np.abs(low) > CLEAR * _SCALE**2) < CLEAR_COEFFICIENTS:
        return None
    return int.from_bytes(np.packbits(low > 0).tobytes(), "big")


def block_masks() -> list[int]:
    """The 20 masks that keep 3 of the 6 blocks (of 11, 11, 11, 11, 10 and 10 bits)."""
    blocks, start = [], 0
    for width in (11, 11, 11, 11, 10, 10):
        blocks.append(((1 << width) - 1) << start)
        start += width
    return [a | b | c for a, b, c in itertools.combinations(blocks, 3)]


def representatives(edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Which items of a likeness graph give way, and to which item that stays.

    Likeness doesn't carry over: an item gives way only to one that stays and that it is like
    itself, never along a chain of likenesses.

    Args:
        edges: pairs (better, worse) of places in the order of preference, sorted.

    Returns:
        Place of each item that gives way -> place of the best item that stays and is like it.
    """
    gone: dict[int, int] = {}
    for better, worse in edges:
        if better not in gone:  # final by now: all edges to it came before
            gone.setdefault(worse, better)
    return gone
