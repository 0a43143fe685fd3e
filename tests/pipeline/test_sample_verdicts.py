"""`wit shards` on the embedded sample: every row ends as its truth says, and is stored rightly."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

import wit
from pipeline.sample.server import site_key
from wit import manifest
from wit.shard import Sample, read_shard

Row = dict[str, Any]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(wit.__file__).parents[1])}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a person typed `wit shards`."""
    folder = tmp_path_factory.mktemp("home")
    subprocess.run(
        [sys.executable, "-m", "wit.cli", "shards"],
        cwd=folder,
        env=ENVIRONMENT,
        check=True,
        timeout=240,
    )
    return folder


@pytest.fixture(scope="module")
def rows(home: Path) -> list[Row]:
    """Truth and result side by side, one for each row; the result's columns begin with got_."""
    truth = pq.read_table(home / "data/sample/truth.parquet").to_pylist()
    pairs = pq.read_table(home / "data/corpus/pairs").to_pylist()
    got = {pair["row"]: {f"got_{key}": value for key, value in pair.items()} for pair in pairs}
    assert len(got) == len(pairs) == len(truth)
    return [{**row, **got[row["row"]]} for row in truth]


@pytest.fixture(scope="module")
def stored(home: Path) -> dict[str, Sample]:
    shards = sorted((home / "data/corpus/shards").glob("*.tar"))
    return {sample.key: sample for shard in shards for sample in read_shard(shard)}


def test_every_verdict_and_reason(rows: list[Row]) -> None:
    wrong = [
        f"{row['kind']} {row['url']}: {row['reason']} expected, {row['got_reason']} found"
        for row in rows
        if (row["verdict"], row["reason"]) != (row["got_verdict"], row["got_reason"])
    ]
    assert not wrong
    assert Counter(row["got_verdict"] for row in rows if row["kind"] == "good") == {"kept": 1000}


def test_the_input_comes_out_as_it_went_in(rows: list[Row]) -> None:
    assert all((row["url"], row["text"]) == (row["got_url"], row["got_raw_text"]) for row in rows)


def test_captions_are_mended(rows: list[Row], stored: dict[str, Sample]) -> None:
    kept = [row for row in rows if row["verdict"] == "kept"]
    assert [row["got_text"] for row in kept] == [row["clean_text"] for row in kept]
    assert [stored[row["got_key"]].text for row in kept] == [row["clean_text"] for row in kept]
    mended = [row for row in kept if row["kind"] == "broken"]
    assert all(row["got_text"] != row["text"] for row in mended)
    assert len(mended) >= 10


def test_kept_and_dropped_are_all_rows(home: Path, rows: list[Row]) -> None:
    verdicts = Counter(row["got_verdict"] for row in rows)
    assert verdicts.total() == len(rows) == verdicts["kept"] + verdicts["dropped"]
    for stage in manifest.read(home / "data/corpus").stages:
        assert stage["rows_in"] == stage["rows_out"] + sum(stage["reasons"].values())
    with duckdb.connect(str(home / "data/corpus/corpus.duckdb"), read_only=True) as con:
        counts = con.execute("SELECT verdict, count(*) FROM pairs GROUP BY verdict").fetchall()
    assert dict(counts) == verdicts


def test_the_shards_hold_the_kept_pairs_and_no_other(
    rows: list[Row], stored: dict[str, Sample]
) -> None:
    keys = [row["got_key"] for row in rows if row["verdict"] == "kept"]
    assert sorted(keys) == sorted(stored)
    assert all(row["got_key"] is None for row in rows if row["verdict"] == "dropped")
    in_order = sorted((row["got_key"], row["got_rank"]) for row in rows if row["got_key"])
    assert [rank for _, rank in in_order] == sorted(rank for _, rank in in_order)


def test_duplicates_name_the_pair_that_stays(rows: list[Row]) -> None:
    by_uid = {row["got_uid"]: row for row in rows if row["got_verdict"] == "kept"}
    for row in rows:
        kept = row["got_duplicate_of"] and by_uid[row["got_duplicate_of"]]
        if row["reason"] in ("duplicate_pair", "duplicate_url"):
            assert kept["kind"] == "good"
            assert site_key(kept["url"]) == site_key(row["url"])
        elif row["reason"] == "duplicate_image":
            assert kept["got_sha256"] == row["got_sha256"]
        elif row["reason"] == "near_duplicate_image":
            assert (kept["kind"], kept["text"]) == ("good", row["text"])
        else:
            assert kept is None


def seen(body: bytes) -> Image.Image:
    """What a person sees who opens the file on a white page."""
    with Image.open(BytesIO(body)) as image:
        image.seek(0)
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "I;16":
            return Image.fromarray((np.asarray(upright) // 257).astype(np.uint8)).convert("RGB")
        layer = upright.convert("RGBA")
    page = Image.new("RGB", layer.size, (255, 255, 255))
    page.paste(layer, mask=layer.getchannel("A"))
    return page


def difference(image: Image.Image, other: Image.Image) -> float:
    a, b = (np.asarray(picture.convert("RGB"), dtype=np.float64) for picture in (image, other))
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize(
    "kind",
    [
        "exif_rotated",
        "alpha",
        "palette_alpha",
        "grey_alpha",
        "animated_gif",
        "animated_webp",
        "cmyk",
        "greyscale",
        "grey_16_bit",
        "rgb_16_bit",
        "gif",
        "webp",
        "webp_lossless",
        "progressive",
        "avif",
        "moved",
        "500_then_200",
    ],
)
def test_pixels_are_what_a_person_sees(
    home: Path, rows: list[Row], stored: dict[str, Sample], kind: str
) -> None:
    chosen = [row for row in rows if row["kind"] == kind and row["verdict"] == "kept"]
    assert chosen or kind == "avif"  # AVIF is dropped where Pillow can't read it
    for row in chosen:
        path = home / "data/sample/images" / site_key(row["url"])
        if not path.exists():  # a redirect: the file lies where it leads
            assert kind == "moved"
            continue
        expected = seen(path.read_bytes())
        with Image.open(BytesIO(stored[row["got_key"]].image)) as image:
            assert image.mode == ("L" if kind == "greyscale" else "RGB")  # a sound JPEG stays
            assert image.size == expected.size
            assert image.getexif().get(0x0112, 1) == 1  # no turn is left to be done
            assert difference(image, expected) < 5
            if kind == "exif_rotated":
                assert difference(image, expected.transpose(Image.Transpose.ROTATE_180)) > 8
            if "alpha" in kind:
                assert image.getpixel((0, 0)) == pytest.approx((255, 255, 255), abs=12)


def test_large_images_are_shrunk_and_their_sizes_kept(
    rows: list[Row], stored: dict[str, Sample]
) -> None:
    large = 0
    for row in rows:
        if row["verdict"] == "kept":
            size, original = (
                (row[f"got_{prefix}width"], row[f"got_{prefix}height"])
                for prefix in ("", "original_")
            )
            with Image.open(BytesIO(stored[row["got_key"]].image)) as image:
                assert image.size == size
            assert min(size) == min(256, *original)
            large += min(original) > 256
    assert large > 10


def test_serve_answers_until_it_is_stopped(home: Path, rows: list[Row]) -> None:
    """`wit sample serve`, where the sample has been written already."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wit.cli", "sample", "serve", "--port", "0"],
        cwd=home,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert f"{len(rows):,} rows" in process.stdout.readline()
    line = process.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+) until Ctrl-C; build with --fetch\.resolve", line)
    assert found is not None
    request = urllib.request.Request(
        f"http://127.0.0.1:{found[1]}/scans/none.jpg", headers={"Host": "www.sheets-archive.test"}
    )
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(request, timeout=5)
    refused.value.close()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines() == [
        "wit: stopped; run the same command again: what was saved is kept"
    ]
