"""The task `lexicon`: zero-shot among each image's own words, as IIIT5K asks (table 14).

A set for this is a CSV file whose column `lexicon` lists the words that the image may show, with |
between them; `label` is the right one. Sets of text whose classes are the same for all images
(MNIST, rendered SST-2, SVHN's numbers) are ordinary classification.

Shapes: N images, W different words, E dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from eval import linear_probe, metrics, stats
from eval.report import Metric, Result
from eval.task import protocol
from eval.zeroshot import TIE, class_features, prompt_features
from wit.config import fingerprint
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSample, EvalSet
    from eval.features import Encoder

COLUMN, SEPARATOR = "lexicon", "|"


def words_of(sample: EvalSample, right: str, where: str) -> list[str]:
    """The words an image is asked about, each once.

    Raises:
        InputError: no lexicon, one of a single word, or one without the right word.
    """
    words = [word.strip() for word in sample.meta.get(COLUMN, "").split(SEPARATOR) if word.strip()]
    words = list(dict.fromkeys(words))
    if len(words) < 2:
        raise InputError(f"{where}: {sample.key} has no {COLUMN} of two words or more")
    if right not in words:
        raise InputError(f"{where}: {sample.key}: its label {right!r} is not in its {COLUMN}")
    return words


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Accuracy among the words of each image; ties count against the right one."""
    images = encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    right_N = [data.classes[sample.label] for sample in samples]
    asked_N = [
        words_of(s, right, str(data.path)) for s, right in zip(samples, right_N, strict=True)
    ]
    words = sorted({word for asked in asked_N for word in asked})
    word_WE = encoder.cached(
        ["lexicon", words, list(data.templates)],
        lambda: class_features(
            prompt_features(
                lambda texts: encoder.texts(texts, f"{data.name}: words"), words, data.templates
            ),
            np.arange(len(words)),
        ),
    )
    place = {word: i for i, word in enumerate(words)}
    rank, said = [], []
    for image_E, asked, right in zip(images.image_NE, asked_N, right_N, strict=True):
        score = word_WE[[place[word] for word in asked]] @ image_E
        own = score[asked.index(right)]
        rank.append(int((score >= own - TIE).sum()) - 1)
        said.append(asked[int(score.argmax())])
    rank_N, n = np.array(rank), len(samples)
    hit_N, cluster_N = rank_N == 0, linear_probe.clusters(samples)
    interval = stats.wilson(int(hit_N.sum()), n)
    if len(np.unique(cluster_N)) < n:
        interval = stats.bootstrap(metrics.mean(hit_N), cluster_N, config.resamples, config.seed)
    chance = float(np.mean([1 / len(asked) for asked in asked_N]))
    return Result(
        data.name,
        "lexicon",
        (Metric(metrics.TOP_1, float(hit_N.mean()), interval, n, chance),),
        protocol("lexicon", data, encoder)
        | {"words": len(words), "templates": list(data.templates)}
        | {"lexicons": fingerprint(asked_N)},
        pa.table(
            {
                "key": [sample.key for sample in samples],
                "label": right_N,
                "predicted": said,
                "rank": rank_N,
            }
        ),
        bad=images.bad,
        split=data.split,
        entry=data.entry,
        main=metrics.TOP_1,
    )
