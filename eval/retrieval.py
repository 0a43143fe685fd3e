"""Image-text retrieval with any number of captions per image.

An image finds its texts when one of its captions is among the first k (image to text); a
caption finds its image when that image is among the first k (text to image). Rankings go by
cosine, and ties count against the model.

Shapes: Q queries, I items, N images, M captions, E embedding dimensions, K items that are kept
for each query. The score matrix is never held: blocks of it are counted and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import metrics, stats, task
from eval.config import EvalConfig
from eval.evalset import EvalSet
from eval.features import Encoder, Features
from eval.metrics import Weights
from eval.prompts import fill
from eval.report import Metric, Result
from eval.results import RECALL_AT
from eval.zeroshot import TIE, TIE_RULE

BLOCK = 2048  # queries, and items, of one block of scores: 16 MB
KEPT = 10  # items kept for each query


class Ranking(NamedTuple):
    """For each query: the rank of its best own item, and the items that scored highest."""

    rank_Q: NDArray[np.int64]  # items of other owners that score at least as high; 0 = first
    top_QK: NDArray[np.int64]  # best first; K is the number of items where they are fewer
    top_score_QK: NDArray[np.float32]


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
    kept = min(KEPT, len(item_IE))
    top_QK = np.zeros((len(query_QE), kept), np.int64)
    top_score_QK = np.full((len(query_QE), kept), -np.inf, np.float32)
    for q in range(0, len(query_QE), BLOCK):
        query = slice(q, q + BLOCK)
        for i in range(0, len(item_IE), BLOCK):
            item = slice(i, i + BLOCK)
            score_QI = query_QE[query] @ item_IE[item].T
            other_QI = owner_Q[query, None] != owner_I[None, item]
            rank_Q[query] += (other_QI & (score_QI >= own_Q[query, None] - TIE)).sum(axis=1)
            # The best so far and the best of this block compete for the places.
            few = min(kept, score_QI.shape[1])
            best_QK = np.argpartition(score_QI, -few, axis=1)[:, -few:]
            scores = np.take_along_axis(score_QI, best_QK, axis=1)
            scores = np.concatenate([top_score_QK[query], scores], axis=1)
            items = np.concatenate([top_QK[query], best_QK + i], axis=1)
            order_QK = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
            top_QK[query] = np.take_along_axis(items, order_QK, axis=1)
            top_score_QK[query] = np.take_along_axis(scores, order_QK, axis=1)
    return Ranking(rank_Q, top_QK, top_score_QK)


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


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Recall in both directions, and the mean of both at 1."""
    features = encoder.images(data)
    samples = [data.samples[i] for i in features.kept_N]
    template = data.templates[:1] or ("{c}",)
    captions = [fill(template, caption)[0] for sample in samples for caption in sample.captions]
    count_N = np.array([len(sample.captions) for sample in samples], np.int64)
    owner_M = np.repeat(np.arange(len(samples)), count_N)
    text_ME = encoder.cached(
        ["captions", captions], lambda: encoder.texts(captions, f"{data.name}: captions")
    )
    found = retrieve(features.image_NE, text_ME, owner_M)
    image_owner_N = np.arange(len(samples))
    measured: list[Metric] = []
    for name, ranking, owner_Q, own_Q, items in (
        ("image to text", found.image_to_text, image_owner_N, count_N, len(captions)),
        ("text to image", found.text_to_image, owner_M, np.ones_like(owner_M), len(samples)),
    ):
        for k in RECALL_AT:
            hit_Q = ranking.rank_Q < k
            if len(hit_Q) == len(samples):  # one query an image: they are independent
                interval = stats.wilson(int(hit_Q.sum()), len(hit_Q))
            else:
                interval = stats.bootstrap(
                    metrics.mean(hit_Q), owner_Q, config.resamples, config.seed
                )
            chance = chance_at(k, own_Q, items)
            measured.append(
                Metric(f"{name} R@{k}", float(hit_Q.mean()), interval, len(hit_Q), chance)
            )
    measured.append(_mean_recall(found, owner_M, measured, config))
    keys = [sample.key for sample in samples]
    caption_keys = [f"{sample.key}#{i}" for sample in samples for i in range(len(sample.captions))]
    predictions = pa.concat_tables(
        [
            _rankings("image to text", keys, keys, caption_keys, found.image_to_text),
            _rankings(
                "text to image",
                caption_keys,
                [keys[i] for i in owner_M],
                keys,
                found.text_to_image,
            ),
        ]
    )
    protocol = task.protocol("retrieval", data, encoder) | {
        "ties": TIE_RULE,
        "caption_template": template[0],
        "hit": "at least one of the captions of the image",
    }
    return Result(
        set=data.name,
        task="retrieval",
        metrics=tuple(measured),
        protocol=protocol,
        predictions=predictions,
        bad=features.bad,
        main=metrics.MEAN_R1,
    )


def _mean_recall(
    found: Retrieval, owner_M: NDArray[np.int64], measured: Sequence[Metric], config: EvalConfig
) -> Metric:
    """The mean of both directions' recall at 1; whole images are drawn for its interval."""
    images, captions = len(found.image_to_text.rank_Q), len(owner_M)
    hit_Q = np.concatenate([found.image_to_text.rank_Q, found.text_to_image.rank_Q]) < 1
    owner_Q = np.concatenate([np.arange(images), owner_M])
    image_Q = np.arange(len(hit_Q)) < images

    def value(weight_Q: Weights) -> float:
        hits_Q = weight_Q * hit_Q
        to_text = hits_Q[image_Q].sum() / weight_Q[image_Q].sum()
        to_image = hits_Q[~image_Q].sum() / weight_Q[~image_Q].sum()
        return float(to_text + to_image) / 2

    interval = stats.bootstrap(value, owner_Q, config.resamples, config.seed)
    chance = float(np.mean([m.chance for m in measured if m.name.endswith("R@1")]))
    n = images + captions
    return Metric(metrics.MEAN_R1, metrics.plain(value, n), interval, n, chance)


def _rankings(
    direction: str,
    queries: Sequence[str],
    images: Sequence[str],
    items: Sequence[str],
    ranking: Ranking,
) -> pa.Table:
    """One row for each query; `image` is the cluster it belongs to."""
    name_I = np.array(items, object)
    return pa.table(
        {
            "direction": [direction] * len(queries),
            "query": list(queries),
            "image": list(images),
            "rank": ranking.rank_Q,
            "found": [list(name_I[top_K]) for top_K in ranking.top_QK],
            "score": list(ranking.top_score_QK),
        }
    )
