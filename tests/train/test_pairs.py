"""Where samples lie: a table that is mapped, made once; a list and a query that choose."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.pairs import BadSamples, Pairs
from train.table import Row, open_table
from wit import schema, shard
from wit.errors import CorpusError
from wit.index_cache import cache_folder

BAD = BadSamples(0, print)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made(folder: Path) -> list[Path]:
    return sorted(folder.glob("tables/*.arrow"))


def test_a_table_says_what_the_index_says(corpus: Path, tmp_path: Path) -> None:
    index = pq.read_table(corpus / "shards" / "index.parquet").to_pylist()
    pairs = Pairs(corpus, BAD)
    assert len(pairs) == len(index)
    for i, row in enumerate(index):
        assert (pairs.key(i), Path(pairs.file(i)).name) == (row["key"], row["shard"])
        raw = pairs.read(i)
        with (corpus / "shards" / row["shard"]).open("rb") as file:
            assert raw.image == shard.read_member(file, row["offset"], row["size"])
            assert raw.text == shard.read_member(file, row["text_offset"], row["text_size"])
    (table,) = made(cache_folder().parent)
    before = table.stat().st_mtime_ns
    assert Pairs(corpus, BAD).digest() == pairs.digest()
    assert made(cache_folder().parent) == [table]
    assert table.stat().st_mtime_ns == before, "it was made twice"


def test_a_torn_table_is_made_again_and_an_unwritable_cache_does_no_harm(
    corpus: Path, tmp_path: Path
) -> None:
    digest = Pairs(corpus, BAD).digest()
    (table,) = made(cache_folder().parent)
    table.write_bytes(table.read_bytes()[:-50])
    assert Pairs(corpus, BAD).digest() == digest
    for path in table.parent.iterdir():
        path.unlink()
    table.parent.rmdir()
    table.parent.write_text("a file is in the way", "utf-8")
    pairs = Pairs(corpus, BAD)
    assert pairs.digest() == digest
    assert pairs.read(5).image


def test_the_digest_is_of_the_samples_not_of_pieces_or_places(corpus, make_corpus, tmp_path):
    rows = pq.read_table(corpus / "shards" / "index.parquet")
    cut = [rows.slice(at, 7) for at in range(0, len(rows), 7)]
    whole = open_table(rows.to_batches, ["whole"], None)
    pieces = open_table(lambda: [p.to_batches()[0] for p in cut], ["pieces"], None)
    assert whole.digest == pieces.digest
    assert [whole.row(i) for i in range(48)] == [pieces.row(i) for i in range(48)]
    assert [row for _, row in pieces.rows()] == [whole.row(i) for i in range(48)]
    other = make_corpus(tmp_path / "other", shards=2, count=23)
    assert Pairs(other, BAD).digest() != Pairs(corpus, BAD).digest()


def test_opening_a_large_table_takes_memory_by_pieces(tmp_path: Path) -> None:
    """Two million rows: what is allocated to open them is a small part of what they take."""
    rows = 1 << 19

    def batches() -> list[pa.RecordBatch]:
        at = np.arange(rows)
        columns = {
            "key": pa.array(at).cast(pa.string()),
            "uid": pa.nulls(rows, pa.string()),
            "shard": pa.DictionaryArray.from_arrays(at // 10_000, [str(i) for i in range(53)]),
            "ext": pa.array(["jpg"]).take(pa.array(np.zeros(rows, int))),
            "offset": pa.array(at), "size": pa.array(at), "text_offset": pa.array(at),
            "text_ext": pa.array(["json"]).take(pa.array(np.zeros(rows, int))),
            "text_size": pa.array(at),
        }  # fmt: skip
        columns["shard"] = columns["shard"].cast(pa.string())
        table = pa.table({name: columns[name] for name in schema.INDEX.names})
        return table.to_batches(1 << 17)

    open_table(batches, ["large"], None)
    before = pa.total_allocated_bytes()
    again = open_table(lambda: pytest.fail("it was made twice"), ["large"], None)
    assert pa.total_allocated_bytes() - before < 1 << 16
    assert len(again) == rows
    assert again.key(rows - 1) == str(rows - 1)
    assert again.row(rows - 3) == Row(52, *[rows - 3] * 2, 1, *[rows - 3] * 2)


def test_a_damaged_index_is_one_line(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "torn")
    index = corpus / "shards" / "index.parquet"
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(CorpusError, match="not an index"):
        Pairs(corpus, BAD)
    pq.write_table(pa.table({"key": ["a"]}), index)
    with pytest.raises(CorpusError, match="not an index: it has other columns"):
        Pairs(corpus, BAD)


def test_indexed_tars_are_read_once_and_their_bad_samples_named_each_time(
    corpus: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for tar in (corpus / "shards").glob("*.tar"):
        (foreign / tar.name).write_bytes(tar.read_bytes())
    first = Pairs(foreign, BAD)
    assert len(first) == 48
    assert first.read(30) == Pairs(corpus, BAD).read(30)
    os.utime(foreign / "00001.tar", ns=(1, 1))
    assert Pairs(foreign, BAD).digest() == first.digest()
    assert len(list(cache_folder().iterdir())) == 2
