"""Shards cut anew, selections, and two corpora joined: each sound, each the right samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.build import build
from pipeline.catalogue import open_catalogue
from pipeline.config import ShardsConfig
from pipeline.merge import main as merge
from pipeline.optout import parse
from pipeline.removal import remove
from pipeline.reshard import main as reshard
from pipeline.verify import verify
from wit import manifest
from wit.errors import ConfigError, CorpusError, InputError
from wit.report_command import main as report
from wit.shard import Sample, read_shard


def samples(corpus: Path) -> list[Sample]:
    return [s for path in sorted((corpus / "shards").glob("*.tar")) for s in read_shard(path)]


def content(corpus: Path) -> dict[str, tuple[bytes, str, Any]]:
    return {
        s.meta["uid"]: (s.image, s.text, {k: v for k, v in s.meta.items() if k != "key"})
        for s in samples(corpus)
    }


def test_cut_anew_by_number_and_by_bytes(corpus: Path, tmp_path: Path) -> None:
    assert reshard([str(corpus), "--out", str(tmp_path / "a"), "--shard_size", "37"]) == 0
    assert "sound" in verify(tmp_path / "a")
    assert content(tmp_path / "a") == content(corpus)
    sizes = json.loads((tmp_path / "a" / "shards" / "sizes.json").read_bytes())
    assert set(list(sizes.values())[:-1]) == {37}
    assert list(sizes) == [f"{i:05d}.tar" for i in range(len(sizes))]
    uids = [sample.meta["uid"] for sample in samples(tmp_path / "a")]
    assert uids == sorted(uids)  # the order of rank
    pairs = pq.read_table(tmp_path / "a" / "pairs").to_pylist()
    assert [(row["uid"], row["key"]) for row in pairs] == [
        (sample.meta["uid"], sample.key) for sample in samples(tmp_path / "a")
    ]
    assert [row["row"] for row in pairs] == list(range(len(pairs)))
    assert reshard([str(corpus), "--out", str(tmp_path / "b"), "--shard_bytes", "60000"]) == 0
    assert "sound" in verify(tmp_path / "b")
    assert content(tmp_path / "b") == content(corpus)
    for path in sorted((tmp_path / "b" / "shards").glob("*.tar")):
        held = sum(len(s.image) + len(s.text.encode()) for s in read_shard(path))
        assert held <= 60_000 or sum(1 for _ in read_shard(path)) == 1


@pytest.mark.parametrize("kind", ["txt", "parquet", "npy", "sql"])
def test_selections(corpus: Path, tmp_path: Path, kind: str) -> None:
    every = sorted(content(corpus))
    wanted = every[::3]
    listed = tmp_path / f"uids.{kind}"
    given = ["--select", str(listed)]
    if kind == "txt":
        listed.write_text("\n".join([*wanted, "f" * 32]) + "\n")
    elif kind == "parquet":
        pq.write_table(pa.table({"uid": wanted}), listed)
    elif kind == "npy":
        halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in wanted]
        np.save(listed, np.array(halves, "u8,u8"))
    else:
        names = ", ".join(f"'{uid}'" for uid in wanted)
        given = ["--sql", f"SELECT uid FROM pairs WHERE uid IN ({names})"]
    assert reshard([str(corpus), "--out", str(tmp_path / "out"), *given]) == 0
    assert "sound" in verify(tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == wanted
    (stage,) = manifest.read(tmp_path / "out").stages
    assert stage["rows_in"] == len(every)
    assert stage["reasons"] == {"not_selected": len(every) - len(wanted)}


def test_mistakes_are_one_line(corpus: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("not a uid\n")
    np.save(tmp_path / "bad.npy", np.arange(3))
    out = ["--out", str(tmp_path / "out")]
    for given, says in (
        (["--select", str(bad)], "is no uid"),
        (["--select", str(tmp_path / "bad.npy")], "u8,u8"),
        (["--select", str(tmp_path / "none.parquet")], "none.parquet"),
        (["--select", str(tmp_path / "x.doc")], "give .txt"),
        (["--sql", "SELECT nonsense"], "--sql"),
        (["--sql", "SELECT 1"], "is no uid"),
    ):
        with pytest.raises(InputError, match=says):
            reshard([str(corpus), *out, *given])
    with pytest.raises(ConfigError, match="not both"):
        reshard([str(corpus), *out, "--select", str(bad), "--sql", "x"])
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="there already"):
        reshard([str(corpus), *out])


@pytest.fixture(scope="module")
def other(sample: ShardsConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of half of the sample's rows, and some rows that no other corpus has."""
    folder = tmp_path_factory.mktemp("other")
    rows = pq.read_table(sample.input[0]).to_pylist()
    fresh = [row | {"text": f"{row['text']} once more"} for row in rows[:60] if row["text"]]
    pq.write_table(pa.Table.from_pylist([*rows[: len(rows) // 2], *fresh]), folder / "m.parquet")
    given = {"corpus": folder / "corpus", "input": [str(folder / "m.parquet")]}
    dedupe = sample.dedupe.model_copy(update={"captions_per_image": 0})
    build(sample.model_copy(update={**given, "dedupe": dedupe}))
    return folder / "corpus"


def test_two_corpora_joined(corpus: Path, other: Path, tmp_path: Path) -> None:
    assert merge([str(other), str(corpus), "--out", str(tmp_path / "all")]) == 0
    assert "sound" in verify(tmp_path / "all")
    first, second, joined = content(other), content(corpus), content(tmp_path / "all")
    assert first.items() <= joined.items()
    assert joined.keys() <= first.keys() | second.keys()
    assert len(joined) > len(first)
    (stage,) = manifest.read(tmp_path / "all").stages
    assert stage["reasons"]["duplicate_pair"] == len(first.keys() & second.keys())
    images = {image for image, _, _ in first.values()}
    added = [joined[uid][0] for uid in joined.keys() - first.keys()]
    assert not images & set(added)
    uids = [sample.meta["uid"] for sample in samples(tmp_path / "all")]
    assert uids == sorted(uids)


def test_shards_that_stand_are_kept(corpus: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    assert merge([str(other), str(corpus), "--out", str(out), "--append"]) == 0
    assert "sound" in verify(out)
    for path in (other / "shards").glob("0*"):
        assert (out / "shards" / path.name).read_bytes() == path.read_bytes()
    assert merge([str(other), str(corpus), "--out", str(tmp_path / "mixed")]) == 0
    assert content(out) == content(tmp_path / "mixed")
    # what was merged can be merged again: now nothing is new
    assert merge([str(out), str(corpus), "--out", str(tmp_path / "again"), "--append"]) == 0
    assert content(tmp_path / "again") == content(out)


def catalogued(corpus: Path, query: str) -> list[Any]:
    with open_catalogue(corpus) as con:
        return con.execute(query).fetchall()


MATCHED = """SELECT pairs.uid, queries.words FROM matches JOIN pairs USING (row)
JOIN queries USING (query_id) WHERE pairs.verdict = 'kept' ORDER BY ALL"""


def test_the_catalogue_follows(corpus: Path, tmp_path: Path) -> None:
    """Queries, matches, words, provenance: as the source has them for the samples taken."""
    sql = r"SELECT uid FROM pairs WHERE regexp_matches(text, '\bcircle\b')"
    out = tmp_path / "out"
    assert reshard([str(corpus), "--out", str(out), "--sql", sql]) == 0
    assert "sound" in verify(out)
    taken = set(content(out))
    assert 10 < len(taken) < len(content(corpus))
    assert {uid for (uid,) in catalogued(out, "SELECT uid FROM pairs")} == taken
    assert catalogued(out, MATCHED) == [
        row for row in catalogued(corpus, MATCHED) if row[0] in taken
    ]
    listed = "SELECT query, words, source, rank, count, score FROM queries ORDER BY query_id"
    assert catalogued(out, listed) == catalogued(corpus, listed)
    urls = {url for (url,) in catalogued(out, "SELECT url FROM pairs")}
    downloads = pq.read_table(out / "provenance.parquet")
    assert set(downloads["url"].to_pylist()) == urls
    assert catalogued(out, "SELECT kept FROM words WHERE word = 'circle'") == [(len(taken),)]
    assert catalogued(out, "SELECT stage, rows_in, rows_out FROM stages") == [
        ("reshard", len(content(corpus)), len(taken))
    ]
    assert report([str(out)]) == 0
    page = (out / "report.html").read_text("utf-8")
    assert "left out: not_selected" in page
    assert manifest.read(corpus).fingerprint in page


def test_query_lists_are_joined(corpus: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    assert merge([str(other), str(corpus), "--out", str(out)]) == 0
    words = "SELECT words FROM queries ORDER BY query_id"
    first, second, joined = (catalogued(at, words) for at in (other, corpus, out))
    assert joined[: len(first)] == first
    assert joined[len(first) :] == [row for row in second if row not in first]
    taken = set(content(out))
    both = {*catalogued(other, MATCHED), *catalogued(corpus, MATCHED)}
    assert set(catalogued(out, MATCHED)) == {row for row in both if row[0] in taken}


def test_the_table_is_that_of_the_picture_taken(corpus: Path, other: Path, tmp_path: Path) -> None:
    """A URL may show something else when it is fetched again; the first corpus' picture stays."""
    again, out = tmp_path / "again", tmp_path / "all"
    assert reshard([str(corpus), "--out", str(again)]) == 0
    with duckdb.connect(str(again / "corpus.duckdb")) as con:
        con.execute("UPDATE pairs SET sha256 = 'of another picture', row = row - 100000")
    assert merge([str(other), str(again), "--out", str(out)]) == 0
    told = dict(catalogued(out, "SELECT uid, sha256 FROM pairs"))
    shared = content(other).keys() & content(again).keys()
    assert {told[uid] for uid in shared} & {"of another picture"} == set()
    assert "of another picture" in {told[uid] for uid in content(out).keys() - shared}


def test_no_build_goes_on_in_one(corpus: Path, sample: ShardsConfig, tmp_path: Path) -> None:
    assert reshard([str(corpus), "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(CorpusError, match="was cut from other corpora"):
        build(sample.model_copy(update={"corpus": tmp_path / "out"}))
    assert "sound" in verify(tmp_path / "out")


def test_who_opted_out_of_one_is_in_none(corpus: Path, other: Path, tmp_path: Path) -> None:
    """Lists are joined, and hold for the samples of every source; later ones can be removed too."""
    mine, theirs, out = tmp_path / "mine", tmp_path / "theirs", tmp_path / "all"
    assert reshard([str(corpus), "--out", str(mine)]) == 0
    assert reshard([str(other), "--out", str(theirs)]) == 0
    shared = sorted(content(mine).keys() & content(theirs).keys())
    remove(mine, parse([shared[0]], "test"))
    assert "sound" in verify(mine)
    assert shared[0] not in content(mine)
    with pytest.raises(InputError, match="wit remove"):
        merge([str(theirs), str(mine), "--out", str(out), "--append"])
    assert merge([str(theirs), str(mine), "--out", str(out)]) == 0
    assert shared[0] not in content(out)
    (stage,) = manifest.read(out).stages
    assert stage["reasons"]["opted_out"] == 1
    assert (out / "optouts.txt").read_text() == f"{shared[0]}\n"
    last = sorted(content(out))[-1]
    remove(out, parse([last], "test"))
    assert "sound" in verify(out)
    assert last not in content(out)
    assert catalogued(out, "SELECT verdict, reason FROM pairs WHERE uid = '" + last + "'") == [
        ("dropped", "opted_out")
    ]
