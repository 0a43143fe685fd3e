"""Zero-shot classifiers: all prompts in shared batches beside one class at a time.

    python bench/zeroshot.py [--classes 40] [--images 5000] [--json]

One class at a time is how the usual tools build a classifier: the prompts of a class, padded to
the context length, are one batch. Ours batches prompts of all classes and cuts each batch at its
longest prompt. Both use the same random weights of the `small` model, and the bench stops if the
two classifiers or any prediction differ.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from eval.features import Encoder
from eval.prompts import fill
from eval.zeroshot import classifier, classify
from train import LoadedModel
from train.config import ModelConfig
from train.interchange import Preprocess
from train.model import CLIP
from wit.tokenizer import Tokenizer

FORMS = (
    "a {} photo of a {{c}}.", "a {} photo of the {{c}}.", "a {} picture of one {{c}}.",
    "a drawing of a {} {{c}}.", "a {} {{c}} seen from afar.", "the {} {{c}} in a video.",
    "a {} {{c}}.", "art of the {} {{c}}.",
)  # fmt: skip
LOOKS = ["good", "bad", "bright", "dark", "blurry", "clean", "large", "small", "close", "odd"]
AGES = ["old", "young", "new", "wild", "tame", "tall", "short", "wet", "dry", "broken"]
COLOURS = ["red", "blue", "green", "grey", "black", "white", "brown", "pink", "orange", "gold"]
THINGS = ["dog", "bird", "boat", "car", "lamp", "violin", "tower", "apple", "rose", "hammer"]


def model_of_random_weights() -> LoadedModel:
    torch.manual_seed(0)
    config = ModelConfig(name="small", context_length=77)
    tokenizer = Tokenizer.train([*AGES, *COLOURS, *THINGS, *LOOKS, *FORMS], 2000)
    clip = CLIP(config, tokenizer.vocab_size).eval()
    random = "random weights"
    transform = Preprocess(config.image_size)
    return LoadedModel(clip, tokenizer, config, transform, 0, source=random, fingerprint=random)


@torch.inference_mode()
def class_by_class(
    model: LoadedModel, classes: list[str], templates: list[str]
) -> NDArray[np.float32]:
    """The plain way, text by text as long as the context."""
    weights = []
    for name in classes:
        text_TE = model.clip.encode_text(model.tokenize(fill(templates, name)))
        mean_E = torch.nn.functional.normalize(text_TE, dim=-1).mean(dim=0)
        weights.append(mean_E / mean_E.norm())
    return torch.stack(weights).numpy()


def measure(n_classes: int, n_images: int) -> dict[str, float]:
    model = model_of_random_weights()
    classes = [" ".join(words) for words in product(AGES, COLOURS, THINGS)][:n_classes]
    templates = [form.format(look) for form, look in product(FORMS, LOOKS)]
    with tempfile.TemporaryDirectory() as cache:
        encoder = Encoder(model, Path(cache), 256, max_pixels=1, max_bad=0)
        class_by_class(model, classes[:1], templates)  # warm up
        started = time.perf_counter()
        ours_CE = classifier(encoder.texts, classes, templates)
        shared = time.perf_counter() - started
    started = time.perf_counter()
    plain_CE = class_by_class(model, classes, templates)
    plain = time.perf_counter() - started

    rng = np.random.default_rng(0)
    image_NE = rng.normal(size=(n_images, ours_CE.shape[1])).astype(np.float32)
    image_NE /= np.linalg.norm(image_NE, axis=1, keepdims=True)
    label_N = rng.integers(0, len(classes), n_images)
    differing = int(
        (
            classify(image_NE, ours_CE, label_N).best_N != (image_NE @ plain_CE.T).argmax(axis=1)
        ).sum()
    )
    furthest = float(np.abs(ours_CE - plain_CE).max())
    if furthest > 1e-5 or differing:
        raise SystemExit(f"the classifiers differ by {furthest:.2g}, {differing} predictions too")
    return {
        "classes": len(classes),
        "templates": len(templates),
        "images": n_images,
        "threads": torch.get_num_threads(),
        "seconds_shared": shared,
        "seconds_class_by_class": plain,
        "ratio_classifier": plain / shared,
        "largest_difference": furthest,
        "differing_predictions": differing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, default=40, choices=range(1, 1001), metavar="N")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    found = measure(options.classes, options.images)
    table = Table(title="zero-shot classifier", title_justify="left")
    for column in ("way", "seconds", "prompts/s"):
        table.add_column(column, justify="left" if column == "way" else "right")
    prompts = found["classes"] * found["templates"]
    for way, key in (
        ("one class at a time", "seconds_class_by_class"),
        ("shared batches", "seconds_shared"),
    ):
        table.add_row(way, f"{found[key]:.2f}", f"{prompts / found[key]:,.0f}")
    console = Console()
    console.print(table)
    console.print(
        f"{found['classes']} classes x {found['templates']} templates,"
        f" {found['threads']} threads: {found['ratio_classifier']:.1f} times as fast;"
        f" {found['images']} predictions agree"
    )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
