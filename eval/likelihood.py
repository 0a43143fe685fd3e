"""Zero-shot classification by models that predict captions (CLIP paper, section 2.3): a class is
as likely as its prompts are for the picture.

Shapes: N images, K names of classes, T templates, M prompts, B images of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from eval.evalset import EvalSample
from eval.features import Encoder, Features
from eval.prompts import fill
from wit.image import decode

PROMPTS = 256  # scored at once


def prompt_scores(
    encoder: Encoder,
    samples: Sequence[EvalSample],
    names: Sequence[str],
    templates: Sequence[str],
    show: str = "",
) -> Features:
    """The score of every name in every template for each image, (N, K, T).

    Each image is read with each prompt: where features of images are computed once, this takes
    K T passes of the text side for each.

    Args:
        samples: images that are known to decode.
        show: name of a progress bar.
    """
    model = encoder.model
    prompts = [prompt for name in names for prompt in fill(templates, name)]
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
            out.append(score_BM.view(len(batch), len(names), len(templates)).numpy())
    return np.concatenate(out)
