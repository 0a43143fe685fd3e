"""The queries of whole columns of captions: a hash join of n-grams, vectorised.

Captions and queries come as normalised words with one space between them, so a query occurs in a
caption where a run of whole words has the query's very bytes. The hash of the bytes s to e is
(C[e] - C[s]) / B^s in 64-bit arithmetic, where C sums byte i times B^i: one running sum over the
batch gives the hash of every run of words. A hash only proposes; bytes are compared.

Legend: a caption is a row; a run of words is a gram; a slot is a line of the hash table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

_SPACE = 32
_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_MIX = 0xD6E8FEB86659FD93
_BATCH = 1 << 18  # bytes of captions worked on at once: what a core's cache holds
_KEY, _HEAD, _START, _MARK = range(4)  # columns of a slot; mark = length << 32 | query + 1
_LOW = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # masks of the first n bytes


class QueryTable:
    """The queries as a hash table: 80 to 160 bytes and its text for each."""

    def __init__(self, queries: pa.StringArray) -> None:
        """Queries are normalised words, none of them empty."""
        self._power, self._inverse = _powers(_BASE, 1), _powers(_BASE, 1)
        text, bounds = _text(queries)
        self._text = _padded(text)
        starts, ends = bounds[:-1], bounds[1:]
        keys, pairs, most = self._hash_queries(text, starts, ends)
        self._most = most
        bits = max(10, int(2 * len(starts)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._filter_shift = np.uint64(64 - bits - 2)
        self._filter = self._flags(bits + 2, keys)
        self._opening = self._flags(bits + 2, pairs)
        self._slots = np.zeros((1 << bits, 4), np.uint64)
        self._insert(keys, starts, ends - starts)

    def find(self, captions: pa.StringArray) -> pa.ListArray:
        """The numbers of the queries in each caption (null as none), ascending, each once."""
        text, bounds = _text(captions)
        rows, found = [], []
        first = 0
        while first < len(captions):
            fits = int(np.searchsorted(bounds, bounds[first] + _BATCH, side="right")) - 1
            last = min(max(fits, first + 1), len(captions))
            part = text[bounds[first] : bounds[last]]
            row, query = self._find(part, bounds[first : last + 1] - bounds[first])
            rows.append(row + first)
            found.append(query)
            first = last
        row = np.concatenate(rows) if rows else np.empty(0, np.int64)
        query = np.concatenate(found) if found else np.empty(0, np.int32)
        offsets = np.searchsorted(row, np.arange(len(captions) + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(query))

    def _find(self, text: Bytes, bounds: Ints) -> tuple[Ints, npt.NDArray[np.int32]]:
        starts, ends, per_row = _words(text, bounds)
        row = np.repeat(np.arange(len(per_row)), per_row)
        left = np.repeat(np.cumsum(per_row), per_row) - np.arange(len(starts))
        first, last, key = self._candidates(self._sums(text), starts, ends, left)
        begin = starts.take(first)
        at, query = self._look_up(_heads(text), begin, ends.take(last) - begin, key)
        both = np.sort(row.take(first.take(at)) << 32 | query, kind="stable")  # runs in order
        both = both[np.append(True, both[1:] != both[:-1])[: len(both)]]
        return both >> 32, both.astype(np.int32)

    def _candidates(
        self, sums: Hashes, starts: Ints, ends: Ints, left: Ints
    ) -> tuple[Ints, Ints, Hashes]:
        """First word, last word and hash of the grams that may be a query.

        Three words and more are tried only where the first two open such a query.
        """
        before, after = sums.take(starts), sums.take(ends)
        unit = self._inverse.take(starts) * np.uint64(_MIX)
        first, last, keys = [], [], []
        at = np.arange(len(starts))
        for n in range(1, self._most + 1):
            at = at[left.take(at) >= n] if n > 1 else at
            key = (after.take(at + (n - 1)) - before.take(at)) * unit.take(at)
            key ^= key >> np.uint64(32)
            place = (key >> self._filter_shift).view(np.int64)
            likely = np.flatnonzero(self._filter.take(place, mode="clip"))
            first.append(at.take(likely))
            last.append(first[-1] + (n - 1))
            keys.append(key.take(likely))
            if n == 2:
                at = at[self._opening.take(place, mode="clip")]
        return np.concatenate(first), np.concatenate(last), np.concatenate(keys)

    def _look_up(
        self, heads: Hashes, starts: Ints, lengths: Ints, keys: Hashes
    ) -> tuple[Ints, Ints]:
        """Which grams are queries, and which."""
        at = np.arange(len(keys))
        slot = (keys >> self._shift).view(np.int64)
        grams, queries = [], []
        while len(at):
            there = self._slots.take(slot, 0, mode="clip")  # many times as fast as [slot]
            query = (there[:, _MARK] & np.uint64(0xFFFFFFFF)).view(np.int64) - 1
            length = lengths.take(at)
            alike = there[:, _KEY] == keys.take(at)
            alike &= (there[:, _MARK] >> np.uint64(32)).view(np.int64) == length
            low = _LOW.take(length, mode="clip")
            alike &= ((heads.take(starts.take(at)) ^ there[:, _HEAD]) & low) == 0
            long = np.flatnonzero(alike & (length > 8))
            begin = there[long, _START].view(np.int64)
            alike[long] = self._same_tail(heads, starts[at[long]], begin, length[long])
            grams.append(at[alike])
            queries.append(query[alike])
            onward = np.flatnonzero(~alike & (query >= 0))
            at, slot = at[onward], (slot[onward] + 1) & (len(self._slots) - 1)
        return np.concatenate([*grams, at]), np.concatenate([*queries, at])

    def _same_tail(self, heads: Hashes, starts: Ints, begins: Ints, lengths: Ints) -> Flags:
        """Whether grams and queries of equal length agree from their ninth byte on."""
        same = np.ones(len(starts), np.bool_)
        open_, done = np.arange(len(starts)), 8
        while len(open_):
            low = _LOW[np.minimum(lengths[open_] - done, 8)]
            here = heads[starts[open_] + done] ^ _eight(self._text, begins[open_] + done)
            equal = (here & low) == 0
            same[open_[~equal]] = False
            done += 8
            open_ = open_[equal & (lengths[open_] > done)]
        return same

    def _insert(self, keys: Hashes, starts: Ints, lengths: Ints) -> None:
        """Put each query into the first free slot from its hash on."""
        number = np.arange(len(keys), dtype=np.uint64)
        marks = lengths.view(np.uint64) << np.uint64(32) | (number + np.uint64(1))
        slot, left = (keys >> self._shift).view(np.int64), np.arange(len(keys))
        while len(left):
            free = left[self._slots[slot[left], _MARK] == 0]
            self._slots[slot[free], _MARK] = marks[free]  # of several, the last stays
            won = free[self._slots[slot[free], _MARK] == marks[free]]
            self._slots[slot[won], _KEY] = keys[won]
            self._slots[slot[won], _HEAD] = _eight(self._text, starts[won])
            self._slots[slot[won], _START] = starts[won].view(np.uint64)
            left = left[self._slots[slot[left], _MARK] != marks[left]]
            slot[left] = (slot[left] + 1) & (len(self._slots) - 1)

    def _hash_queries(self, text: Bytes, starts: Ints, ends: Ints) -> tuple[Hashes, Hashes, int]:
        """Hashes of all queries, of the first two words of those that have three, most words."""
        keys, pairs, most, first = [], [], 1, 0
        while first < len(starts):
            fits = int(np.searchsorted(ends, starts[first] + _BATCH, side="right"))
            last = max(fits, first + 1)
            begin, end = starts[first:last] - starts[first], ends[first:last] - starts[first]
            part = text[starts[first] : ends[last - 1]]
            sums = self._sums(part)
            unit = self._inverse[begin] * np.uint64(_MIX)
            keys.append((sums[end] - sums[begin]) * unit)
            word_ends, per_query = _words(part, np.append(begin, end[-1]))[1:]
            most = max(most, int(per_query.max()))
            second = np.cumsum(per_query) - per_query + 1
            long = np.flatnonzero(per_query > 2)
            pairs.append((sums[word_ends[second[long]]] - sums[begin[long]]) * unit[long])
            first = last
        found = [np.concatenate([*part, np.empty(0, np.uint64)]) for part in (keys, pairs)]
        for key in found:
            key ^= key >> np.uint64(32)
        return found[0], found[1], most

    def _flags(self, bits: int, keys: Hashes) -> Flags:
        flags = np.zeros(1 << bits, np.bool_)
        flags[(keys >> self._filter_shift).view(np.int64)] = True
        return flags

    def _sums(self, text: Bytes) -> Hashes:
        """C[0] to C[len(text)]; grows the powers of the base as far as it needs."""
        if len(self._power) <= len(text):
            size = 1 << max(len(text), _BATCH).bit_length()
            self._inverse = _powers(pow(_BASE, -1, 1 << 64), size)
            self._power = _powers(_BASE, size)
        sums = np.zeros(len(text) + 1, np.uint64)
        np.multiply(text, self._power[: len(text)], out=sums[1:])
        np.cumsum(sums, out=sums)
        return sums


def _powers(base: int, size: int) -> Hashes:
    powers = np.full(size, base, np.uint64)
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    return powers


def _text(column: pa.StringArray) -> tuple[Bytes, Ints]:
    """The bytes of a column of strings, and where each of its rows begins and the last ends."""
    _, offsets, data = column.buffers()
    size = len(column)
    bounds = np.frombuffer(offsets, np.int32, column.offset + size + 1)[column.offset :]
    text = np.frombuffer(data if data is not None else b"", np.uint8)
    bounds = bounds.astype(np.int64)
    return text[bounds[0] : bounds[-1]], bounds - bounds[0]


def _words(text: Bytes, bounds: Ints) -> tuple[Ints, Ints, Ints]:
    """Begin and end of every word, and how many each row has."""
    space = text == _SPACE
    begins = np.zeros(len(text) + 1, np.bool_)
    begins[1:] = space
    begins[bounds] = True
    begins[len(text)] = False
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(text))[: len(starts)]
    ends -= space[ends - 1]
    return starts, ends, np.diff(np.searchsorted(starts, bounds))


def _heads(text: Bytes) -> Hashes:
    """The eight bytes from each place on, as one number; zeros after the end."""
    return np.ndarray((len(text) + 1,), "<u8", _padded(text), 0, (1,)).astype(np.uint64)


def _eight(padded: Bytes, at: Ints) -> Hashes:
    """`_heads` of a few places of a padded text."""
    return padded.take(at[:, None] + np.arange(8)).view("<u8")[:, 0].astype(np.uint64)


def _padded(text: Bytes) -> Bytes:
    return np.concatenate([text, np.zeros(8, np.uint8)])
