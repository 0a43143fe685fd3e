"""The task `frames`: zero-shot on videos, whose frames are images of one `group` (table 15).

The probabilities of all frames of a video are averaged, and the video goes to the class of the
highest mean (CLIP paper, table 15; its probes use the middle frame alone, which is how a set with
one image for each video is evaluated anyway). A set for this names each image's video in `group`.

Shapes: N frames, V videos, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import linear_probe, metrics, probe, shift
from eval.report import Result
from eval.task import protocol
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSet
    from eval.features import Encoder


def averaged(
    score_NC: NDArray[np.float64], video_N: NDArray[np.int64], videos: int
) -> NDArray[np.float64]:
    """Mean of the frames' scores for each video (V, C)."""
    total_VC = np.zeros((videos, score_NC.shape[1]))
    np.add.at(total_VC, video_N, score_NC)
    mean_VC: NDArray[np.float64] = total_VC / np.bincount(video_N, minlength=videos)[:, None]
    return mean_VC


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """The set's metric, top-1 and top-5 over videos.

    Raises:
        InputError: an image without a video, or a video with frames of several classes.
    """
    images = encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    for sample in samples:
        if "group" not in sample.meta:
            raise InputError(f"{data.path}: {sample.key} has no group, which would name its video")
    names, first_V, video_N = np.unique(
        [sample.meta["group"] for sample in samples], return_index=True, return_inverse=True
    )
    label_N = linear_probe.labels(samples, data.kind)
    label_V = label_N[first_V]
    mixed = np.flatnonzero(label_N != label_V[video_N])
    if len(mixed):
        raise InputError(
            f"{data.path}: video {names[video_N[mixed[0]]]} has frames of several classes"
        )
    logit_NC = encoder.model.logit_scale * (
        images.image_NE @ shift.zero_shot_classifier(data, encoder).T
    )
    score_VC = averaged(metrics.softmax(logit_NC), video_N, len(names))
    wanted = [data.metric, metrics.TOP_1]
    if len(data.classes) > 5:
        wanted += [metrics.TOP_5, metrics.TOP_1_5]
    videos_V = np.arange(len(names))
    return Result(
        data.name,
        "frames",
        tuple(
            linear_probe.measured(name, score_VC, label_V, videos_V, data, config)
            for name in dict.fromkeys(wanted)
        ),
        protocol("frames", data, encoder)
        | {"names": [list(each) for each in data.names], "templates": list(data.templates)}
        | {"frames": "mean of probabilities"},
        pa.table(
            {
                "key": list(names),
                "label": label_V,
                "predicted": score_VC.argmax(axis=1),
                "rank": probe.ranks(score_VC, label_V),
                "frames": np.bincount(video_N),
            }
        ),
        bad=images.bad,
        split=data.split,
        entry=data.entry,
        main=data.metric,
    )
