"""The tasks: a set and a model in, a result with numbers and intervals out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import retrieval, stats, zeroshot
from eval.config import EvalConfig
from eval.features import Encoder, ImageFeatures
from eval.likelihood import class_scores
from eval.report import Metric, Result
from eval.retrieval import Ranking
from eval.sets import EvalSample, EvalSet

RECALL_AT = (1, 5, 10)
METRICS_VERSION = 1  # rises when the meaning of a number changes
TIE_RULE = f"scores within {zeroshot.TIE:g} tie, and ties count against"


def evaluate(data: EvalSet, encoder: Encoder, config: EvalConfig, model: dict[str, Any]) -> Result:
    """Run the task that a set is made for.

    Args:
        model: what to record about the checkpoint.
    """
    features = encoder.images(data)
    samples = [data.samples[i] for i in features.kept_N]
    run = _retrieval if data.kind == "retrieval" else _zeroshot
    return run(data, samples, features, encoder, config, model)


def _zeroshot(
    data: EvalSet,
    samples: Sequence[EvalSample],
    features: ImageFeatures,
    encoder: Encoder,
    config: EvalConfig,
    model: dict[str, Any],
) -> Result:
    prompts = [list(data.classes), list(data.templates)]
    image_NE = features.image_NE
    if encoder.model.predictive:  # no text features: scores stand for features of images
        show = f"{data.name}: images with prompts"
        image_NE = encoder.cached(
            ["scores", data.fingerprint, encoder.preprocessing(), *prompts],
            lambda: class_scores(encoder, samples, data.classes, data.templates, show),
        )
        class_CE = np.eye(len(data.classes), dtype=np.float32)
    else:
        class_CE = encoder.cached(
            ["classifier", *prompts],
            lambda: zeroshot.classifier(
                lambda texts: encoder.texts(texts, f"{data.name}: prompts"),
                data.classes,
                data.templates,
            ),
        )
    label_N = np.array([sample.label for sample in samples], np.int64)
    said = zeroshot.classify(image_NE, class_CE, label_N)
    n, classes = len(samples), len(data.classes)
    metrics = [_top(k, said.rank_N, classes) for k in (1, 5) if k == 1 or classes > 5]
    hit_N = said.rank_N == 0
    metrics.append(
        Metric(
            "mean per class",
            zeroshot.mean_per_class(hit_N, label_N),
            stats.mean_of_classes(hit_N, label_N),
            n,
            zeroshot.chance_at(1, classes),
        )
    )
    absent = classes - len(np.unique(label_N))
    notes = (f"{absent} of {classes} classes have no image",) if absent else ()
    predictions = pa.table(
        {
            "key": [sample.key for sample in samples],
            "label": label_N,
            "predicted": said.best_N,
            "rank": said.rank_N,
            "score": said.score_N,
        }
    )
    protocol = _protocol("zeroshot", data, encoder) | {
        "classes": prompts[0],
        "templates": prompts[1],
    }
    return Result(
        data.name, "zeroshot", tuple(metrics), protocol, model, predictions, features.bad, notes
    )


def _top(k: int, rank_N: NDArray[np.int64], classes: int) -> Metric:
    hits = int((rank_N < k).sum())
    n = len(rank_N)
    return Metric(f"top-{k}", hits / n, stats.wilson(hits, n), n, zeroshot.chance_at(k, classes))


def _retrieval(
    data: EvalSet,
    samples: Sequence[EvalSample],
    features: ImageFeatures,
    encoder: Encoder,
    config: EvalConfig,
    model: dict[str, Any],
) -> Result:
    captions = [caption for sample in samples for caption in sample.captions]
    count_N = np.array([len(sample.captions) for sample in samples], np.int64)
    owner_M = np.repeat(np.arange(len(samples)), count_N)
    text_ME = encoder.cached(
        ["captions", captions], lambda: encoder.texts(captions, f"{data.name}: captions")
    )
    found = retrieval.retrieve(features.image_NE, text_ME, owner_M)
    image_owner_N = np.arange(len(samples))
    metrics = []
    for name, ranking, owner_Q, own_Q, items in (
        ("image to text", found.image_to_text, image_owner_N, count_N, len(captions)),
        ("text to image", found.text_to_image, owner_M, np.ones_like(owner_M), len(samples)),
    ):
        for k in RECALL_AT:
            hit_Q = ranking.rank_Q < k
            if len(hit_Q) == len(samples):  # one query an image: they are independent
                interval = stats.wilson(int(hit_Q.sum()), len(hit_Q))
            else:
                interval = stats.cluster_bootstrap(hit_Q, owner_Q, config.resamples, config.seed)
            chance = retrieval.chance_at(k, own_Q, items)
            metrics.append(
                Metric(f"{name} R@{k}", float(hit_Q.mean()), interval, len(hit_Q), chance)
            )
    keys = [sample.key for sample in samples]
    caption_keys = [f"{sample.key}#{i}" for sample in samples for i in range(len(sample.captions))]
    predictions = pa.concat_tables(
        [
            _rankings("image to text", keys, caption_keys, found.image_to_text),
            _rankings("text to image", caption_keys, keys, found.text_to_image),
        ]
    )
    return Result(
        data.name,
        "retrieval",
        tuple(metrics),
        _protocol("retrieval", data, encoder),
        model,
        predictions,
        features.bad,
    )


def _rankings(
    direction: str, queries: Sequence[str], items: Sequence[str], ranking: Ranking
) -> pa.Table:
    return pa.table(
        {
            "direction": [direction] * len(queries),
            "query": list(queries),
            "rank": ranking.rank_Q,
            "first": [items[i] for i in ranking.best_Q],
            "first_score": ranking.best_score_Q,
        }
    )


def _protocol(task: str, data: EvalSet, encoder: Encoder) -> dict[str, Any]:
    return {
        "task": task,
        "metrics_version": METRICS_VERSION,
        "ties": TIE_RULE,
        "data": data.fingerprint,
        "split": data.split,
        "preprocessing": encoder.preprocessing(),
    }
