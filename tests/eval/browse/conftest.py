"""A corpus, its page and its model, for what `wit browse` shows."""

import shutil

import pyarrow.parquet as pq
import pytest

from eval.browse.flags import Flags
from eval.browse.page import Page
from eval.browse.postings import postings, state_of
from eval.browse.reader import Reader
from pipeline.config import EngineConfig


@pytest.fixture(scope="session")
def looked_at(corpus, tmp_path_factory):
    """A copy of the sample's corpus, since indexes are kept beside it."""
    copy = tmp_path_factory.mktemp("browse") / "corpus"
    shutil.copytree(corpus, copy, ignore=shutil.ignore_patterns("stages"))
    return copy


@pytest.fixture(scope="session")
def reader(looked_at):
    index = postings(looked_at, state_of(looked_at), EngineConfig(threads=1))
    opened = Reader(looked_at, index, "1GB", 30.0)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def rows(looked_at):
    return pq.read_table(looked_at / "pairs").to_pylist()


@pytest.fixture(scope="session")
def checkpoint(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("browse") / "run")


@pytest.fixture
def page(gallery, tmp_path):
    """A page of a copy of the gallery."""
    copy = tmp_path / "corpus"
    shutil.copytree(gallery, copy, ignore=shutil.ignore_patterns("stages"))
    index = postings(copy, state_of(copy), EngineConfig(threads=1))
    opened = Reader(copy, index, "1GB", 30.0)
    yield Page(copy, opened, Flags(copy / "flagged.txt", copy))
    opened.close()
