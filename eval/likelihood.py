"""Zero-shot classification by models that predict captions (CLIP paper, section 2.3): a class is
as likely as its prompts are for the picture.

Shapes: N images, C classes, T templates, M prompts, B images of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from eval.features import Encoder
from eval.prompts import fill
from eval.sets import EvalSample
from eval.zeroshot import Features
from wit.image import decode

PROMPTS = 256  # scored at once


def class_scores(
    encoder: Encoder,
    samples: Sequence[EvalSample],
    classes: Sequence[str],
    templates: Sequence[str],
    show: str = "",
) -> Features:
    """The mean score of each class's prompts for each image, (N, C).

    Each image is read with each prompt: where features of images are computed once, this takes
    C T passes of the text side for each.

    Args:
        samples: images that are known to decode.
        show: name of a progress bar.
    """
    model = encoder.model
    prompts = [prompt for name in classes for prompt in fill(templates, name)]
    tokens_ML = model.tokenize(prompts)
    console = Console(stderr=True)
    out: list[Features] = []
    with torch.inference_mode():
        for start in track(
            range(0, len(samples), encoder.batch_size),
            show,
            console=console,
            disable=not (show and console.is_terminal),
        ):
            batch = samples[start : start + encoder.batch_size]
            pictures = [decode(sample.read(), encoder.max_pixels) for sample in batch]
            pixels = [np.asarray(model.preprocess(picture)) for picture in pictures]
            img_BCSS = torch.from_numpy(np.stack(pixels))
            parts = [model.score(img_BCSS, part_ML) for part_ML in torch.split(tokens_ML, PROMPTS)]
            score_BM = torch.cat(parts, dim=1).float().cpu()
            score_BCT = score_BM.view(len(batch), len(classes), len(templates))
            out.append(score_BCT.mean(dim=2).numpy())
    return np.concatenate(out)
