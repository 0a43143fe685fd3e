"""Language of many captions at once: py3langid's model, faster than one by one.

The model is a naive Bayes classifier over byte n-grams that a finite automaton finds (Lui and
Baldwin, "langid.py", 2012). Here the automaton steps through all captions of a batch together,
and only the sum over the n-grams of a caption is taken one by one, where it stays in the cache.
The answers are those of `LanguageIdentifier.classify`, but for the last digits.

Shapes: B captions, T bytes of the longest, N n-grams seen, K languages.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

LONGEST = 500  # characters that a caption is judged by


class Languages:
    """py3langid's model in the form that batches need."""

    def __init__(self) -> None:
        model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.codes: list[str] = list(model.nb_classes)
        self._next = np.asarray(model.tk_nextmove)
        self._row = np.asarray(model.tk_row, np.int64) << 8
        self._ngram = np.asarray(model.tk_output, np.int32)
        self._weights_NK = model.nb_ptc.astype(np.float32)
        self._prior_K = model.nb_pc.astype(np.float32)
        first: dict[str, int] = {}  # a language may have several columns, one for each script
        pairs = [(first.setdefault(code, i), i) for i, code in enumerate(self.codes)]
        self._same = [(a, b) for a, b in pairs if a != b]

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The most likely language of each text and its probability, tempered by length."""
        if not texts:
            return []
        encoded = [_encode(text) for text in texts]
        sizes_B = np.array([len(data) for data in encoded])
        order_B = np.argsort(-sizes_B, kind="stable")
        place_B = np.empty_like(order_B)
        place_B[order_B] = np.arange(len(texts))
        who, ngram = self._walk(b"".join(encoded), sizes_B, place_B)
        scores_BK = self._scores(who, ngram, len(texts))
        scores_BK /= np.sqrt(np.maximum(sizes_B[order_B], 1), dtype=np.float32)[:, None]
        np.exp(scores_BK - scores_BK.max(1, keepdims=True), out=scores_BK)
        scores_BK /= scores_BK.sum(1, keepdims=True)
        for one, other in self._same:
            scores_BK[:, one] += scores_BK[:, other]
            scores_BK[:, other] = 0
        best_B = scores_BK.argmax(1)[place_B].tolist()
        probability_B = scores_BK.max(1)[place_B].tolist()
        return [(self.codes[k], p) for k, p in zip(best_B, probability_B, strict=True)]

    def _walk(
        self, data: bytes, sizes_B: np.ndarray, place_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams that the automaton finds, and whose they are: the texts stand in the order
        of their length, longest first, so those still under way are always the first."""
        letters_TB = np.zeros((max(int(sizes_B.max()), 1), len(sizes_B)), np.uint8)
        starts_B = np.cumsum(sizes_B) - sizes_B
        at = np.arange(len(data)) - np.repeat(starts_B, sizes_B)
        letters_TB[at, np.repeat(place_B, sizes_B)] = np.frombuffer(data, np.uint8)
        under_way_T = len(sizes_B) - np.cumsum(np.bincount(sizes_B))
        state = np.zeros(len(sizes_B), np.int64)
        who, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for letters_B, count in zip(letters_TB, under_way_T.tolist(), strict=False):
            state = self._next[self._row[state[:count]] + letters_B[:count]]
            ngram = self._ngram[state]
            hits = np.flatnonzero(ngram >= 0)
            who.append(hits)
            found.append(ngram[hits].astype(np.int64))
        return np.concatenate(who), np.concatenate(found)

    def _scores(self, who: np.ndarray, ngram: np.ndarray, texts: int) -> np.ndarray:
        scores_BK = np.zeros((texts, len(self.codes)), np.float32)
        keys, counts = np.unique(who * len(self._weights_NK) + ngram, return_counts=True)
        who, ngram = np.divmod(keys, len(self._weights_NK))
        seen = np.log1p(counts.astype(np.float32))
        starts = np.flatnonzero(np.diff(who, prepend=-1))
        ends = np.append(starts[1:], len(who))[: len(starts)]
        for text, low, high in zip(
            who[starts].tolist(), starts.tolist(), ends.tolist(), strict=True
        ):
            weights_NK = self._weights_NK.take(ngram[low:high], axis=0)
            scores_BK[text] = seen[low:high] @ weights_NK + self._prior_K
        return scores_BK


def _encode(text: str) -> bytes:
    text = text[:LONGEST]
    if text.isupper():
        text = text.lower()
    return unicodedata.normalize("NFC", text).encode()


@functools.cache
def model() -> Languages:
    """The model, read once a process."""
    return Languages()
