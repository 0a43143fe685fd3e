"""Input and machines that are not as they should be: one line each, nothing half-written, and the
same command goes through once the cause is gone. Torn files and wrong columns: test_ingest.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit.errors import InputError

URLS = [f"http://h.example/{i}.jpg" for i in range(3)]
TEXTS = ["a red dog", "a dog", "two dogs"]


LIMITED = """
import resource, sys
from pipeline.language import model
from wit.cli import main
model()  # its package unpacks it into a temporary file
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


def start(folder: Path, *args: str, limit: int = 2**40) -> subprocess.Popen[str]:
    """`wit shards` in a process of its own, whose files may have `limit` bytes."""
    return subprocess.Popen(
        [sys.executable, "-c", LIMITED, str(limit), "shards", "--until", "12_urls", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )


def shards(folder: Path, *args: str, limit: int = 2**40) -> tuple[int, str]:
    """The exit code and what was said."""
    with start(folder, *args, limit=limit) as process:
        said = process.communicate(timeout=120)[1]
    return process.returncode, said


def last_line(done: tuple[int, str]) -> str:
    """The message; nothing of a traceback stands before it."""
    code, said = done
    assert code == 2, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


def whole(corpus: Path) -> bool:
    """Whether what stands is whole: no file of a part that was under way, each stage with its
    marker and readable tables."""
    for stage in (corpus / "stages").iterdir():
        if stage.is_dir() and stage.suffix != ".tmp":
            assert (stage / "stage.json").exists()
        if stage.is_dir():
            for table in stage.glob("[!.]*.parquet"):
                pq.read_metadata(table)
    return True


def many(folder: Path, rows: int) -> Path:
    """Metadata whose work tables are large, since nothing in them repeats."""
    urls = [f"http://h{i * 7919 % 10_007}.example/{i * 104_729:x}" for i in range(rows)]
    texts = [f"dog {i * 15_485_863:x} {i * 32_452_843:x}" for i in range(rows)]
    pq.write_table(pa.table({"url": urls, "text": texts}), folder / "many.parquet")
    return folder / "many.parquet"


def test_a_full_disk_and_then_room(tmp_path: Path) -> None:
    """A limit on the size of files: DuckDB and Python are refused as by a disk that is full."""
    path = many(tmp_path, 10_000)
    size = path.stat().st_size
    given = ["--input", str(path), "--corpus", "c", "--text.languages", "[]"]
    said = last_line(shards(tmp_path, *given, limit=size // 2))
    assert said.startswith("wit: ")
    assert "free disk space" in said or "make room" in said
    assert not (tmp_path / "c/stages/10_ingest").exists()
    assert whole(tmp_path / "c")
    code, said = shards(tmp_path, *given)
    assert code == 0, said
    assert whole(tmp_path / "c")
    assert not list((tmp_path / "c/stages").glob("*.tmp"))


def test_too_little_memory_and_then_enough(tmp_path: Path) -> None:
    path = many(tmp_path, 20_000)
    given = ["--input", str(path), "--corpus", "c", "--text.languages", "[]"]
    said = last_line(shards(tmp_path, *given, "--engine.memory_limit", "2MB"))
    assert "raise --engine.memory_limit" in said
    assert whole(tmp_path / "c")
    assert shards(tmp_path, *given)[0] == 0


def test_the_second_run_at_once_is_refused(tmp_path: Path) -> None:
    path = many(tmp_path, 5_000)
    given = ["--input", str(path), "--corpus", "c"]
    first = start(tmp_path, *given, "--until", "15_clean")
    try:
        while not (tmp_path / "c/stages").exists():
            assert first.poll() is None
        first.send_signal(signal.SIGSTOP)  # it is in the middle of it, however quick it is
        said = last_line(shards(tmp_path, *given))
        first.send_signal(signal.SIGCONT)
        assert f"process {first.pid} is building it" in said
        first.communicate(timeout=120)
        assert first.returncode == 0
    finally:
        first.kill()
        first.communicate()
    assert whole(tmp_path / "c")


def test_invalid_utf8_in_parquet(run_until: Any, tmp_path: Path) -> None:
    bad = pa.array([b"a dog", b"\xff\xfe dog"]).view(pa.binary()).cast(pa.string(), safe=False)
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"url": URLS[:2], "text": bad}), path)
    with pytest.raises(InputError, match="write its text as UTF-8") as caught:
        run_until("10_ingest", input=[path])
    assert str(caught.value).startswith(f"{path}: not readable as parquet")
    raw = tmp_path / "raw.parquet"
    pq.write_table(pa.table({"url": URLS, "text": [text.encode() for text in TEXTS]}), raw)
    with pytest.raises(InputError, match="column text is BLOB: it must be text"):
        run_until("10_ingest", input=[raw])


@pytest.mark.parametrize("column", ["width", "similarity", "punsafe"])
def test_a_declared_column_of_the_wrong_type(run_until: Any, tmp_path: Path, column: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"url": URLS, "text": TEXTS, column: [[1], [2], [3]]}), path)
    says = rf"t\.parquet: column {column} is BIGINT\[\]: it must be a number"
    with pytest.raises(InputError, match=says):
        run_until("10_ingest", input=[path])


def test_one_bad_file_of_many_loses_nothing(run_until: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        pq.write_table(pa.table({"url": URLS, "text": TEXTS}), folder / f"{i}.parquet")
    good = (folder / "1.parquet").read_bytes()
    damaged = bytearray(good)
    damaged[20:60] = b"\xff" * 40
    (folder / "1.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match=r"1\.parquet: not readable as parquet"):
        run_until("10_ingest", input=[folder])
    assert not (tmp_path / "corpus/stages/10_ingest").exists()
    (folder / "1.parquet").write_bytes(good)
    rows = run_until("10_ingest", input=[folder])("10_ingest")
    assert [(row["url"], row["raw_text"]) for row in rows] == [*zip(URLS, TEXTS, strict=True)] * 3


def test_nulls_and_words_instead_of_numbers(run_until: Any, tmp_path: Path) -> None:
    columns = {"WIDTH": ["640", "wide", None], "similarity": [None, float("inf"), 0.5]}
    path = tmp_path / "odd.parquet"
    pq.write_table(
        pa.table({"url": [None, *URLS[1:]], "text": [None, *TEXTS[1:]], **columns}), path
    )
    rows = run_until("10_ingest", input=[path])("10_ingest")
    assert [row["declared_width"] for row in rows] == [640, None, None]
    assert [row["similarity"] for row in rows] == [None, None, 0.5]
