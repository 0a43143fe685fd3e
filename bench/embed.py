"""`wit embed` beside a plain loop over the same model: pictures and captions a second.

    python bench/embed.py [--model tiny] [--pictures 1024] [--captions 16384] [--rounds 4] [--json]

Both turn the same JPEG files of 320 x 240 pixels, and the same file of captions, into features on
disk. The plain loop is what the README shows: open a picture, `preprocess`, stack 64 of them,
`encode_image`; 64 captions, `tokenize`, `encode_text`; one .npy at the end. `wit embed` reads and
decodes in threads, writes keys beside features, syncs every part and can go on after a kill. Wall
time of the whole machine, in alternating rounds; the ratio is of the totals, and its range is over
rounds. Weights are random. The bench stops if a feature differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from train.config import ModelConfig
from train.embed import embed
from train.embed_command import EmbedConfig
from train.embed_sources import items
from train.interchange import Preprocess
from train.loaded import LoadedModel
from train.model import CLIP
from wit.tokenizer import Tokenizer

BATCH = 64
WORDS = "a the red small dog cat house on in of with two old green tree street sky"


def model_of_random_weights(name: str) -> LoadedModel:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"name": name})
    tokenizer = Tokenizer.load("openai")
    clip = CLIP(config, tokenizer.vocab_size).eval()
    return LoadedModel(clip, tokenizer, config, Preprocess(config.image_size), 0, "random", "0")


def write_pictures(folder: Path, count: int) -> None:
    """Smooth noise, so that files are about as large as photographs'."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{i:06d}.jpg", quality=90)


def write_captions(file: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS.split(), n)) for n in rng.integers(4, 21, count)]
    file.write_text("\n".join(lines) + "\n")


def plain_pictures(model: LoadedModel, folder: Path) -> NDArray[np.float32]:
    out, files = [], sorted(folder.iterdir())
    for start in range(0, len(files), BATCH):
        pictures = [model.preprocess(Image.open(file)) for file in files[start : start + BATCH]]
        out.append(model.encode_image(torch.stack(pictures), normalize=True))
    return torch.cat(out).numpy()


def plain_captions(model: LoadedModel, file: Path) -> NDArray[np.float32]:
    out, lines = [], file.read_text().splitlines()
    for start in range(0, len(lines), BATCH):
        tokens_BL = model.tokenize(lines[start : start + BATCH])
        out.append(model.encode_text(tokens_BL, normalize=True))
    return torch.cat(out).numpy()


def measure(model: LoadedModel, source: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds of both, round by round; the features must be the same."""
    plain = plain_pictures if source.is_dir() else plain_captions
    seconds: dict[str, list[float]] = {"wit embed": [], "plain loop": []}
    furthest, count = 0.0, 0
    for i in range(rounds + 1):  # the first of them warms up
        started = time.perf_counter()
        config = EmbedConfig(input=source, out=folder / f"{source.stem}{i}", format="npy")
        found, what = items(source, None, None)
        embed(model, found, what, config)
        between = time.perf_counter()
        theirs_NE = plain(model, source)
        with (folder / "plain.npy").open("wb") as file:
            np.save(file, theirs_NE)
        if i:
            seconds["plain loop"].append(time.perf_counter() - between)
            seconds["wit embed"].append(between - started)
        parts = sorted(config.out.glob("*.npy"))
        ours_NE = np.concatenate([np.load(part) for part in parts])
        furthest, count = max(furthest, float(np.abs(ours_NE - theirs_NE).max())), len(found)
        if furthest > 1e-5:
            sys.exit(f"the features differ by {furthest:.2g}")
    ours, theirs = seconds.values()
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "count": count,
        "rate_embed": rounds * count / sum(ours),
        "rate_plain": rounds * count / sum(theirs),
        "ratio": sum(theirs) / sum(ours),
        "ratio_rounds": [min(each), max(each)],
        "largest_difference": furthest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny", help="a name of `wit models`")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--captions", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    model = model_of_random_weights(options.model)
    found: dict[str, Any] = {"model": options.model, "threads": torch.get_num_threads()}
    table = Table(title=f"embedding with {options.model}", title_justify="left")
    for column in ("what", "wit embed, a second", "plain loop, a second", "ratio", "of rounds"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures", options.pictures)
        write_captions(folder / "captions.txt", options.captions)
        for what, source in (("pictures", "pictures"), ("captions", "captions.txt")):
            one = found[what] = measure(model, folder / source, options.rounds, folder)
            low, high = one["ratio_rounds"]
            table.add_row(
                what, f"{one['rate_embed']:,.0f}", f"{one['rate_plain']:,.0f}",
                f"{one['ratio']:.2f}", f"{low:.2f} – {high:.2f}",
            )  # fmt: skip
            found[f"ratio_embed_{what}"] = one["ratio"]
    Console().print(table)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
