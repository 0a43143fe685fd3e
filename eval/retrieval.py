"""Image-text retrieval with any number of captions per image.

An image finds its texts when one of its captions is among the first k (image to text); a
caption finds its image when that image is among the first k (text to image). Rankings go by
cosine, and ties count against the model.

Shapes: Q queries, I items, N images, M captions, E embedding dimensions. The score matrix is
never held: blocks of it are counted and dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.zeroshot import TIE, Features

BLOCK = 2048  # queries, and items, of one block of scores: 16 MB


class Ranking(NamedTuple):
    """For each query: the rank of its best own item, and the item that scored highest."""

    rank_Q: NDArray[np.int64]  # items of other owners that score at least as high; 0 = first
    best_Q: NDArray[np.int64]
    best_score_Q: NDArray[np.float32]


class Retrieval(NamedTuple):
    """Both directions."""

    image_to_text: Ranking
    text_to_image: Ranking


def retrieve(image_NE: Features, text_ME: Features, owner_M: NDArray[np.int64]) -> Retrieval:
    """Rank texts for each image and images for each text.

    Args:
        image_NE, text_ME: features of unit length.
        owner_M: the image of each caption, ascending; every image has at least one.
    """
    owner_N = np.arange(len(image_NE))
    pairs_M = (image_NE[owner_M] * text_ME).sum(axis=1)
    # The best own caption of each image; captions of one image lie side by side.
    first_N = np.searchsorted(owner_M, owner_N)
    own_N = np.maximum.reduceat(pairs_M, first_N)
    return Retrieval(
        image_to_text=rank(image_NE, text_ME, owner_N, owner_M, own_N),
        text_to_image=rank(text_ME, image_NE, owner_M, owner_N, pairs_M),
    )


def rank(
    query_QE: Features,
    item_IE: Features,
    owner_Q: NDArray[np.int64],
    owner_I: NDArray[np.int64],
    own_Q: NDArray[np.float32],
) -> Ranking:
    """Count, for each query, the items of other owners that score at least as high as its own.

    Args:
        owner_Q, owner_I: a query and an item belong together when their owners are equal.
        own_Q: score of each query's best own item. Scores within `TIE` of it are ties, for
            the same text encoded in two batches differs in its last bits.
    """
    rank_Q = np.zeros(len(query_QE), np.int64)
    best_Q = np.zeros(len(query_QE), np.int64)
    best_score_Q = np.full(len(query_QE), -np.inf, np.float32)
    for q in range(0, len(query_QE), BLOCK):
        query = slice(q, q + BLOCK)
        for i in range(0, len(item_IE), BLOCK):
            item = slice(i, i + BLOCK)
            score_QI = query_QE[query] @ item_IE[item].T
            other_QI = owner_Q[query, None] != owner_I[None, item]
            rank_Q[query] += (other_QI & (score_QI >= own_Q[query, None] - TIE)).sum(axis=1)
            top_Q = score_QI.argmax(axis=1)
            top_score_Q = np.take_along_axis(score_QI, top_Q[:, None], axis=1)[:, 0]
            better_Q = top_score_Q > best_score_Q[query]
            best_Q[query] = np.where(better_Q, top_Q + i, best_Q[query])
            best_score_Q[query] = np.where(better_Q, top_score_Q, best_score_Q[query])
    return Ranking(rank_Q, best_Q, best_score_Q)


def chance_at(k: int, own_Q: NDArray[np.int64], items: int) -> float:
    """Expected recall at k of a random order: the mean of 1 - C(items - own, k) / C(items, k).

    Args:
        own_Q: how many of the items are right for each query.
    """
    k = min(k, items)
    miss_Q = np.ones(len(own_Q))
    for i in range(k):
        miss_Q *= np.maximum(items - own_Q - i, 0) / (items - i)
    return float((1 - miss_Q).mean())
