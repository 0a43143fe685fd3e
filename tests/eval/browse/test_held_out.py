"""Pairs that are held out have pictures and features as the others have."""

import shutil

import pyarrow.parquet as pq
import pytest

from eval.browse.flags import Flags
from eval.browse.nearest import Nearest
from eval.browse.page import Page
from eval.browse.postings import postings, state_of
from eval.browse.reader import Reader
from pipeline.config import EngineConfig
from train import load_model
from train.embed_sources import items
from wit.image import decode


@pytest.fixture
def held(split, tmp_path):
    """A page of a corpus with a split, and the kept rows."""
    copy = tmp_path / "corpus"
    shutil.copytree(split[1], copy, ignore=shutil.ignore_patterns("stages"))
    reader = Reader(copy, postings(copy, state_of(copy), EngineConfig(threads=1)), "1GB", 30.0)
    rows = [row for row in pq.read_table(copy / "pairs").to_pylist() if row["key"]]
    yield Page(copy, reader, Flags(copy / "flagged.txt", copy)), rows
    reader.close()


def test_held_out_pairs_have_pictures_and_are_found(held, checkpoint):
    page, rows = held
    sides = {side: [row for row in rows if row["split"] == side] for side in ("train", "val")}
    for row in [*sides["train"][:5], *sides["val"][:5]]:
        size = decode(page.picture(row["key"]), 10**6).size
        assert size == (row["width"], row["height"])
    options = {"model": checkpoint, "batch_size": 32, "threads": 1, "max_pixels": 10**6}
    given = (page.corpus, state_of(page.corpus), page.reader, page.pictures)
    page.nearest = Nearest(load_model(checkpoint), "run", *given, options, 10**6)
    for side in sides.values():
        asked = {"mode": "like", "key": side[0]["key"], "filters": []}
        assert page.search(asked)["pairs"][0]["cosine"] == pytest.approx(1, abs=2e-3)
    assert len(page.nearest.vectors["images"]) == len(rows)


def test_embed_takes_them_too(held):
    page, rows = held
    for what in ("images", "captions"):
        found, _ = items(page.corpus, what, None)
        assert {item.key: item.uid for item in found} == {row["key"]: row["uid"] for row in rows}
        assert [item.key for item in found] == sorted(item.key for item in found)
