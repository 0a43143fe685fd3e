"""Captions as token ids, made where a sample is read.

b captions of a batch, L the longest of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wit.tokenizer import Tokenizer

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

Sentences = list[npt.NDArray[np.int32]]  # ids of a caption, one array for each sentence


class Captions:
    """Texts to ids of their sentences, and these to rows of a batch.

    The encoding works word by word, so the ids of a caption are those of its sentences, joined.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int) -> None:
        self._tokenizer, self._most = tokenizer, context_length - 2

    def sentences(self, text: str) -> Sentences:
        """Ids of each sentence of a caption, without start and end."""
        return [np.array(ids, np.int32) for ids in self._tokenizer.ids(_SENTENCE_END.split(text))]

    def tokens(
        self,
        captions_b: Sequence[Sentences],
        draw_b2: npt.NDArray[np.float64],
        sentences: float,
        rotate: bool,
    ) -> npt.NDArray[np.int64]:
        """Ids (b, L) of these captions: start, text, end, zeros.

        Args:
            captions_b: as `sentences` gives them.
            draw_b2: uniform in [0, 1): whether to take one sentence alone, and which.
            sentences: share of captions that give way to one of their sentences.
            rotate: whether the others begin at the drawn sentence and go round.
        """
        rows = []
        for caption, (alone, which) in zip(captions_b, draw_b2.tolist(), strict=True):
            drawn = int(which * len(caption))
            if alone < sentences:
                ids = caption[drawn]
            else:
                ids = np.concatenate(caption[drawn:] + caption[:drawn] if rotate else caption)
            rows.append(ids[: self._most])
        out_bL = np.zeros((len(rows), 2 + max(len(row) for row in rows)), np.int64)
        out_bL[:, 0] = self._tokenizer.sot
        for out_L, row in zip(out_bL, rows, strict=True):
            out_L[1 : len(row) + 1] = row
            out_L[len(row) + 1] = self._tokenizer.eot
        return out_bL
