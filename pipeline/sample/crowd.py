"""Metadata as a crawl brings them, of any size: what the curation half is measured with.

Words, domains and images are as uneven as on the web (Zipf's law), captions repeat, and a part of
the rows is of no use. File `i` depends on the seed and `i` alone, so a larger input starts with
the files of a smaller one, and any of them can be made by itself. No picture lies behind a URL.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROWS_PER_FILE = 500_000
WORDS, DOMAINS = 200_000, 200_000
COMMON = [
    "the",
    "of",
    "and",
    "in",
    "a",
    "to",
    "for",
    "with",
    "on",
    "by",
    "from",
    "at",
    "is",
    "photo",
    "image",
    "new",
    "black",
    "white",
    "red",
    "blue",
    "free",
    "vintage",
    "home",
    "design",
    "art",
    "vector",
    "stock",
    "old",
    "city",
    "house",
    "world",
    "day",
    "best",
    "green",
    "set",
    "how",
    "girl",
    "water",
    "wedding",
    "book",
    "kitchen",
    "car",
    "wall",
    "time",
    "christmas",
    "birthday",
    "style",
    "woman",
    "music",
    "front",
    "night",
    "little",
    "beautiful",
    "digital",
    "party",
    "gold",
    "light",
    "room",
    "wood",
    "modern",
    "garden",
    "print",
    "family",
    "paper",
    "flower",
    "game",
    "portrait",
    "food",
    "school",
    "cover",
    "summer",
    "park",
    "beach",
    "dog",
    "baby",
    "map",
    "small",
    "map",
    "silver",
    "large",
    "pink",
    "living",
    "street",
    "long",
    "card",
    "view",
    "people",
    "cat",
    "original",
    "custom",
    "leather",
    "men",
    "women",
    "sea",
    "tree",
    "two",
    "sale",
    "high",
    "school",
    "side",
    "table",
    "top",
    "collection",
    "oil",
    "head",
    "bedroom",
    "interior",
    "river",
    "mountain",
    "lake",
    "forest",
    "bridge",
    "tower",
    "church",
    "castle",
    "island",
    "sunset",
    "winter",
    "spring",
    "snow",
    "rain",
    "sky",
    "cloud",
    "sun",
    "moon",
    "star",
    "horse",
    "bird",
    "fish",
    "lion",
    "bear",
    "child",
    "boy",
    "man",
    "king",
    "queen",
    "dress",
    "shirt",
    "shoes",
    "bag",
    "hat",
    "ring",
    "watch",
    "glass",
    "cup",
    "plate",
    "bottle",
    "box",
    "chair",
    "bed",
    "sofa",
    "lamp",
    "door",
    "window",
    "floor",
    "roof",
    "road",
    "train",
    "bus",
    "boat",
    "plane",
    "bike",
    "truck",
    "engine",
    "wheel",
    "phone",
    "computer",
    "screen",
    "camera",
    "guitar",
    "piano",
    "football",
]
ACCENTED = ("café", "crème", "naïve", "señor", "“quoted”", "–", "東京", "é", "&amp;", "it’s")
USELESS = (
    "image",
    "Photo",
    "no image available",
    "IMG_2041.jpg",
    "DSC00012.JPG",
    "!!!",
    "logo",
    "",
)
BOILERPLATE = tuple(f"Click to see number {i} of our offers for this week" for i in range(100))


def write_metadata(folder: Path, rows: int, seed: int = 0) -> list[Path]:
    """Write `rows` rows as Parquet files of at most `ROWS_PER_FILE`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = pa.array(words(seed))
    paths = []
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        path = folder / f"part-{number:05}.parquet"
        table = metadata(vocabulary, first, min(ROWS_PER_FILE, rows - first), seed)
        pq.write_table(table, path, compression="zstd")
        paths.append(path)
    return paths


def write_queries(path: Path, count: int, seed: int = 0) -> Path:
    """A query list for such metadata: half words, half pairs of frequent words."""
    known = words(seed)
    singles = [word for word in known if len(word) > 2][: count // 2]
    pairs = [f"{a} {b}" for a in known[:1000] for b in known[:1000] if a != b]
    path.write_text("\n".join([*singles, *pairs[: count - len(singles)]]) + "\n", "utf-8")
    return path


def words(seed: int) -> list[str]:
    """Words, the most frequent first: real ones, then made-up ones of English syllables."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 2**32]))
    starts = ["st", "br", "cl", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "w", "ch"]
    middles = ["a", "e", "i", "o", "u", "ea", "oo", "ai", "ou"]
    ends = ["n", "r", "t", "ll", "ck", "nd", "ng", "s", "th", "rt", "m", "ler", "ton", "ing", "er"]
    chosen = rng.integers(0, [16, 9, 15, 16, 9, 15], (2 * WORDS, 6))
    found = dict.fromkeys(COMMON)
    for a, b, c, d, e, f in chosen.tolist():
        found[starts[a] + middles[b] + ends[c] + starts[d] + middles[e] + ends[f]] = None
        if len(found) == WORDS:
            break
    return list(found)


def metadata(vocabulary: pa.Array, first: int, rows: int, seed: int = 0) -> pa.Table:
    """Rows `first` to `first + rows` with the column names of LAION."""
    rng = np.random.Generator(np.random.Philox(key=[seed, first]))
    copied = rng.random(rows) < 0.03  # the same URL and caption as another row
    source = np.where(copied, rng.integers(0, rows, rows), np.arange(rows))
    again = rng.random(rows) < 0.12  # an image that an earlier row has too
    image = np.arange(first, first + rows)
    image = np.where(again, (image * rng.random(rows) ** 2).astype(np.int64), image)
    url = _urls(image, rng).take(pa.array(source))
    text = _captions(vocabulary, rows, rng).take(pa.array(source))
    width = rng.lognormal(6.3, 0.6, rows)
    height = width * rng.lognormal(-0.1, 0.35, rows)
    licences = pa.array(["?", "https://creativecommons.org/licenses/by/2.0/", None])
    return pa.table(
        {
            "URL": url,
            "TEXT": text,
            "WIDTH": width.astype(np.int32),
            "HEIGHT": height.astype(np.int32),
            "similarity": rng.normal(0.27, 0.06, rows).astype(np.float32),
            "LICENSE": licences.take(pa.array(rng.choice(3, rows, p=[0.9, 0.05, 0.05]))),
            "punsafe": (rng.random(rows) ** 8).astype(np.float32),
            "pwatermark": (rng.random(rows) ** 3).astype(np.float32),
        }
    )


def _zipf(count: int, uniform: np.ndarray, exponent: float) -> np.ndarray:
    """Places drawn by Zipf's law, 0 the most frequent."""
    weights = (np.arange(count) + 2.7) ** -exponent
    return np.searchsorted(np.cumsum(weights) / weights.sum(), uniform).clip(0, count - 1)


def _urls(image: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """The URL of each image: the same image has the same host and path, not always the same
    parameters."""
    mixed = (image.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    domain = _zipf(DOMAINS, mixed / 2.0**53, 1.0)
    number = pa.array(image).cast(pa.string())
    host = pc.binary_join_element_wise("https://img.site", pa.array(domain).cast(pa.string()), "")
    kinds = pa.array([".jpg", ".jpg?utm_source=feed", ".jpg#top", ".png", ".svg", ".jpg?w=300"])
    ends = kinds.take(pa.array(rng.choice(6, len(image), p=[0.8, 0.05, 0.02, 0.1, 0.01, 0.02])))
    whole = pc.binary_join_element_wise(host, ".example/media/", number, ends, "")
    return pc.if_else(pa.array(rng.random(len(image)) < 0.002), pa.scalar("/relative.jpg"), whole)


def _captions(vocabulary: pa.Array, rows: int, rng: np.random.Generator) -> pa.Array:
    lengths = rng.lognormal(2.2, 0.5, rows).astype(np.int32).clip(1, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = vocabulary.take(pa.array(_zipf(len(vocabulary), rng.random(int(offsets[-1])), 1.25)))
    text = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), tokens), " ")
    text = pc.utf8_capitalize(text)
    marks = pa.array(ACCENTED).take(pa.array(rng.integers(0, len(ACCENTED), rows)))
    marked = pc.binary_join_element_wise(text, marks, " ")
    text = pc.if_else(pa.array(rng.random(rows) < 0.1), marked, text)
    for share, texts in ((0.03, USELESS), (0.01, BOILERPLATE)):
        other = pa.array(texts).take(pa.array(rng.integers(0, len(texts), rows)))
        text = pc.if_else(pa.array(rng.random(rows) < share), other, text)
    return pc.if_else(pa.array(rng.random(rows) < 0.002), pa.scalar(None, pa.string()), text)
