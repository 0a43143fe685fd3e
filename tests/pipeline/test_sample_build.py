"""The sample is the same on every write, and its rows are what their kinds say."""

import hashlib
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from pipeline.sample.book import Book, Row
from pipeline.sample.build import Recipe, compose, queries, write
from pipeline.sample.limits import CAP
from pipeline.sample.row_traps import OVER_CAP_WORD
from pipeline.sample.server import read_replies, site_key
from wit.schema import Reason
from wit.text import clean_caption, rank, uid, words

SMALL = Recipe(good=100, copies=1, slow=False, evaluation=False)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "small"
    write(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def book() -> Book:
    return compose(Recipe())


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def truth(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "truth.parquet").to_pylist()
    return rows


def test_two_writes_are_byte_identical(sample: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", SMALL)
    assert digests(tmp_path / "again") == digests(sample)


def test_another_seed_is_another_sample(sample: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", Recipe(100, 1, slow=False, evaluation=False, seed=1))
    first, other = (
        {row["text"] for row in truth(folder) if row["kind"] == "good"}
        for folder in (sample, tmp_path / "other")
    )
    assert len(first & other) < 20  # short captions meet by chance


def test_a_current_sample_stays_and_any_other_is_replaced(tmp_path: Path) -> None:
    tiny = Recipe(good=80, copies=1, slow=False, evaluation=False)
    folder = tmp_path / "sample"
    (tmp_path / ".sample.tmp" / "images").mkdir(parents=True)  # of a write that was killed
    first = write(folder, tiny)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write(folder, tiny) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    second = write(folder, Recipe(good=85, copies=1, slow=False, evaluation=False))
    assert second["fingerprint"] != first["fingerprint"]
    assert second["rows"] == first["rows"] + 5 == len(truth(folder))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["sample"]


def test_metadata_is_the_truth_without_the_answers(sample: Path) -> None:
    metadata = pq.read_table(sample / "metadata.parquet")
    assert metadata.column_names == ["url", "text"]
    rows = truth(sample)
    assert metadata.to_pylist() == [{"url": row["url"], "text": row["text"]} for row in rows]
    assert [row["row"] for row in rows] == list(range(len(rows)))
    assert all((row["verdict"] == "kept") == (row["reason"] is None) for row in rows)
    kinds = [row["kind"] for row in rows]
    assert kinds != sorted(kinds)
    assert len(set(kinds[: len(kinds) // 10])) > 5  # shuffled


def test_the_files_and_replies_are_on_disk(sample: Path) -> None:
    small = compose(SMALL)
    served = {key.removeprefix("images/") for key in digests(sample) if key.startswith("images/")}
    assert served == set(small.files)
    assert read_replies(sample / "site.json") == small.replies


def test_every_reason_is_shown(book: Book) -> None:
    shown = {row.reason for row in book.rows} - {None}
    absent = set(Reason) - shown
    assert absent == {
        Reason.NO_FILE,  # of local folders: the sample is all on the web
        Reason.DECODER_CRASH,  # it takes a bug of a decoder
        # of lists and rules that are empty until a user fills them
        *(Reason.URL_DOMAIN, Reason.OPT_OUT_LIST, Reason.LICENSE),
        # of what the metadata declare: those of the sample declare nothing
        *(Reason.DECLARED_TOO_SMALL, Reason.DECLARED_ASPECT, Reason.LOW_SIMILARITY),
        *(Reason.NSFW, Reason.WATERMARK, Reason.LOW_AESTHETIC),
        Reason.NEAR_DUPLICATE_CAPTION,  # one caption per image is all that is kept
        Reason.NEAR_DUPLICATE_TEXT,  # an option
        Reason.OVERLAP,  # with evaluation sets, which the build must be told of
        Reason.ROBOTS_TXT,
        Reason.URL_REFUSED,
    }
    assert Counter(row.kind for row in book.rows)["good"] == 1000


def test_good_pairs_vary(book: Book) -> None:
    good = [row for row in book.rows if row.kind == "good"]
    forms, hosts, large = Counter[str | None](), Counter[str](), 0
    for row in good:
        key = site_key(str(row.url))
        with Image.open(BytesIO(book.files[key])) as image:
            forms[image.format] += 1
            large += min(image.size) > 256
            assert min(image.size) >= 64
        hosts[key.partition("/")[0]] += 1
    assert set(forms) == {"JPEG", "PNG", "WEBP"}
    assert min(forms.values()) > 100
    assert min(hosts.values()) > 100
    assert large > 10
    assert len({row.text for row in good}) > 800


def test_no_query_but_one_passes_the_cap(book: Book) -> None:
    """Then whatever is dropped over the cap is dropped for that one query."""
    listed = {" ".join(words(query)) for query in queries()}
    counts: Counter[str] = Counter()
    found = {}
    for row in book.rows:
        tokens = f" {' '.join(words(clean_caption(row.text or '')))} "
        found[row] = {query for query in listed if f" {query} " in tokens}
        counts.update(found[row])
    for row, hits in found.items():
        if row.kind in ("at_cap", "at_cap_dead", "over_cap"):
            assert hits == {OVER_CAP_WORD}
        elif row.kind == "no_query":
            assert not hits
        elif row.reason is None:
            assert min(counts[query] for query in hits) <= CAP
    assert counts[OVER_CAP_WORD] > CAP == sum(row.kind.startswith("at_cap") for row in book.rows)


def test_duplicates_come_after_what_they_repeat(book: Book) -> None:
    by_key: dict[str, list[Row]] = {}
    for row in book.rows:
        if row.reason in (Reason.DUPLICATE_PAIR, Reason.DUPLICATE_URL) or row.kind == "good":
            by_key.setdefault(site_key(str(row.url)), []).append(row)
    repeated = [rows for rows in by_key.values() if len(rows) > 1]
    assert len(repeated) == 3 * 9
    for rows in repeated:
        first, second = rows
        assert first.kind == "good"
        assert rank(uid(first.url, first.text)) <= rank(uid(second.url, second.text))


def files_of(book: Book, kind: str) -> list[bytes]:
    return [book.files[site_key(str(row.url))] for row in book.rows if row.kind == kind]


@pytest.mark.parametrize(
    ("kind", "form", "mode"),
    [
        ("cmyk", "JPEG", "CMYK"),
        ("greyscale", "JPEG", "L"),
        ("grey_alpha", "PNG", "LA"),
        ("grey_16_bit", "PNG", "I;16"),
        ("palette_alpha", "PNG", "P"),
        ("alpha", "PNG", "RGBA"),
        ("webp", "WEBP", "RGB"),
        ("gif", "GIF", "P"),
        ("exif_rotated", "JPEG", "RGB"),
    ],
)
def test_forms_are_what_they_say(book: Book, kind: str, form: str, mode: str) -> None:
    assert len(files_of(book, kind)) >= 2
    for body in files_of(book, kind):
        with Image.open(BytesIO(body)) as image:
            assert (image.format, image.mode) == (form, mode)
            if kind == "palette_alpha":
                assert image.convert("RGBA").getextrema()[3] == (0, 255)
            if kind == "exif_rotated":
                assert image.getexif()[0x0112] in (3, 6, 8)


def test_animations_sixteen_bits_and_avif(book: Book) -> None:
    for kind in ("animated_gif", "animated_webp"):
        for body in files_of(book, kind):
            with Image.open(BytesIO(body)) as image:
                assert image.n_frames == 2  # type: ignore[attr-defined]
    for body in files_of(book, "rgb_16_bit"):
        assert body[24:26] == bytes([16, 2])  # bits per sample, RGB
        with Image.open(BytesIO(body)) as image:
            image.load()
    (reason,) = {row.reason for row in book.rows if row.kind == "avif"}
    assert reason == (None if features.check("avif") else Reason.IMAGE_FORMAT)


def test_bombs_are_small_files_of_enormous_images(book: Book) -> None:
    formats = set()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        for body in files_of(book, "bomb"):
            with Image.open(BytesIO(body)) as image:
                assert image.width * image.height == 3_600_000_000
                formats.add(image.format)
            assert len(body) < 20_000
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    assert formats == {"PNG", "GIF", "JPEG"}


def test_a_recipe_must_have_enough_pairs_to_repeat() -> None:
    with pytest.raises(ValueError, match="240 good pairs"):
        Recipe(good=200)


def test_the_fingerprint_follows_the_recipe() -> None:
    prints = {
        Recipe().fingerprint(),
        Recipe(good=900).fingerprint(),
        Recipe(seed=1).fingerprint(),
        Recipe(slow=False).fingerprint(),
    }
    assert len(prints) == 4
