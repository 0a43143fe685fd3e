"""Metadata from and corpora to an S3-compatible server of this machine, a web server too."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import remote
from pipeline.build import locked
from pipeline.config import ShardsConfig
from pipeline.verify import main as verify
from wit import manifest
from wit.config import load
from wit.errors import ConfigError, CorpusError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's own
BUCKET = "corpora"


def names(system: Any, folder: str) -> dict[str, bytes]:
    system.invalidate_cache()
    return {path.removeprefix(folder + "/"): system.cat_file(path) for path in system.find(folder)}


def test_a_corpus_goes_up_whole_and_the_manifest_last(
    s3: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/whole"
    sent: list[str] = []
    put = remote.Store.put

    def broken(store: remote.Store, name: str, local: Path, sha256: str) -> None:
        if len(sent) == 5:
            raise OSError("the network is gone")
        put(store, name, local, sha256)
        sent.append(name)

    monkeypatch.setattr(remote, "THREADS", 1)
    monkeypatch.setattr(remote.Store, "put", broken)
    with pytest.raises(CorpusError, match=r"the network is gone: check .* run the same command"):
        remote.upload(corpus, url)
    assert manifest.NAME not in names(s3, f"{BUCKET}/whole")
    with pytest.raises(CorpusError, match="no manifest"):
        remote.verify(url)
    first, sent[:] = list(sent), []
    monkeypatch.setattr(remote.Store, "put", lambda *given: (put(*given), sent.append(given[1])))
    remote.upload(corpus, url)
    assert set(first).isdisjoint(sent)  # it went on where it was
    wanted = {*manifest.read(corpus).files, *remote.BESIDE}
    assert set(first) | set(sent) == wanted
    wanted.add(manifest.NAME)
    found = names(s3, f"{BUCKET}/whole")
    assert found == {name: (corpus / name).read_bytes() for name in wanted}
    assert remote.upload(corpus, url) == f"{url} is up to date"
    assert "sound" in remote.verify(url)
    check_changes(s3, corpus, url)


def check_changes(s3: Any, corpus: Path, url: str) -> None:
    """What changed in the store is found and mended; what is no part of the corpus goes."""
    path = f"{BUCKET}/whole/shards/00000.tar"
    body = bytearray(s3.cat_file(path))
    body[1000] ^= 1
    s3.pipe_file(path, bytes(body))
    with pytest.raises(CorpusError, match=r"shards/00000\.tar: its sha256 differs"):
        verify([url])
    s3.rm_file(f"{BUCKET}/whole/shards/sizes.json")
    s3.pipe_file(f"{BUCKET}/whole/shards/00099.tar", b"of an earlier corpus")
    with pytest.raises(CorpusError, match=r"sizes\.json: missing \(and 2 more\)"):
        verify([url])
    assert "2 of" in remote.upload(corpus, url)
    assert verify([url]) == 0


def test_large_files_have_the_tag_that_parts_get(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHUNK", 5 * 2**20)
    large = tmp_path / "large.tar"
    large.write_bytes(bytes(range(256)) * 46_000)  # over two chunks, so sent in three parts
    store, sha256 = remote.Store(f"s3://{BUCKET}/large"), manifest.sha256_file(large)
    store.put("large.tar", large, sha256)
    assert s3.info(f"{BUCKET}/large/large.tar")["ETag"].strip('"').endswith("-3")
    monkeypatch.setattr(remote.Store, "sha256", None)  # nothing is read back
    assert store.holds("large.tar", large, sha256)
    other = corrupted(large)
    assert not store.holds("large.tar", other, manifest.sha256_file(other))
    with pytest.raises(CorpusError, match=r"large\.other: its sha256 differs from the manifest's"):
        store.holds("large.tar", other, sha256)


def corrupted(path: Path) -> Path:
    other = path.with_suffix(".other")
    shutil.copyfile(path, other)
    with other.open("r+b") as file:
        file.write(b"x")
    return other


def test_a_folder_is_a_store_too(corpus: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/copy"
    remote.upload(corpus, url)
    assert verify([str(tmp_path / "copy")]) == 0
    (tmp_path / "copy" / "config.json").write_bytes(b"{}")
    assert "1 of" in remote.upload(corpus, url)


def stored(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["thesis.txt", "shards/00000.tar", "config.json", "manifest.json"])
def test_what_is_not_of_a_corpus_is_left_as_it_is(corpus: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "home" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"years of work")
    with pytest.raises(CorpusError, match=f"home/{name}: not of a corpus .* another --upload"):
        remote.upload(corpus, f"file://{tmp_path}/home")
    assert stored(tmp_path / "home") == {name: b"years of work"}


def test_a_file_of_ones_own_beside_a_copy_stays(corpus: Path, tmp_path: Path) -> None:
    url, notes = f"file://{tmp_path}/copy", tmp_path / "copy" / "notes" / "mine.txt"
    remote.upload(corpus, url)
    notes.parent.mkdir()
    notes.write_text("mine")
    (tmp_path / "copy" / "config.json").write_bytes(b"{}")
    before = stored(tmp_path / "copy")
    with pytest.raises(CorpusError, match=r"copy/notes/mine\.txt: not of a corpus"):
        remote.upload(corpus, url)
    assert stored(tmp_path / "copy") == before


def test_a_corpus_is_held_while_it_goes_up(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, put = tmp_path / "mine", remote.Store.put
    shutil.copytree(corpus, mine, ignore=shutil.ignore_patterns("stages"))
    whole, refused = (mine / manifest.NAME).read_bytes(), []

    def meanwhile(store: remote.Store, *given: Any) -> None:
        with pytest.raises(CorpusError, match="is building it") as caught, locked(mine):
            pass
        refused.append(caught)
        (mine / manifest.NAME).write_bytes(b"{}")  # of somebody who doesn't ask for the lock
        put(store, *given)

    with pytest.raises(CorpusError, match="is building it"), locked(mine):
        remote.upload(mine, f"file://{tmp_path}/copy")
    monkeypatch.setattr(remote, "THREADS", 1)
    monkeypatch.setattr(remote.Store, "put", meanwhile)
    remote.upload(mine, f"file://{tmp_path}/copy")
    assert refused
    assert (tmp_path / "copy" / manifest.NAME).read_bytes() == whole


def test_no_such_bucket_is_one_line(s3: Any, corpus: Path) -> None:
    with pytest.raises(CorpusError, match=r"s3://nowhere/x: .*check the address, your credentials"):
        remote.upload(corpus, "s3://nowhere/x")
    with pytest.raises(ConfigError, match="give --corpus DIR --upload s3://corpora/x"):
        load(ShardsConfig, ["--corpus", "s3://corpora/x"], prog="wit shards")


def test_metadata_from_s3_and_from_the_web(
    s3: Any, sample: ShardsConfig, tmp_path: Path, run_until: Any
) -> None:
    path = Path(sample.input[0])
    web = f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/in/rows.parquet"  # without credentials
    s3.put_file(str(path), f"{BUCKET}/in/rows.parquet")
    s3.chmod(f"{BUCKET}/in/rows.parquet", "public-read")
    tables = []
    for number, given in enumerate((str(path), f"s3://{BUCKET}/in", web)):
        folder = tmp_path / f"corpus{number}"
        found = run_until("10_ingest", input=[given], corpus=folder)("10_ingest")
        tables.append([{**row, "source": ""} for row in found])
    assert len(tables[0]) > 150
    assert tables[1] == tables[0]
    assert tables[2] == tables[0]
