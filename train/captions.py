"""All captions of a corpus as token ids, made once, kept end to end in one array.

b captions of a batch, L the longest of them, M samples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wit.tokenizer import Tokenizer

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
TEXTS_AT_ONCE = 10_000


class Captions:
    """Ids of M captions, cut into sentences; 2 bytes an id for most vocabularies.

    The encoding works word by word, so the ids of a caption are those of its sentences, joined.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, context_length: int) -> None:
        self._sot, self._eot, self._most = tokenizer.sot, tokenizer.eot, context_length - 2
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
        flat, lengths, counts = [np.zeros(0, dtype)], [0], [0]
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            parts = [_SENTENCE_END.split(text) for text in texts[at : at + TEXTS_AT_ONCE]]
            ids = tokenizer.ids([sentence for sentences in parts for sentence in sentences])
            counts += [len(sentences) for sentences in parts]
            lengths += [len(one) for one in ids]
            flat.append(np.array([i for one in ids for i in one], dtype))
        self.ids = np.concatenate(flat)
        self._sentence_at = np.cumsum(lengths)  # sentence s: ids [s] to [s + 1]
        self._caption_at = np.cumsum(counts)  # caption m: sentences [m] to [m + 1]

    def tokens(
        self,
        index_b: Sequence[int],
        draw_b2: npt.NDArray[np.float64],
        sentences: float,
        rotate: bool,
    ) -> npt.NDArray[np.int64]:
        """Ids (b, L) of these captions: start, text, end, zeros.

        Args:
            index_b: sample numbers.
            draw_b2: uniform in [0, 1): whether to take one sentence alone, and which.
            sentences: share of captions that give way to one of their sentences.
            rotate: whether the others begin at the drawn sentence and go round.
        """
        at = self._sentence_at
        rows = []
        for i, (alone, which) in zip(index_b, draw_b2.tolist(), strict=True):
            first, stop = int(self._caption_at[i]), int(self._caption_at[i + 1])
            drawn = first + int(which * (stop - first))
            if alone < sentences:
                ids = self.ids[at[drawn] : at[drawn + 1]]
            elif rotate:
                ids = np.concatenate(
                    [self.ids[at[drawn] : at[stop]], self.ids[at[first] : at[drawn]]]
                )
            else:
                ids = self.ids[at[first] : at[stop]]
            rows.append(ids[: self._most])
        out_bL = np.zeros((len(rows), 2 + max(len(row) for row in rows)), np.int64)
        out_bL[:, 0] = self._sot
        for out_L, row in zip(out_bL, rows, strict=True):
            out_L[1 : len(row) + 1] = row
            out_L[len(row) + 1] = self._eot
        return out_bL
