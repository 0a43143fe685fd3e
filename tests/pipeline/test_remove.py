"""Opt-outs applied to a finished corpus, beside a build that knew of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import catalogue, optout
from pipeline.build import build
from pipeline.removal import remove
from pipeline.remove import main
from pipeline.verify import verify
from wit.errors import ConfigError, InputError, WitError
from wit.shard import read_shard


def samples(corpus: Path) -> dict[str, tuple[str, bytes]]:
    return {
        str(sample.meta["uid"]): (sample.key, sample.image)
        for path in sorted((corpus / "shards").glob("*.tar"))
        for sample in read_shard(path)
    }


def kept(corpus: Path) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(corpus / "pairs").to_pylist() if row["verdict"] == "kept"]


@pytest.fixture(scope="module")
def small(sample: Any, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample in several shards."""
    folder = tmp_path_factory.mktemp("remove") / "corpus"
    shutil.copytree(corpus, folder)
    pack = sample.pack.model_copy(update={"shard_size": 40})
    build(sample.model_copy(update={"corpus": folder, "pack": pack}))
    return folder


def test_removal_equals_a_build_that_knew(small: Path, sample: Any, tmp_path: Path) -> None:
    corpus, again = tmp_path / "corpus", tmp_path / "again"
    shutil.copytree(small, corpus)
    rows = kept(corpus)
    before = samples(corpus)
    domain = rows[0]["domain"]
    by_url = next(row for row in rows if row["domain"] != domain)
    by_uid = next(row for row in reversed(rows) if row["domain"] != domain)
    listed = tmp_path / "list.txt"
    listed.write_text(f"# asked on Tuesday\n{domain}  # all of it\n\n{by_url['url']}\n")
    untouched = {
        path.name: path.stat().st_ino for path in sorted((corpus / "shards").glob("*.tar"))
    }
    assert main([str(corpus), "--file", str(listed), "--entry", by_uid["uid"].upper()]) == 0

    gone = {row["uid"] for row in rows if row["domain"] == domain} | {by_url["uid"], by_uid["uid"]}
    assert "sound" in verify(corpus)
    assert samples(corpus) == {uid: found for uid, found in before.items() if uid not in gone}
    assert {row["uid"] for row in kept(corpus)} == before.keys() - gone
    shards = {row["shard"] for row in rows if row["uid"] in gone}
    rewritten = {
        path.name
        for path in (corpus / "shards").glob("*.tar")
        if path.stat().st_ino != untouched[path.name]
    }
    assert rewritten == shards
    images = [before[uid][1] for uid in gone]
    left = b"".join(p.read_bytes() for p in corpus.rglob("*") if p.is_file())
    assert not any(image in left for image in images)

    # every table of the catalogue but those that name shards is that of a build that knew
    shutil.copytree(small, again)
    shutil.copyfile(corpus / optout.NAME, again / optout.NAME)
    pack = sample.pack.model_copy(update={"shard_size": 40})
    build(sample.model_copy(update={"corpus": again, "pack": pack}))
    digests = []
    for folder in (corpus, again):
        with catalogue.open_catalogue(folder) as con:
            digests.append(catalogue.digest(con))
    for name in set(catalogue.TABLES) - {"pairs", "shards"}:
        assert digests[0][name] == digests[1][name], name
    without = [
        {k: v for k, v in row.items() if k not in ("key", "shard")}
        for folder in (corpus, again)
        for row in pq.read_table(folder / "pairs").to_pylist()
    ]
    assert without[: len(without) // 2] == without[len(without) // 2 :]


def test_a_build_after_a_removal_keeps_to_it(small: Path, sample: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(small, corpus)
    uid = kept(corpus)[5]["uid"]
    remove(corpus, optout.parse([uid], "test"))
    pack = sample.pack.model_copy(update={"shard_size": 40})
    build(sample.model_copy(update={"corpus": corpus, "pack": pack}))
    assert uid not in samples(corpus)
    assert "sound" in verify(corpus)


def test_a_removal_that_was_killed_is_repeated(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [row["uid"] for row in kept(small)[::50]]
    whole = tmp_path / "whole"
    shutil.copytree(small, whole)
    remove(whole, optout.parse(uids, "test"))
    for step in ("_rewrite_attempts", "_update_catalogue", "_write_manifest"):
        corpus = tmp_path / step
        shutil.copytree(small, corpus)

        def killed(*args: Any) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f"pipeline.removal.{step}", killed)
            with pytest.raises(KeyboardInterrupt):
                remove(corpus, optout.parse(uids, "test"))
        with pytest.raises(WitError, match="no manifest"):
            verify(corpus)
        assert main([str(corpus)]) == 0
        assert "sound" in verify(corpus)
        assert samples(corpus) == samples(whole)
        assert (corpus / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


def test_entries() -> None:
    lines = ["Example.ORG", "www.a.test", "http://x.test/#top", "AB" * 16, "ab" * 32, " # only"]
    found = optout.parse(lines, "test").entries
    assert found == {
        ("domain", "example.org"),
        ("domain", "a.test"),
        ("url", "http://x.test/#top"),
        ("uid", "ab" * 16),
        ("sha256", "ab" * 32),
    }
    listed = optout.parse(lines, "test")
    assert listed.forbid("https://sub.example.org/x.jpg")
    assert listed.forbid("http://x.test/#top")
    assert not listed.forbid("https://notexample.org/x.jpg")
    assert not listed.forbid("http://[broken")
    with pytest.raises(InputError, match="test:1: 'what is this'"):
        optout.parse(["what is this"], "test")


def test_nothing_to_remove(small: Path) -> None:
    with pytest.raises(ConfigError, match="give --entry or --file"):
        main([str(small)])
