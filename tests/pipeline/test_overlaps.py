"""Pairs that show pictures of an evaluation set: found, dropped or kept, and listed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.overlaps import in_words
from wit.errors import InputError
from wit.shard import Sample, write_shard


def picture(seed: int, side: int = 200) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def found(run_until: Any, tmp_path: Path) -> Any:
    """Run up to the images: 0 is in the evaluation set byte for byte, 1 smaller and in another
    format, 2 not at all; 3 is a copy of 1 at another place."""
    web, sets = tmp_path / "web", tmp_path / "flowers"
    web.mkdir()
    (sets / "test").mkdir(parents=True)
    rows = []
    for i, seed in enumerate((0, 1, 2, 1)):
        (web / f"{i}.jpg").write_bytes(encoded(picture(seed, 200 + i), quality=90))
        rows.append(json.dumps({"image": f"{i}.jpg", "caption": f"a dog in park {i}"}))
    (web / "rows.jsonl").write_text("\n".join(rows))
    samples = [
        Sample("s0", (web / "0.jpg").read_bytes(), "jpg", "0"),
        Sample("s1", encoded(picture(1, 96), "WEBP", quality=70), "webp", "1"),
        Sample("s7", encoded(picture(7)), "jpg", "7"),
        Sample("s8", b"no image", "jpg", "8"),
    ]
    write_shard(sets / "test" / "0.tar", samples)

    def run(**dedupe: Any) -> tuple[dict[str, str | None], list[dict[str, Any]], Any]:
        given = {"input": [web], "corpus": tmp_path / "corpus", "fetch": {"processes": 1}}
        tables = run_until(
            "70_images", queries=["dog"], dedupe={"evaluation": [sets], **dedupe}, **given
        )
        names = {row["row"]: row["url"] for row in tables("10_ingest")}
        reasons = {names[row]: reason for row, reason in tables.reasons("70_images").items()}
        listed = pq.read_table(tmp_path / "corpus" / "overlaps").to_pylist()
        return reasons, [row | {"url": names[row["row"]]} for row in listed], tables

    return run


def test_overlaps_are_dropped_and_listed(found: Any) -> None:
    reasons, listed, _ = found()
    assert reasons == {"0.jpg": "overlap", "1.jpg": "overlap", "2.jpg": None, "3.jpg": "overlap"}
    by_url = {row["url"]: row for row in listed}
    assert sorted(by_url) == ["0.jpg", "1.jpg", "3.jpg"]
    assert [by_url["0.jpg"][k] for k in ("set", "key", "how", "distance")] == [
        "flowers",
        "s0",
        "sha256",
        0,
    ]
    assert (by_url["1.jpg"]["key"], by_url["1.jpg"]["how"]) == ("s1", "phash")
    assert by_url["1.jpg"]["distance"] <= 3


def test_overlaps_may_stay(found: Any) -> None:
    _, before, _ = found()
    reasons, listed, tables = found(overlap="keep")
    assert tables.built() == ["70_images"]  # nothing is fetched again
    assert listed == before
    assert (reasons["0.jpg"], reasons["2.jpg"]) == (None, None)
    assert sorted(str(reasons[name]) for name in ("1.jpg", "3.jpg")) == [
        "None",
        "near_duplicate_image",
    ]


def test_how_it_is_known_in_words() -> None:
    assert in_words("sha256", 0) == "same bytes"
    assert in_words("phash", 2) == "2 bits of the hash differ"
    assert in_words("feature", None) == "alike by the features of a model"


def test_a_folder_without_tars(run_until: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a webdataset folder"):
        run_until(
            "70_images",
            [("http://x.invalid/a.jpg", "a dog in the park")],
            queries=["dog"],
            dedupe={"evaluation": [tmp_path / "none"]},
        )
