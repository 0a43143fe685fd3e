"""Write the embedded sample: 1,000 good pairs and, around them, rows with every known fault.

The folder holds what a real corpus starts from, `metadata.parquet` (url, text) and
`queries.txt`; what the web would hold, `images/HOST/PATH` and `site.json` for the server; the
truth about each row, `truth.parquet`; and `eval/`, evaluation sets of pictures that are in no
pair. `sample.json` comes last and holds the fingerprint of the generator.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import features

import wit.text
from pipeline.sample import captions, evalsets, scenes
from pipeline.sample.book import Book, Pair, Row, encode
from pipeline.sample.row_traps import OVER_CAP_WORD
from pipeline.sample.server import write_replies
from pipeline.sample.traps import add_traps
from wit.config import fingerprint, write_json
from wit.text import words

# hosts of the good pairs, and how each names its files
SITES = (
    "http://cdn.paper-shapes.example/catalogue/{n:05d}/{slug}.{ext}",
    "http://www.geometry-museum.example/collection/objects/{n}/full.{ext}",
    "http://static.drawing-blog.test/wp-content/uploads/{year}/07/{slug}-{n}.{ext}",
    "http://photos.school-projects.example/~class4b/IMG_{n:04d}.{ext}",
    "http://media.print-shop.test/p/{slug}/{n}/large.{ext}",
)
# Pillow's format, file name ending, options; JPEG is the web's most frequent one
FORMATS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("JPEG", "jpg", {"quality": 95}),
    ("JPEG", "jpg", {"quality": 90}),
    ("JPEG", "jpeg", {"quality": 82}),
    ("PNG", "png", {}),
    ("WEBP", "webp", {"quality": 85}),
)
LARGE_EVERY = 20  # one good picture in so many is larger than the corpus stores it
TRUTH = pa.schema(
    [
        ("row", pa.int64()),
        ("url", pa.string()),
        ("text", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("kind", pa.string()),
        ("clean_text", pa.string()),
    ]
)


@dataclass(frozen=True)
class Recipe:
    """What a sample holds.

    Attributes:
        good: pairs without fault.
        copies: rows for each way to repeat a good pair; each copy needs 80 good pairs.
        slow: whether to hold the traps that cost a build seconds of waiting.
        evaluation: whether to write the evaluation sets.
    """

    good: int = 1000
    copies: int = 3
    slow: bool = True
    evaluation: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.good < 80 * self.copies:
            raise ValueError(f"{self.copies} copies need {80 * self.copies} good pairs")

    def fingerprint(self) -> str:
        """Changes with the recipe, the generator's code, and the library that encodes images."""
        code = hashlib.sha256()
        for file in [*sorted(Path(__file__).parent.glob("*.py")), Path(wit.text.__file__)]:
            code.update(file.read_bytes())
        versions = [PIL.__version__, features.version("jpg"), features.version("webp")]
        return fingerprint([code.hexdigest(), versions, features.check("avif"), asdict(self)])


def write(folder: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """Write the sample, unless `folder` already holds what this generator would write.

    Another sample there is replaced; nothing half-written ever stands under the folder's name.

    Returns:
        What `sample.json` says: fingerprint, recipe, rows, kept.
    """
    recipe = recipe or Recipe()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds may want the sample at the same time
        marker = _read_marker(folder)
        if marker.get("fingerprint") != recipe.fingerprint():
            _write_new(folder, recipe)
            marker = _read_marker(folder)
    return marker


def _read_marker(folder: Path) -> dict[str, Any]:
    try:
        marker: dict[str, Any] = json.loads((folder / "sample.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return marker


def _write_new(folder: Path, recipe: Recipe) -> None:
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    book = compose(recipe)
    rows = _shuffled(book.rows, Random(recipe.seed + 3))
    _write_tables(rows, temporary)
    (temporary / "queries.txt").write_text("\n".join(queries()) + "\n", "utf-8")
    for key, body in book.files.items():
        file = temporary / "images" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    write_replies(book.replies, temporary / "site.json")
    if recipe.evaluation:
        evalsets.write_evaluation_sets(temporary / "eval")
    kept = sum(row.reason is None for row in rows)
    marker = {"fingerprint": recipe.fingerprint(), "recipe": asdict(recipe)}
    write_json({**marker, "rows": len(rows), "kept": kept}, temporary / "sample.json")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def compose(recipe: Recipe) -> Book:
    """Everything of the sample but its order: good pairs first, then the traps."""
    book = Book(_spare_pairs(recipe.seed + 2))
    rng = Random(recipe.seed + 4)
    for n, (scene, text) in enumerate(captions.pairs(recipe.seed, recipe.good)):
        kind, ext, options = scenes.pick(rng, FORMATS)
        if n % LARGE_EVERY == 0:
            scene = replace(scene, width=scene.width * 3, height=scene.height * 3)
            kind, ext, options = FORMATS[0]
        slug = "-".join(words(text)[:4])
        url = SITES[n % len(SITES)].format(n=n, slug=slug, year=2010 + n % 12, ext=ext)
        book.add(Row("good", url, text), encode(scenes.render(scene), kind, **options))
    add_traps(book, recipe.copies, recipe.slow)
    return book


def _spare_pairs(seed: int) -> Iterator[Pair]:
    """Pictures and true captions for the traps."""
    rng = Random(seed)
    while True:
        scene = scenes.scene(rng)
        yield Pair(scenes.render(scene), captions.caption(scene, rng))


def queries() -> list[str]:
    """The query list: what a search for the pictures would say, in plural too; one trap's word."""
    found = captions.queries()
    plurals = [" ".join([*rest, captions.plural(shape)]) for *rest, shape in map(str.split, found)]
    return [*dict.fromkeys([*found, *plurals]), OVER_CAP_WORD]


def _shuffled(rows: list[Row], rng: Random) -> list[Row]:
    """The rows in random order, each exact copy after the row it repeats: the first is kept."""
    order = [row for _, row in sorted(((rng.random(), row) for row in rows), key=lambda x: x[0])]
    place = {(row.url, row.text): i for i, row in enumerate(order) if row.kind != "exact_copy"}
    for i, row in enumerate(order):
        original = place[row.url, row.text]
        if row.kind == "exact_copy" and i < original:
            order[i], order[original] = order[original], order[i]
    return order


def _write_tables(rows: list[Row], folder: Path) -> None:
    urls, texts = [row.url for row in rows], [row.text for row in rows]
    metadata = pa.table({"url": pa.array(urls, pa.string()), "text": pa.array(texts, pa.string())})
    pq.write_table(metadata, folder / "metadata.parquet")
    truth = {
        "row": range(len(rows)),
        "url": urls,
        "text": texts,
        "verdict": ["dropped" if row.reason else "kept" for row in rows],
        "reason": [row.reason and row.reason.value for row in rows],
        "kind": [row.kind for row in rows],
        "clean_text": [row.clean_text or row.text for row in rows],
    }
    pq.write_table(pa.table(truth, schema=TRUTH), folder / "truth.parquet")
