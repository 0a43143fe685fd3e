"""Shards behind URLs: a real HTTP server with ranges, and fsspec's own file systems."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from train import sources
from train.captions import Captions
from train.data import Loader
from train.dist import World
from train.pairs import BadSamples, Pairs
from wit.errors import CorpusError, InputError
from wit.tokenizer import Tokenizer

BAD = BadSamples(0, print)
ROOM = 1 << 30


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "PAUSE", 0.01)


@dataclass
class Server:
    """A web server of one folder that answers ranges, and fails as often as it is told to."""

    url: str
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and range
    failures: int = 0


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        self.state.asked.append((self.path, self.headers.get("Range", "")))
        if self.state.failures:
            self.state.failures -= 1
            self.send_error(503)
            return
        path = Path(self.translate_path(self.path))
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not found or not path.is_file():
            super().do_GET()
            return
        data, (first, last) = path.read_bytes(), map(int, found.groups())
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(data[first : last + 1])))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(corpus: Path) -> Iterator[Server]:
    state = Server("")
    handler = type("Bound", (Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(corpus))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield state
        http.shutdown()
        thread.join()


def same(pairs: Pairs, corpus: Path) -> None:
    here = Pairs(corpus, BAD)
    assert pairs.digest() == here.digest()
    assert all(pairs.read(i) == here.read(i) for i in range(len(here)))


def test_shards_that_fit_are_fetched_once_and_whole(server: Server, corpus: Path, tmp_path) -> None:
    pairs = Pairs(server.url, BAD, None, tmp_path / "shards", ROOM)
    same(pairs, corpus)
    assert pairs.file(30) == f"{server.url}/shards/00001.tar"
    tars = [path for path, _ in server.asked if path.endswith(".tar")]
    again = len(server.asked)
    same(Pairs(server.url, BAD, None, tmp_path / "shards", ROOM), corpus)
    assert {path for path, _ in server.asked[again:]} <= {"/shards/index.parquet"}
    assert set(tars) == {"/shards/00000.tar", "/shards/00001.tar"}


def test_shards_that_do_not_fit_are_asked_for_by_range(server: Server, corpus, tmp_path) -> None:
    same(Pairs(server.url, BAD, None, tmp_path / "shards", 1), corpus)
    ranges = [asked for path, asked in server.asked if path.endswith(".tar")]
    assert len(ranges) == 48
    assert all(ranges)
    assert not list((tmp_path / "shards").rglob("*.tar"))


def test_tars_without_an_index_are_named_in_braces_and_indexed_once(server, corpus, tmp_path):
    url = f"{server.url}/shards/{{00000..00001}}.tar"
    pairs = Pairs(url, BAD, None, tmp_path / "shards", ROOM)
    here = Pairs(corpus, BAD)
    assert [pairs.read(i) for i in range(48)] == [here.read(i) for i in range(48)]
    seen = len([path for path, _ in server.asked if path.endswith(".tar")])
    Pairs(url, BAD, None, tmp_path / "other", ROOM)
    later = [asked for path, asked in server.asked[seen:] if path.endswith(".tar") and asked]
    assert not later


def test_a_failing_server_is_asked_again_and_a_dead_one_named(server, corpus, tmp_path) -> None:
    pairs = Pairs(server.url, BAD, None, tmp_path / "shards", 1)
    server.failures = 2
    assert pairs.read(0) == Pairs(corpus, BAD).read(0)
    server.failures = 99
    with pytest.raises(CorpusError, match=r"00000\.tar: can't be read: .*; try again later"):
        pairs.read(0)
    server.failures = 0
    with pytest.raises(CorpusError, match="no such file"):
        Pairs(f"{server.url}/shards/00007.tar", BAD, None, tmp_path / "shards", 1)
    with pytest.raises(InputError, match="no shards here"):
        Pairs(f"{server.url}/absent", BAD, None, tmp_path / "shards", 1)


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_other_file_systems(protocol: str, corpus: Path, tmp_path: Path) -> None:
    url = f"file://{corpus}"
    if protocol == "memory":
        url = "memory://corpus"
        there = fsspec.filesystem("memory")
        for path in (corpus / "shards").iterdir():
            there.pipe(f"/corpus/shards/{path.name}", path.read_bytes())
    for room in (1, ROOM):
        same(Pairs(url, BAD, None, tmp_path / f"shards{room}", room), corpus)
    with pytest.raises(InputError, match="no shards here"):
        Pairs(f"{url}/absent", BAD, None, tmp_path / "shards", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's own
def test_shards_in_a_bucket(s3: Any, corpus: Path, tmp_path: Path) -> None:
    """Whole into the cache, or by range, with the index or without."""
    for path in (corpus / "shards").iterdir():
        s3.pipe_file(f"corpora/small/shards/{path.name}", path.read_bytes())
    for room in (1, ROOM):
        same(Pairs("s3://corpora/small", BAD, None, tmp_path / f"shards{room}", room), corpus)
    assert len(list((tmp_path / f"shards{ROOM}").rglob("*.tar*"))) == 2
    tars = "s3://corpora/small/shards/{00000..00001}.tar"
    pairs, here = Pairs(tars, BAD, None, tmp_path / "tars", ROOM), Pairs(corpus, BAD)
    assert [pairs.read(i) for i in range(48)] == [here.read(i) for i in range(48)]
    with pytest.raises(InputError, match="no shards here"):
        Pairs("s3://corpora/absent", BAD, None, tmp_path / "shards", 1)


def test_batches_from_a_url_are_those_of_the_folder(server, make_config, corpus, tmp_path) -> None:
    def batches(name: str) -> list[torch.Tensor]:
        config = make_config(corpus=name, data__cache_mb=0, data__connections=7)
        pairs = Pairs(name, BAD, None, tmp_path / "shards", 1)
        captions = Captions(Tokenizer.train(Pairs(corpus, BAD).texts(BAD), 600), 16)
        loader = Loader(pairs, captions, config, BAD, World(0, 1, torch.device("cpu")))
        return [part for b in loader.batches(0, 5) for part in (b.img_bCSS, b.tokens_bL)]

    pairs = zip(batches(server.url), batches(str(corpus)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(InputError, match="gopher"):
        Pairs("gopher://host/corpus", BAD)
