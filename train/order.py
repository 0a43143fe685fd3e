"""The order of samples: a pure function of the seed, the epoch and how many there are.

Up to `DRAWN` positions it is drawn once an epoch and kept, 8 bytes each. Beyond that it is
computed where it is asked for: a keyed permutation (a Feistel network of hashes over the next
power of four, walked until it falls inside: Black and Rogaway 2002), which takes no memory and no
time to begin. Both are orders over all samples, wherever they lie.

E positions of an epoch, M samples of a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

DRAWN = 1 << 24
ROUNDS = 8


class Order(Protocol):
    """The samples of an epoch by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: Any, /) -> Any: ...


def epoch_samples(counts: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many samples each source gives to an epoch."""
    if not weights:
        return list(counts)
    return [int(count * weight) for count, weight in zip(counts, weights, strict=True)]


@lru_cache(maxsize=2)
def epoch_order(
    seed: int,
    epoch: int,
    counts: tuple[int, ...],
    weights: tuple[float, ...] = (),
    resample: bool = False,
    drawn: int = DRAWN,
) -> Order:
    """The samples of one epoch in their order.

    Args:
        counts: samples of each source; those of the first are 0 to counts[0] - 1.
        weights: times that a source's samples occur in an epoch; of 2.5, every sample twice and a
            new half of them once more. Empty: each sample once.
        resample: draw them with replacement, as many.
        drawn: most positions that are drawn and kept.
    """
    wanted = epoch_samples(counts, weights)
    if sum(wanted) > drawn:
        return Keyed(seed, epoch, counts, wanted, resample)
    rng = np.random.default_rng([seed, epoch, 0])
    if not weights and not resample:
        return rng.permutation(sum(counts))
    parts, first = [], 0
    for count, some in zip(counts, wanted, strict=True):
        if resample:
            parts.append(first + rng.integers(0, count, some))
        else:
            whole, rest = divmod(some, count)
            parts += [first + np.arange(count)] * whole
            parts.append(first + rng.permutation(count)[:rest])
        first += count
    return rng.permutation(np.concatenate(parts))


class Keyed:
    """An order that is computed: `order[position]`, of one position or an array of them."""

    def __init__(
        self, seed: int, epoch: int, counts: Sequence[int], wanted: Sequence[int], resample: bool
    ) -> None:
        self._counts, self._wanted, self._resample = counts, wanted, resample
        words = np.random.SeedSequence([seed, epoch, 0]).generate_state(2 + len(counts), np.uint64)
        self._keys = [int(word) for word in words]

    def __len__(self) -> int:
        return sum(self._wanted)

    def __getitem__(self, position: Any) -> Any:
        at = permuted(np.atleast_1d(np.asarray(position, np.int64)), len(self), self._keys[0])
        out, start, first = np.empty_like(at), 0, 0
        for count, wanted, key in zip(self._counts, self._wanted, self._keys[2:], strict=True):
            here = (at >= start) & (at < start + wanted)
            out[here] = first + self._within(at[here] - start, count, wanted, key)
            start, first = start + wanted, first + count
        return out if np.ndim(position) else out[0]

    def _within(self, place: Ints, count: int, wanted: int, key: int) -> Ints:
        """The samples of one source by place: whole rounds of it, then a part of another."""
        if self._resample:
            return (_hash(place.astype(np.uint64), key) % np.uint64(count)).astype(np.int64)
        rest = place >= wanted // count * count
        out = place % count
        out[rest] = permuted(out[rest], count, key)
        return out


def permuted(value: Ints, size: int, key: int) -> Ints:
    """Where a permutation of 0 to `size` - 1 takes each value; another for each key."""
    half = np.uint64(max(1, -(-max(1, (size - 1).bit_length()) // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    out = value.astype(np.uint64)
    outside = np.ones(len(out), bool)
    while outside.any():
        left, right = out[outside] >> half, out[outside] & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (_hash(right, key + turn) & mask)
        out[outside] = (left << half) | right
        outside = out >= np.uint64(size)
    return out.astype(np.int64)


def _hash(x: Words, key: int) -> Words:
    """Sixty-four well mixed bits (splitmix64, Steele et al. 2014) of a word and a key."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(key * 0x9E3779B97F4A7C15 % (1 << 64))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Words = x ^ (x >> np.uint64(31))
    return mixed
