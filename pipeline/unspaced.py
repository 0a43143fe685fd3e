"""Queries inside of words, for scripts that put no spaces between them (ahocorasick_rs).

In Chinese, Japanese, Thai, Lao, Khmer and Burmese a run of letters is a clause, not a word, so
there a query may begin and end anywhere but before a mark that belongs to the letter before it.
Next to letters of other scripts a match ends where a word does, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import regex

from wit.errors import MissingExtra

_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNSPACED = regex.compile(f"[{_SCRIPTS}]")
_BOUND = regex.compile(r"[\p{M}ー]")  # never the first character of a word


class UnspacedFinder:
    """Adds to the word-bounded matches of a column those inside of unspaced text."""

    def __init__(
        self, queries: pa.StringArray, find: Callable[[pa.StringArray], pa.ListArray]
    ) -> None:
        """`find` gives the word-bounded matches.

        Raises:
            MissingExtra: ahocorasick_rs is not installed.
        """
        try:
            from ahocorasick_rs import AhoCorasick
        except ModuleNotFoundError:
            raise MissingExtra("ahocorasick_rs", "matcher") from None
        self._automaton, self._bounded = AhoCorasick(queries.to_pylist()), find

    def find(self, captions: pa.StringArray) -> pa.ListArray:
        """The numbers of the queries in each caption, ascending, each once."""
        bounded = self._bounded(captions)
        unspaced = pc.match_substring_regex(captions, f"[{_SCRIPTS}]")
        if not pc.any(unspaced).as_py():
            return bounded
        lists = bounded.to_pylist()
        for row in pc.indices_nonzero(unspaced).to_pylist():
            lists[row] = self._search(captions[row].as_py())
        return pa.array(lists, pa.list_(pa.int32()))

    def _search(self, text: str) -> list[int]:
        matches = self._automaton.find_matches_as_indexes(text, overlapping=True)
        return sorted({n for n, start, end in matches if cut(text, start) and cut(text, end)})


def cut(text: str, at: int) -> bool:
    """Whether a match may begin or end before character `at` of normalised words."""
    if at in (0, len(text)) or " " in (before := text[at - 1], after := text[at]):
        return True
    return not _BOUND.match(after) and bool(_UNSPACED.match(before) or _UNSPACED.match(after))
