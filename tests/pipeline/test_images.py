"""Stage 70 on tables made by hand: sizes, equal bytes, near pictures, and who stays."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.context import Context
from pipeline.dedupe import representatives
from pipeline.fetch import FETCHED
from pipeline.images import images, params
from wit.errors import InputError
from wit.progress import Progress
from wit.schema import Reason

HASH = 0x0123_4567_89AB_CDEF


def flip(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def image(key: int, **changes: Any) -> dict[str, Any]:
    """A fetched image of its own bytes and hash, 200 x 150 pixels."""
    other = random.Random(key).getrandbits(64)
    values = {"url_key": key, "sha256": f"sha{key}", "phash": other, "reason": None}
    size = {"original_width": 200, "original_height": 150, "width": 200, "height": 150}
    return {**values, **size, "format": "JPEG", "status": "success", **changes}


def run(
    tmp_path: Path,
    fetched: list[dict[str, Any]],
    rows: list[int] | None = None,
    opt_out: tuple[Path, ...] = (),
    dedupe: dict[str, Any] | None = None,
    **thresholds: Any,
) -> dict[int, tuple[str | None, int | None]]:
    """Verdict and kept row of each row; `fetched` is in the order of rank, `rows` are the URL
    keys of the rows, whose rank is their number."""
    from pipeline.config import ShardsConfig

    rows = rows if rows is not None else [line["url_key"] for line in fetched]
    numbers = pa.array(range(len(rows)), pa.int64())
    tables = {
        "10_ingest": pa.table(
            {"row": numbers, "rank": pa.array(range(len(rows)), pa.uint64())}
            | {"uid": [f"{i:032x}" for i in range(len(rows))], "url": [f"u{key}" for key in rows]}
        ),
        "12_urls": pa.table(
            {"row": numbers, "url_key": pa.array(rows, pa.uint64())}
            | {"domain": [f"h{key}.test" for key in rows]}
        ),
        "50_balance": pa.table({"row": numbers, "reason": pa.nulls(len(rows), pa.string())}),
        "60_fetch": pa.Table.from_pylist(fetched, schema=FETCHED),
    }
    inputs = {}
    for name, table in tables.items():
        inputs[name] = tmp_path / name
        inputs[name].mkdir(exist_ok=True)
        pq.write_table(table, inputs[name] / "rows.parquet")
    settings = {"engine": {"threads": 1}, "url": {"opt_out": opt_out}, "dedupe": dedupe or {}}
    config = ShardsConfig.model_validate(settings)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    values = params(config) | thresholds
    progress = Progress("70_images", io.StringIO())
    images(Context(config, values, inputs, out, tmp_path, progress))
    found = pq.read_table(out / "rows.parquet").to_pylist()
    assert [line["row"] for line in found] == list(range(len(rows)))
    return {line["row"]: (line["reason"], line["kept_row"]) for line in found}


GOOD = (None, None)


def test_sizes_are_judged_by_the_original(tmp_path: Path) -> None:
    fetched = [
        image(0, original_width=100, original_height=100),
        image(1, original_width=99, original_height=500),
        image(2, original_width=300, original_height=100),
        image(3, original_width=100, original_height=301),
        image(4, reason="http_404", status="failed_to_download", original_width=None),
    ]
    found = run(tmp_path, fetched)
    assert found == {
        0: GOOD,
        1: (Reason.IMAGE_TOO_SMALL, None),
        2: GOOD,
        3: (Reason.ASPECT_RATIO, None),
        4: (Reason.HTTP_404, None),
    }
    assert run(tmp_path, fetched, min_side=101)[0] == (Reason.IMAGE_TOO_SMALL, None)
    assert run(tmp_path, fetched, max_aspect=4.0)[3] == GOOD


def test_an_image_on_a_list_of_opt_outs(tmp_path: Path) -> None:
    listed = tmp_path / "owners.txt"
    listed.write_text(f"{'AB' * 32}  # my picture\nh9.test\n")
    found = run(tmp_path, [image(0), image(1, sha256="ab" * 32)], opt_out=(listed,))
    assert found == {0: GOOD, 1: (Reason.OPTED_OUT, None)}


def embedded(folder: Path, column: str, npy: bool = False, **angles: float) -> Path:
    """Features as `wit embed` writes them: name -> degrees between two axes."""
    folder.mkdir()
    rad = np.radians(list(angles.values()))
    rows = np.stack([np.cos(rad), np.sin(rad)], axis=1).astype(np.float32) * 3
    names = pa.array([name.removeprefix("k") for name in angles])
    columns: dict[str, Any] = {"key": names, column: names}
    if npy:
        np.save(folder / "00000.npy", rows)
    else:
        columns["feature"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 2)
    pq.write_table(pa.table(columns), folder / "00000.parquet")
    return folder


@pytest.mark.parametrize("npy", [False, True])
def test_crops_are_found_by_their_features(tmp_path: Path, npy: bool) -> None:
    angles = {f"k{i:032x}": angle for i, angle in enumerate((0.0, 10.0, 19.0, 50.0, 90.0))}
    angles["k" + "f" * 32] = 0.0  # of an earlier state of the corpus
    folder = embedded(tmp_path / "features", "uid", npy, **angles)
    fetched = [image(i) for i in range(6)]  # the last has no features
    fetched[1]["width"] = fetched[1]["original_width"] = 300
    hashed = image(6, phash=flip(fetched[0]["phash"], 1), original_width=150)
    dedupe = {"features": [folder], "max_cosine": math.cos(math.radians(11))}
    found = run(tmp_path, [*fetched, hashed], dedupe=dedupe)
    assert found == {
        0: (Reason.NEAR_DUPLICATE_IMAGE, 1),  # the larger stays
        1: GOOD,
        2: (Reason.NEAR_DUPLICATE_IMAGE, 1),
        3: GOOD,
        4: GOOD,
        5: GOOD,
        6: (Reason.NEAR_DUPLICATE_IMAGE, 1),  # by its hash, and the other went since
    }


def test_pictures_of_evaluation_sets_are_found_by_their_features(tmp_path: Path) -> None:
    angles = {f"k{i:032x}": angle for i, angle in enumerate((0.0, 45.0))}
    dedupe = {
        "features": [embedded(tmp_path / "features", "uid", **angles)],
        "evaluation_features": [embedded(tmp_path / "cars", "key", kcar7=47.0, kcar8=200.0)],
        "max_cosine": 0.99,
    }
    found = run(tmp_path, [image(0), image(1)], dedupe=dedupe)
    assert found == {0: GOOD, 1: (Reason.OVERLAP, None)}
    (met,) = pq.read_table(tmp_path / "out" / "overlaps").to_pylist()
    assert (met["row"], met["set"], met["key"]) == (1, "cars", "car7")
    assert (met["how"], met["distance"]) == ("feature", None)


def test_features_that_are_none(tmp_path: Path) -> None:
    other = embedded(tmp_path / "other", "key", k1=0.0)
    foreign = embedded(tmp_path / "foreign", "uid", kabc=0.0)
    for folder, says in ((tmp_path, "no features there"), (other, "no column uid")):
        with pytest.raises(InputError, match=says):
            run(tmp_path, [image(0)], dedupe={"features": [folder]})
    with pytest.raises(InputError, match="of no image of this corpus"):
        run(tmp_path, [image(0)], dedupe={"features": [foreign]})
    with pytest.raises(InputError, match=r"give --dedupe\.features"):
        run(tmp_path, [image(0)], dedupe={"evaluation_features": [other]})


def test_equal_bytes_keep_the_lowest_rank(tmp_path: Path) -> None:
    same = {"sha256": "same", "phash": HASH}
    fetched = [image(0), image(1, **same), image(2, **same), image(3, **same)]
    assert run(tmp_path, fetched) == {
        0: GOOD,
        1: GOOD,
        2: (Reason.DUPLICATE_IMAGE, 1),
        3: (Reason.DUPLICATE_IMAGE, 1),
    }


def test_equal_bytes_without_a_hash(tmp_path: Path) -> None:
    fetched = [image(0, phash=None), image(1, phash=None), image(2, phash=None, sha256="sha0")]
    assert run(tmp_path, fetched) == {0: GOOD, 1: GOOD, 2: (Reason.DUPLICATE_IMAGE, 0)}


def test_near_pictures_keep_the_largest_then_the_lowest_rank(tmp_path: Path) -> None:
    large = {"original_width": 400, "original_height": 300}
    fetched = [
        image(0, phash=HASH),
        image(1, phash=flip(HASH, 0, 30, 63), **large),
        image(2, phash=flip(HASH, 1, 31), **large),
        image(3, phash=HASH),
    ]
    near = Reason.NEAR_DUPLICATE_IMAGE
    # 2 is 5 bits from 1: both stay; 0 and 3 give way to 1, the better of the two
    assert run(tmp_path, fetched) == {0: (near, 1), 1: GOOD, 2: GOOD, 3: (near, 1)}


@pytest.mark.parametrize(("distance", "kept"), [(0, 3), (1, 2), (2, 1), (3, 1)])
def test_the_distance_is_a_threshold(tmp_path: Path, distance: int, kept: int) -> None:
    fetched = [
        image(0, phash=HASH),
        image(1, phash=flip(HASH, 9)),
        image(2, phash=flip(HASH, 9, 40)),
    ]
    found = run(tmp_path, fetched, phash_distance=distance)
    if distance == 1:  # 1 is like 0; 2 is like 1 alone, which has gone, and so it stays
        assert found == {0: GOOD, 1: (Reason.NEAR_DUPLICATE_IMAGE, 0), 2: GOOD}
    assert sum(verdict == GOOD for verdict in found.values()) == kept


def test_copies_of_a_picture_that_gives_way_name_the_one_that_stays(tmp_path: Path) -> None:
    large = {"original_width": 400, "original_height": 300}
    copy = {"sha256": "copy", "phash": flip(HASH, 5)}
    fetched = [image(0, **copy), image(1, phash=HASH, **large), image(2, **copy)]
    assert run(tmp_path, fetched) == {
        0: (Reason.NEAR_DUPLICATE_IMAGE, 1),
        1: GOOD,
        2: (Reason.DUPLICATE_IMAGE, 1),
    }


def test_rows_of_one_url_share_its_fate(tmp_path: Path) -> None:
    same = {"sha256": "same", "phash": HASH}
    fetched = [image(7, **same), image(8, **same)]
    found = run(tmp_path, fetched, rows=[7, 8, 7, 8, 7])
    duplicate = (Reason.DUPLICATE_IMAGE, 0)
    assert found == {0: GOOD, 1: duplicate, 2: GOOD, 3: duplicate, 4: GOOD}


def test_images_that_failed_a_rule_are_nobodys_original(tmp_path: Path) -> None:
    thin = {"original_width": 4000, "original_height": 50}
    fetched = [image(0, sha256="a", phash=HASH, **thin), image(1, phash=HASH)]
    assert run(tmp_path, fetched) == {0: (Reason.IMAGE_TOO_SMALL, None), 1: GOOD}


def test_nothing_was_fetched(tmp_path: Path) -> None:
    gone = image(0, reason="dns", phash=None, sha256=None, original_width=None)
    assert run(tmp_path, [gone]) == {0: (Reason.DNS, None)}
    assert run(tmp_path, []) == {}


def test_against_brute_force(tmp_path: Path) -> None:
    """1,500 images in families of near hashes and equal bytes, against a plain double loop."""
    rng = random.Random(3)
    fetched = []
    for key in range(1500):
        base = random.Random(f"family {rng.randrange(400)}").getrandbits(64)
        flips = rng.sample(range(64), rng.randrange(4))
        width = rng.choice([100, 200, 300])
        copy_of = rng.choice(fetched) if fetched and rng.random() < 0.1 else None
        made = image(key, phash=flip(base, *flips), original_width=width, original_height=width)
        if copy_of is not None:
            shared = ("sha256", "phash", "original_width", "original_height")
            made |= {name: copy_of[name] for name in shared}
        fetched.append(made)

    order = sorted(range(1500), key=lambda i: (-(fetched[i]["original_width"] ** 2), i))
    first: dict[str, int] = {}
    for place, i in enumerate(order):
        first.setdefault(fetched[i]["sha256"], place)
    originals = sorted(first.values())
    hashes = {place: fetched[order[place]]["phash"] for place in originals}
    edges = [
        (a, b)
        for n, a in enumerate(originals)
        for b in originals[n + 1 :]
        if (hashes[a] ^ hashes[b]).bit_count() <= 3
    ]
    gone = representatives(edges)
    wanted: dict[int, tuple[str | None, int | None]] = {}
    for place, i in enumerate(order):
        original = first[fetched[i]["sha256"]]
        stays = gone.get(original, original)
        if place != original:
            wanted[i] = (Reason.DUPLICATE_IMAGE, order[stays])
        elif stays != original:
            wanted[i] = (Reason.NEAR_DUPLICATE_IMAGE, order[stays])
        else:
            wanted[i] = GOOD
    assert len(gone) > 500
    assert run(tmp_path, fetched) == wanted
