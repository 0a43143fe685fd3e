"""Near duplicates: re-encoded, resized and cropped photographs found, and strangers left alone.

    python bench/dedupe.py [--photos DIR] [--count 1000] [--json]

Every variant of each photograph is looked for among all photographs, and counts as found when
its own original is within the distance that the tool uses by default. Ours is the 64-bit hash of
`pipeline.dedupe` at 3 bits; images with too little in them have none. The peer is imagededup where
it is installed (it needs torchvision); else its PHash method itself, 32x32 DCT and median, at its
default of 10 bits and at ours.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from pipeline.dedupe import phash


def photographs(folder: Path | None, count: int) -> list[Image.Image]:
    """Photographs of a folder; without one, generated pictures of smooth noise and edges."""
    if folder is not None:
        paths = sorted(folder.glob("*.jpg"))[:count]
        return [Image.open(path).convert("RGB") for path in paths]
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        smooth = small.resize((224, 224), Image.Resampling.BICUBIC)
        left, top, width, height = rng.integers(10, 120, 4)
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        smooth.paste(colour, (left, top, left + width, top + height))
        found.append(smooth)
    return found


def again(image: Image.Image, kind: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, kind, quality=quality)
    return Image.open(out).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((x, y, image.width - x, image.height - y))


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 30": lambda image: again(image, "JPEG", 30),
    "JPEG, quality 75": lambda image: again(image, "JPEG", 75),
    "WebP, quality 60": lambda image: again(image, "WEBP", 60),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "three times the size": lambda image: image.resize((image.width * 3, image.height * 3)),
    "cropped by 2%": lambda image: cropped(image, 0.02),
    "cropped by 5%": lambda image: cropped(image, 0.05),
    "cropped by 10%": lambda image: cropped(image, 0.10),
}


def peer_hash(image: Image.Image) -> int:
    """PHash as imagededup computes it: 8x8 of a 32x32 DCT against their median."""
    grey_YX = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    angles = np.pi * (2 * np.arange(32) + 1) * np.arange(8)[:, None] / 64
    low = np.cos(angles) @ grey_YX @ np.cos(angles).T
    bits = low > np.median(low.ravel()[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def peer() -> tuple[str, Callable[[Image.Image], int | None]]:
    try:
        from imagededup.methods import PHash
    except ImportError:
        return "PHash as in imagededup", peer_hash
    method = PHash(verbose=False)
    return "imagededup", lambda image: int(method.encode_image(image_array=np.asarray(image)), 16)


def hashes(
    images: list[Image.Image], method: Callable[[Image.Image], int | None]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_], float]:
    """Hashes, which images have one, and images per second."""
    started = time.perf_counter()
    found = [method(image) for image in images]
    rate = len(images) / (time.perf_counter() - started)
    values = np.array([value or 0 for value in found], np.uint64)
    return values, np.array([value is not None for value in found]), rate


def search(
    variant_N: NDArray[np.uint64],
    has_N: NDArray[np.bool_],
    base_N: NDArray[np.uint64],
    base_has_N: NDArray[np.bool_],
    distance: int,
) -> tuple[int, int]:
    """How many variants find their own original, and how many pairs with strangers come up."""
    own, strangers = 0, 0
    for i in np.flatnonzero(has_N):
        near_N = base_has_N & (np.bitwise_count(base_N ^ variant_N[i]) <= distance)
        own += bool(near_N[i])
        strangers += int(near_N.sum()) - bool(near_N[i])
    return own, strangers


def alike(folder: Path) -> list[tuple[str, str, int]]:
    """Pairs of photographs of a folder, all of it, that wit takes for the same picture."""
    paths = sorted(folder.glob("*.jpg"))
    hash_N, has_N, _ = hashes([Image.open(path).convert("RGB") for path in paths], phash)
    found = []
    for i in np.flatnonzero(has_N):
        distance_N = np.bitwise_count(hash_N[i + 1 :] ^ hash_N[i])
        for j in np.flatnonzero((distance_N <= 3) & has_N[i + 1 :]):
            found.append((paths[i].stem, paths[i + 1 + j].stem, int(distance_N[j])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, help="folder of *.jpg; without it generated ones")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    images = photographs(options.photos, options.count)
    name, method = peer()
    tools = [("wit", phash, 3), (name, method, 10), (name, method, 3)]
    base = {id(m): hashes(images, m) for _, m, _ in tools}
    made = {kind: [make(image) for image in images] for kind, make in VARIANTS.items()}
    console, found = Console(), dict[str, object]()
    table = Table(title=f"{len(images):,} photographs", title_justify="left")
    table.add_column("variant")
    for tool, _, distance in tools:
        table.add_column(f"{tool}, {distance} bits: recall", justify="right")
    totals = [[0, 0, 0] for _ in tools]  # own, strangers, searched
    encoded: dict[tuple[int, str], tuple[NDArray[np.uint64], NDArray[np.bool_], float]] = {}
    for kind, variants in made.items():
        cells = []
        for i, (tool, m, distance) in enumerate(tools):
            if (id(m), kind) not in encoded:
                encoded[id(m), kind] = hashes(variants, m)
            values, has, _ = encoded[id(m), kind]
            own, strangers = search(values, has, *base[id(m)][:2], distance)
            totals[i] = [totals[i][0] + own, totals[i][1] + strangers, totals[i][2] + len(values)]
            cells.append(f"{own / len(values):.1%}")
            found[f"recall {tool} {distance} {kind}"] = own / len(values)
        table.add_row(kind, *cells)
    precision = [own / max(1, own + strangers) for own, strangers, _ in totals]
    table.add_section()
    table.add_row("precision over all", *(f"{value:.2%}" for value in precision))
    table.add_row("pairs of strangers", *(f"{total[1]:,}" for total in totals))
    table.add_row("images hashed per second", *(f"{base[id(m)][2]:,.0f}" for _, m, _ in tools))
    console.print(table)
    for (tool, m, distance), value, total in zip(tools, precision, totals, strict=True):
        key = f"{tool} {distance}"
        found |= {f"precision {key}": value, f"recall {key}": total[0] / total[2]}
        found |= {f"strangers {key}": total[1], f"images_per_s {key}": base[id(m)][2]}
    if options.photos is not None:
        pairs = alike(options.photos)
        for first, second, distance in pairs:
            console.print(f"alike in {options.photos.name}: {first} and {second}, {distance} bits")
        found["alike"] = pairs
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
