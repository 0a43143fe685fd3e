"""A bounded folder of files that several processes share."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from train.cache import ShardCache


def writes(text: bytes, calls: list[bytes]) -> Callable[[Path], None]:
    def fetch(path: Path) -> None:
        calls.append(text)
        path.write_bytes(text)

    return fetch


def read(cache: ShardCache, url: str, calls: list[bytes], text: bytes) -> bytes:
    with cache.open(url, writes(text, calls)) as file:
        return file.read()


def test_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    cache, calls = ShardCache(tmp_path, 250), list[bytes]()
    for name in ("a", "b"):
        assert (
            read(cache, f"http://x/{name}.tar", calls, name.encode() * 100) == name.encode() * 100
        )
    read(cache, "http://x/a.tar", calls, b"")
    read(cache, "http://x/c.tar", calls, b"c" * 100)
    kept = sorted(path.name for path in tmp_path.rglob("*.tar"))
    assert kept == ["a.tar", "c.tar"]
    assert len(calls) == 3
    read(cache, "http://x/large.tar", calls, b"l" * 999)  # the one that is asked for stays
    assert [path.name for path in tmp_path.rglob("*.tar")] == ["large.tar"]


def test_a_dropped_file_stays_open_and_a_failed_fetch_leaves_none(tmp_path: Path) -> None:
    cache, calls = ShardCache(tmp_path, 10), list[bytes]()
    with cache.open("u/a.tar", writes(b"a" * 10, calls)) as file:
        read(cache, "u/b.tar", calls, b"b" * 10)
        assert not list(tmp_path.rglob("a.tar"))
        assert file.read() == b"a" * 10

    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("the line went dead")

    with pytest.raises(OSError, match="went dead"):
        cache.local("u/c.tar", fails)
    assert not list(tmp_path.rglob("c.tar"))
    assert read(cache, "u/c.tar", calls, b"whole") == b"whole"


def test_threads_and_processes_fetch_a_file_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from train.cache import ShardCache\n"
        "def fetch(path):\n"
        "    with open(sys.argv[2], 'a') as log: log.write('fetched\\n')\n"
        "    time.sleep(0.3); path.write_bytes(b'x' * 1000)\n"
        "with ShardCache(Path(sys.argv[1]), 10**6).open('u/a.tar', fetch) as f:"
        " sys.exit(f.read() != b'x' * 1000)"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(log)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert log.read_text().splitlines() == ["fetched"]
    cache, calls = ShardCache(tmp_path / "cache", 10**6), list[bytes]()
    threads = [
        threading.Thread(target=read, args=(cache, "u/b.tar", calls, b"b")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [b"b"]
