"""From shards to batches: pictures per CPU second, beside webdataset and open_clip's pipeline.

    python bench/loader.py [--photos FOLDER] [--rows 1000] [--save] [--json]

Three loaders read the same shards of JPEGs of 224, 512 and 1024 pixels, crop 90 to 100% of each
picture to 224, and end with batches on the CPU, in one worker:

    ours         train.data.Loader: index, scaled decode, uint8 batches
    webdataset   webdataset's own decode("pil"), the usual transform, DataLoader
    open_clip    the stages of open_clip's get_wds_dataset: shuffle buffer, decode("pilrgb"), its
                 transform, its tokenizer, batched in the worker

The usual transform is torchvision's RandomResizedCrop, ToTensor and Normalize, written with the
same Pillow calls, since torchvision need not be here. A picture's cost is CPU time of all
processes, user and system, so other work on the machine does not count. Each loader runs in a
process of its own; its first pictures are not counted. Growth is that of the resident set over
the second half of the run.

Peers hand over normalised floats. Ours hands over bytes, which a tower normalises on its device;
a line of its own has them normalised on this CPU too.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from wit.shard import Sample, shard_name, write_shard

SIDES = (224, 512, 1024)
SIZE, BATCH, PER_SHARD, WARM = 224, 50, 250, 200
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = ("dog", "runs", "green", "grass", "near", "two", "small", "children", "old", "car")


def drawn(side: int, rng: np.random.Generator) -> Image.Image:
    """Noise with the spectrum of a photograph: as many coefficients to decode as one."""
    at = np.fft.fftfreq(side)
    radius = np.hypot(at[:, None], at[None, :])
    radius[0, 0] = 1 / side
    channels = []
    grey = rng.standard_normal((side, side))
    for _ in range(3):
        noise = 0.85 * grey + 0.5 * rng.standard_normal((side, side))
        plane = np.fft.ifft2(np.fft.fft2(noise) / radius**1.2).real
        channels.append(128 + 55 * plane / plane.std())
    return Image.fromarray(np.stack(channels, -1).clip(0, 255).astype(np.uint8))


def write(folder: Path, side: int, rows: int, photos: Path | None) -> None:
    """Shards of `rows` JPEGs of the side; photographs are repeated where they are fewer."""
    rng, pick = np.random.default_rng(side), random.Random(side)
    if photos:
        files = sorted(photos.glob("*.jpg"))[:rows]
        pictures = [Image.open(file).convert("RGB").resize((side, side)) for file in files]
    else:
        pictures = [drawn(side, rng) for _ in range(min(rows, 40))]
    encoded = []
    for picture in pictures:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=90)
        encoded.append(out.getvalue())
    for shard in range(math.ceil(rows / PER_SHARD)):
        numbers = range(shard * PER_SHARD, min(rows, (shard + 1) * PER_SHARD))
        write_shard(
            folder / shard_name(shard),
            (
                Sample(
                    f"{i:09d}", encoded[i % len(encoded)], "jpg", " ".join(pick.choices(WORDS, k=9))
                )
                for i in numbers
            ),
        )


def usual_transform(picture: Image.Image) -> torch.Tensor:
    """RandomResizedCrop(224, scale=(0.9, 1)), ToTensor, Normalize of torchvision on Pillow."""
    picture = picture.convert("RGB")
    area = picture.width * picture.height * random.uniform(0.9, 1.0)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(picture.width, round(math.sqrt(area * ratio)))
    height = min(picture.height, round(math.sqrt(area / ratio)))
    left, top = random.randint(0, picture.width - width), random.randint(0, picture.height - height)
    picture = picture.crop((left, top, left + width, top + height))
    picture = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    img = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
    return img.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


def tokenizer() -> Callable[[str], torch.Tensor]:
    """open_clip's own, without the rest of the package, which needs torchvision."""
    import importlib.util

    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        sys.exit("bench/loader.py needs open_clip's tokenizer: run `make setup`")
    spec = importlib.util.spec_from_file_location(
        "open_clip_tokenizer", Path(found.origin).with_name("tokenizer.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    simple = module.SimpleTokenizer()
    return lambda text: simple(text)[0]


def webdataset_batches(folder: Path) -> Iterator[Any]:
    import webdataset as wds

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    data = (
        wds.WebDataset(urls, shardshuffle=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "txt")
        .map_tuple(usual_transform, tokenizer())
    )
    return iter(torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=1))


def open_clip_batches(folder: Path) -> Iterator[Any]:
    import webdataset as wds

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    data = wds.DataPipeline(
        wds.SimpleShardList(urls),
        wds.split_by_node,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(bufsize=5000, initial=1000),
        wds.select(lambda sample: "txt" in sample and "jpg" in sample),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=usual_transform, text=tokenizer()),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=False),
    )
    return iter(wds.WebLoader(data, batch_size=None, shuffle=False, num_workers=1))


def our_batches(folder: Path) -> Iterator[Any]:
    from train.captions import Captions
    from train.config import TrainConfig
    from train.data import Loader
    from train.dist import World
    from train.pairs import BadSamples, Pairs
    from wit.tokenizer import Tokenizer

    data = {"crop_min": 0.9, "workers": 1, "cache_mb": 0}
    model = {"image_size": SIZE, "patch": 8}
    config = TrainConfig.model_validate(
        {"corpus": folder, "batch": BATCH, "epochs": 1, "data": data, "model": model}
    )
    bad = BadSamples(0, print)
    pairs = Pairs(folder, bad)
    captions = Captions(Tokenizer.load("openai"), 77)
    loader = Loader(pairs, captions, config, bad, World(0, 1, torch.device("cpu")))
    return ((batch.img_bCSS, batch.tokens_bL) for batch in loader.batches(0, loader.steps))


def our_floats(folder: Path) -> Iterator[Any]:
    from train.kernels.pixels import pixels

    mean_C, std_C = torch.tensor(MEAN), torch.tensor(STD)
    return ((pixels(img, mean_C, std_C), tokens) for img, tokens in our_batches(folder))


LOADERS = {
    "ours": our_batches,
    "ours, normalised": our_floats,
    "webdataset": webdataset_batches,
    "open_clip": open_clip_batches,
}


def cpu_seconds(pids: set[int]) -> float:
    """User and system time of this process and of those workers that are alive."""
    ticks = 0
    for pid in pids | {os.getpid()}:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children() -> set[int]:
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in listed.split()}


def resident(pids: set[int]) -> int:
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids | {os.getpid()}]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def row(name: str, folder: Path, rows: int) -> dict[str, Any]:
    """One loader over one folder, in a process of its own."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    batches = LOADERS[name](folder)
    first = next(batches)
    assert first[0].shape[1:] == (3, SIZE, SIZE)
    found: dict[str, Any] = {"loader": name, "first_batch_s": time.perf_counter() - started}
    seen, begun, middle = BATCH, 0.0, 0
    workers = children()
    while seen < rows - BATCH:
        if seen == WARM:
            begun = cpu_seconds(workers)
        next(batches)
        seen += BATCH
        if seen == rows // 2 // BATCH * BATCH:
            middle = resident(workers)
    found["images"] = seen - WARM
    found["images_per_cpu_s"] = (seen - WARM) / (cpu_seconds(workers) - begun)
    found["growth_mb"] = (resident(workers) - middle) / 2**20
    return found


def measure(photos: Path | None, rows: int) -> list[dict[str, Any]]:
    results = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, side, rows, photos)
            for loader in LOADERS:
                command = [sys.executable, __file__, "--row", loader, name, str(rows)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.append({"side": side} | json.loads(done.stdout.splitlines()[-1]))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder of .jpg; drawn pictures without it")
    parser.add_argument("--rows", type=int, default=1000, help="pictures in the shards")
    parser.add_argument("--save", action="store_true", help="write bench/results/DATE-loader.json")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(row(args.row[0], Path(args.row[1]), int(args.row[2]))))
        return
    results = measure(args.photos, args.rows)
    speed = {(r["side"], r["loader"]): r["images_per_cpu_s"] for r in results}
    table = Table("pixels", "loader", "images/CPU s", "ours is", "first batch", "growth")
    for r in results:
        ratio = speed[r["side"], "ours"] / r["images_per_cpu_s"]
        table.add_row(
            str(r["side"]), r["loader"], f"{r['images_per_cpu_s']:,.0f}", f"{ratio:.2f} x",
            f"{r['first_batch_s']:.2f} s", f"{r['growth_mb']:.0f} MB",
        )  # fmt: skip
    Console().print(table)
    whole: dict[str, Any] = {"date": datetime.date.today().isoformat(), "results": results}
    whole["photographs"] = args.photos is not None
    for side in SIDES:
        best = max(speed[side, name] for name in ("webdataset", "open_clip"))
        whole[f"ratio_{side}"] = speed[side, "ours"] / best
    if args.save:
        path = Path(__file__).parent / "results" / f"{whole['date']}-loader.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(whole, indent=1) + "\n")
    if args.json:
        print(json.dumps(whole))


if __name__ == "__main__":
    main()
