"""Zero-shot classifier beside one class at a time; linear probe beside scikit-learn.

    python bench/eval.py [--part both|classifier|probe] [--classes 1000] [--images 5000]
                         [--model tiny] [--json]

One class at a time is how CLIP_benchmark and open_clip's older form build a classifier: the
prompts of a class are tokenised (here by open_clip's tokenizer), padded to 77 tokens, encoded as
one batch, normalised and averaged. Ours tokenises all prompts, drops those that are the same
tokens, and encodes prompts of like length together, without padding. Both run the same text tower
of random weights, and then classify the same features of images. The templates are open_clip's 80
for ImageNet, the classes its 1,000. The bench stops if a feature or a prediction differs.

The probe has 10,000 samples of 512 features and 100 classes that overlap, the variance of the
features falling like 1/i as that of real ones does. Both sides fit the same three of the seven
penalties that the search begins with, on the same float32 features: scikit-learn one after the
other, from L-BFGS with 1,000 iterations at most, ours together, the preparation included. With
its default tolerance scikit-learn stops well above the minimum, so `ratio_probe_sklearn` is for
the tolerance of 1e-6; the other ratio is beside it. The bench stops if an objective of ours is
more than 1e-3 above scikit-learn's at 1e-6.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before this file, called eval too

import argparse
import importlib.util
import json
import tempfile
import time
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from eval import logistic, registry
from eval.features import Encoder
from eval.zeroshot import class_features, classify, prompt_features
from train.config import ModelConfig
from train.model import CLIP, LoadedModel
from wit.tokenizer import Tokenizer

CONTEXT = 77
PENALTIES = (1e4, 1.0, 1e-4)  # every second of the seven that the search begins with


def of_open_clip(name: str) -> ModuleType:
    """A module of open_clip alone: the package itself needs timm."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        print("needs open_clip: pip install --no-deps open_clip_torch")
        sys.exit(0)
    path = Path(spec.submodule_search_locations[0]) / f"{name}.py"
    module_spec = importlib.util.spec_from_file_location(f"open_clip_{name}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def model_of_random_weights(name: str) -> LoadedModel:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"name": name, "context_length": CONTEXT})
    tokenizer = Tokenizer.load("openai")
    clip = CLIP(config, tokenizer.vocab_size).eval()
    return LoadedModel(clip, tokenizer, config, step=0, fingerprint="random weights")


@torch.inference_mode()
def class_by_class(
    model: LoadedModel, tokenize: Any, classes: list[str], templates: list[Any]
) -> NDArray[np.float32]:
    """The loop of the usual tools."""
    weights = []
    for name in classes:
        tokens_TL = tokenize([template(name) for template in templates])
        text_TE = torch.nn.functional.normalize(model.clip.encode_text(tokens_TL), dim=-1)
        mean_E = text_TE.mean(dim=0)
        weights.append(mean_E / mean_E.norm())
    return torch.stack(weights).numpy()


def classifier(name: str, n_classes: int, n_images: int) -> dict[str, Any]:
    """Both ways, timed one after the other."""
    model = model_of_random_weights(name)
    published = of_open_clip("zero_shot_metadata")
    tokenize = of_open_clip("tokenizer").SimpleTokenizer()
    classes = published.IMAGENET_CLASSNAMES[:n_classes]
    templates = list(registry.read().templates("imagenet"))
    owner_K = np.arange(len(classes))
    rng = np.random.default_rng(0)
    image_NE = rng.normal(size=(n_images, model.config.embed_dim)).astype(np.float32)
    image_NE /= np.linalg.norm(image_NE, axis=1, keepdims=True)
    label_N = rng.integers(0, len(classes), n_images)

    class_by_class(model, tokenize, classes[:2], published.OPENAI_IMAGENET_TEMPLATES)  # warm up
    with tempfile.TemporaryDirectory() as cache:
        encoder = Encoder(model, Path(cache), 256, max_pixels=1, max_bad=0)
        started = time.perf_counter()
        ours_CE = class_features(prompt_features(encoder.texts, classes, templates), owner_K)
        ours_N = classify(image_NE, ours_CE, label_N).best_N
        ours = time.perf_counter() - started
    started = time.perf_counter()
    plain_CE = class_by_class(model, tokenize, classes, published.OPENAI_IMAGENET_TEMPLATES)
    plain_N = (image_NE @ plain_CE.T).argmax(axis=1)
    plain = time.perf_counter() - started

    furthest = float(np.abs(ours_CE - plain_CE).max())
    score_NC = image_NE @ plain_CE.T
    short_N = score_NC.max(axis=1) - np.take_along_axis(score_NC, ours_N[:, None], axis=1)[:, 0]
    if furthest > 1e-5 or short_N.max() > 1e-5:
        sys.exit(f"the two ways differ: features by {furthest:.2g}, scores by {short_N.max():.2g}")
    return {
        "model": name,
        "classes": len(classes),
        "templates": len(templates),
        "images": n_images,
        "threads": torch.get_num_threads(),
        "seconds_ours": ours,
        "seconds_class_by_class": plain,
        "ratio_classifier": plain / ours,
        "largest_difference": furthest,
        "other_answers_within_rounding": int((ours_N != plain_N).sum()),
    }


def overlapping_classes(samples: int, width: int, classes: int) -> tuple[NDArray[Any], ...]:
    """Features and labels to learn from, and half as many to test."""
    rng = np.random.default_rng(0)
    scale_D = np.arange(1, width + 1) ** -0.5
    turn_DD = np.linalg.qr(rng.normal(size=(width, width)))[0]
    mean_CD = 0.2 * rng.normal(size=(classes, width))
    label_N = rng.integers(0, classes, samples * 3 // 2)
    x_ND = (mean_CD[label_N] + rng.normal(size=(len(label_N), width))) * scale_D @ turn_DD
    x_ND = (x_ND + rng.normal(size=width) / 2).astype(np.float32)
    return x_ND[:samples], label_N[:samples], x_ND[samples:], label_N[samples:]


def probe(samples: int, width: int, classes: int) -> dict[str, Any]:
    """scikit-learn's fits of some penalties and ours, timed one after the other."""
    x_ND, label_N, test_ND, truth_N = overlapping_classes(samples, width, classes)

    def objective(weight_DC: NDArray[Any], bias_C: NDArray[Any], penalty: float) -> float:
        score_NC = x_ND.astype(np.float64) @ weight_DC + bias_C
        own_N = np.take_along_axis(score_NC, label_N[:, None], axis=1)[:, 0]
        loss = (np.logaddexp.reduce(score_NC, axis=1) - own_N).sum()
        return float(loss + penalty / 2 * (weight_DC.astype(np.float64) ** 2).sum())

    found: dict[str, Any] = {"probe_penalties": list(PENALTIES), "probe_rows": []}
    started = time.perf_counter()
    data = logistic.prepare(torch.from_numpy(x_ND))
    ours = logistic.fit(data, logistic.target(torch.from_numpy(label_N), classes), PENALTIES)
    found["probe_seconds_ours"] = time.perf_counter() - started
    score_LNC = ours.scores(torch.from_numpy(test_ND)).numpy()
    for tolerance, key in ((1e-4, "default"), (1e-6, "sklearn")):
        seconds = 0.0
        for i, penalty in enumerate(PENALTIES):
            peer = LogisticRegression(C=1 / penalty, tol=tolerance, max_iter=1000)
            started = time.perf_counter()
            peer.fit(x_ND, label_N)
            seconds += time.perf_counter() - started
            theirs = objective(peer.coef_.T, peer.intercept_, penalty)
            mine = objective(ours.weight_LDC[i].numpy(), ours.bias_LC[i].numpy(), penalty)
            row = {
                "penalty": penalty,
                "tolerance": tolerance,
                "steps_sklearn": int(peer.n_iter_[0]),
                "steps_ours": int(ours.iterations_L[i]),
                "objective_sklearn_over_ours": theirs / mine,
                "accuracy_sklearn": peer.score(test_ND, truth_N),
                "accuracy_ours": float((score_LNC[i].argmax(axis=1) == truth_N).mean()),
            }
            found["probe_rows"].append(row)
            if key == "sklearn" and mine > theirs * 1.001:
                sys.exit(
                    f"lambda {penalty:g}: our objective {mine:.6g}, scikit-learn's {theirs:.6g}"
                )
        found[f"probe_seconds_{key}"] = seconds
        found[f"ratio_probe_{key}"] = seconds / found["probe_seconds_ours"]
    return found


def show_probe(found: dict[str, Any], console: Console) -> None:
    table = Table(title="linear probe, 10,000 x 512, 100 classes", title_justify="left")
    for column in ("lambda", "tolerance", "steps", "ours", "objective / ours", "accuracy", "ours"):
        table.add_column(column, justify="right")
    for row in found["probe_rows"]:
        penalty, tolerance, theirs, ours, objective, accuracy, own = row.values()
        table.add_row(
            f"{penalty:g}", f"{tolerance:g}", str(theirs), str(ours), f"{objective:.5f}",
            f"{100 * accuracy:.2f}", f"{100 * own:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"scikit-learn {found['probe_seconds_sklearn']:.1f} s at 1e-6,"
        f" {found['probe_seconds_default']:.1f} s at its default; ours"
        f" {found['probe_seconds_ours']:.2f} s: {found['ratio_probe_sklearn']:.1f} and"
        f" {found['ratio_probe_default']:.1f} times as fast"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, default=1000, choices=range(1, 1001), metavar="N")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--model", default="tiny", help="a name of `wit models` (text tower)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--part", default="both", choices=("both", "classifier", "probe"))
    options = parser.parse_args()
    console, found = Console(), dict[str, Any]()
    if options.part != "probe":
        found |= classifier(options.model, options.classes, options.images)
        show_classifier(found, console)
    if options.part != "classifier":
        found |= probe(10_000, 512, 100)
        show_probe(found, console)
    if options.json:
        print(json.dumps(found))


def show_classifier(found: dict[str, Any], console: Console) -> None:
    table = Table(title="zero-shot classifier", title_justify="left")
    for column in ("way", "seconds", "prompts/s"):
        table.add_column(column, justify="left" if column == "way" else "right")
    prompts = found["classes"] * found["templates"]
    for way, key in (("one class at a time", "class_by_class"), ("all together", "ours")):
        seconds = found[f"seconds_{key}"]
        table.add_row(way, f"{seconds:.2f}", f"{prompts / seconds:,.0f}")
    console.print(table)
    console.print(
        f"{found['classes']} classes x {found['templates']} templates, {found['images']} images,"
        f" {found['threads']} threads: {found['ratio_classifier']:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
