from __future__ import annotations

import json
from pathlib import Path

import pytest

from wit import manifest
from wit.errors import CorpusError
from wit.manifest import Manifest


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("config.json", "queries.parquet", "pairs/0.parquet", "shards/00000.tar"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content of {name}")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "work.parquet").write_text("may go")
    (tmp_path / "log.jsonl").write_text("timings")
    stages = [{"name": "10_ingest", "rows_in": 3, "rows_out": 2, "reasons": {"no_text": 1}}]
    found = Manifest("f" * 16, {"pillow": "1"}, manifest.scan(tmp_path), stages, {})
    manifest.write(tmp_path, found)
    return tmp_path


def test_it_covers_the_corpus_and_not_the_work(corpus: Path) -> None:
    assert list(manifest.read(corpus).files) == [
        "config.json",
        "pairs/0.parquet",
        "queries.parquet",
        "shards/00000.tar",
    ]
    entry = manifest.read(corpus).files["config.json"]
    assert entry["bytes"] == len("content of config.json")
    assert len(entry["sha256"]) == 64


def test_a_sound_corpus_has_no_problems(corpus: Path) -> None:
    assert manifest.verify(corpus) == []
    (corpus / "stages" / "work.parquet").unlink()
    (corpus / "log.jsonl").write_text("other timings")
    assert manifest.verify(corpus) == []


def test_every_change_is_named(corpus: Path) -> None:
    (corpus / "config.json").unlink()
    (corpus / "pairs" / "0.parquet").write_text("longer than it was before")
    same_length = (corpus / "shards" / "00000.tar").read_text().replace("content", "CONTENT")
    (corpus / "shards" / "00000.tar").write_text(same_length)
    (corpus / "shards" / "00001.tar").write_text("new")
    problems = manifest.verify(corpus)
    assert [Path(p.split(": ")[0]).name for p in problems] == [
        "config.json",
        "0.parquet",
        "00000.tar",
        "00001.tar",
    ]
    for problem, says in zip(
        problems, ("missing", "bytes, not", "sha256 differs", "not in the manifest"), strict=True
    ):
        assert says in problem


def test_no_manifest_or_another_file(corpus: Path) -> None:
    for content in ("not json", "[]", '{"fingerprint": "x"}'):
        (corpus / "manifest.json").write_text(content)
        with pytest.raises(CorpusError, match="not a manifest"):
            manifest.read(corpus)
    (corpus / "manifest.json").unlink()
    (corpus / "manifest.json").mkdir()
    with pytest.raises(CorpusError, match="not a manifest"):
        manifest.read(corpus)
    (corpus / "manifest.json").rmdir()
    with pytest.raises(CorpusError, match="run `wit shards --corpus"):
        manifest.verify(corpus)


GOOD = {"bytes": 3, "sha256": "ab" * 32}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("files", {name: GOOD}) for name in ("../x", "/etc/passwd", "shards/../../x", "x.txt")),
        *(
            ("files", {name: GOOD})
            for name in ("", "shards//x", "shards/.", "pairs/\0", "stages/x")
        ),
        ("files", {"config.json": {**GOOD, "bytes": "3"}}),
        ("files", {"config.json": {**GOOD, "bytes": -1}}),
        ("files", {"config.json": {**GOOD, "bytes": True}}),
        ("files", {"config.json": {**GOOD, "sha256": "ab" * 31 + "\n"}}),
        ("files", {"config.json": {"bytes": 3}}),
        ("files", ["config.json"]),
        ("stages", [{"name": "90_pairs"}]),
        ("stages", "all"),
        ("catalogue", {"pairs": 3}),
        ("fingerprint", None),
        ("versions", {"pillow": 1}),
        ("more", 1),
    ],
)
def test_a_strangers_manifest(corpus: Path, key: str, value: object) -> None:
    path = corpus / "manifest.json"
    plain = {k: v for k, v in json.loads(path.read_bytes()).items() if k != "digest"}
    path.write_text(json.dumps(plain | {key: value}))
    with pytest.raises(CorpusError, match=r"manifest\.json: damaged, or not a manifest") as caught:
        manifest.verify(corpus)
    assert "\n" not in str(caught.value)
    path.write_text("[" * 100_000)
    with pytest.raises(CorpusError, match="not a manifest"):
        manifest.read(corpus)
