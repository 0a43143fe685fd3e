"""Malformed lines of the sources: counted, shown, and refused where they are many."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.querylist import lines
from pipeline.querylist.build import build
from pipeline.querylist.config import BuildConfig
from pipeline.querylist.lines import Numbered, Tally
from wit.errors import InputError

from .test_querylist_build import entries, page

HOUR = (
    b"en Dog 90 0\nen \xff\xfe 60 0\nen Cat\nde X 3 0\n\nen Cow many 0\nen Emu 70\r\nen A B 7 0\n"
)
MALFORMED = 4  # of 7 lines; the first is the second


def made(folder: Path, **config: Any) -> list[dict[str, Any]]:
    """The lines of the report of a list."""
    given_ = {"output": folder / "out", "engine": {"threads": 1}, "words": {"min_count": 1}}
    build(BuildConfig.model_validate({**given_, "max_malformed": 1, **config}))
    found: list[dict[str, Any]] = json.loads((folder / "out/report.json").read_text())["lines"]
    return found


def test_pageviews(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        (tmp_path / f"pageviews-{number}.gz").write_bytes(gzip.compress(HOUR, mtime=0))
    (tmp_path / "pageviews-2").write_bytes(b"en Dog 90 0\n")
    (row,) = made(tmp_path, pageviews=[tmp_path])
    assert row == {
        "source": "pageviews",
        "files": 3,
        "lines": 2 * 7 + 1,
        "malformed": 2 * MALFORMED,
        "first": "pageviews-0.gz, line 2: 'en �� 60 0\\n'",
    }
    assert [r["query"] for r in entries(tmp_path / "out")] == ["Dog", "Emu"]
    assert "pageviews-0.gz, line 2" in capsys.readouterr().out
    # what was counted stays, and what it says of lines too
    assert made(tmp_path, pageviews=[tmp_path], max_queries=1) == [row]


def test_too_many_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pageviews-1"
    path.write_bytes(HOUR)
    with pytest.raises(InputError) as caught:
        made(tmp_path, pageviews=[path], max_malformed=0.5)
    assert str(caught.value) == (
        f"{path}: 4 of 7 lines are malformed, more than max_malformed = 0.5; line 2:"
        " 'en �� 60 0\\n': get the file again, or raise --max_malformed"
    )
    assert not (tmp_path / "out/queries.parquet").exists()
    with pytest.raises(InputError, match="4 of 7 lines"):  # also now that they are counted
        made(tmp_path, pageviews=[path], max_malformed=0.5)
    assert made(tmp_path, pageviews=[path], max_malformed=0.6)


@pytest.mark.parametrize("cut", [5, 40, -4])
def test_a_file_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "pageviews-1.gz"
    path.write_bytes(gzip.compress(HOUR * 50, mtime=0)[:cut])
    with pytest.raises(InputError, match=r"pageviews-1\.gz: truncated or damaged") as caught:
        made(tmp_path, pageviews=[path])
    assert "\n" not in str(caught.value)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_LONGEST", 1000)
    path = tmp_path / "pageviews-1.gz"
    path.write_bytes(gzip.compress(b"en Dog 90 0\n" + bytes(100_000), mtime=0))
    with pytest.raises(InputError, match="line 2 does not end"):
        made(tmp_path, pageviews=[path])


@pytest.mark.parametrize(
    ("source", "name", "content", "expected"),
    [
        ("text", "a.txt", b"a dog\n\ncaf\xe9\nthe end", (3, 1, "line 3: 'caf�\\n'")),
        (
            "text",
            "a.xml.bz2",
            bz2.compress(
                (page(1, "a dog") + page(2, "").replace("<text", "<tx")).encode()
                + b"<page><ns>0</ns><text>caf\xe9</text></page>"
            ),
            (3, 2, "'<page>\\n    <title>T2</title>\\n    <ns>0</ns>\\n"),
        ),
        ("counts", "a.csv", b"ngram,count\ndog,9\n,5\ncat,-1\nfox,\n", (4, 3, "line 2: '5'")),
        (
            "wordnet",
            "index.noun",
            b"  1 licence\ndog n 7 5\nhot_dog\n",
            (2, 1, "line 3: 'hot_dog'"),
        ),
        ("wordnet", "lemmas.txt", b"dog\nred fox\n", (2, 0, "")),
        ("lists", "own.txt", b"dog\nred fox\n", (2, 0, "")),
    ],
)
def test_every_other_source(
    tmp_path: Path, source: str, name: str, content: bytes, expected: tuple[int, int, str]
) -> None:
    (tmp_path / name).write_bytes(content)
    (row,) = made(tmp_path, **{source: [tmp_path / name]})
    counts, first = expected[:2], expected[2] and f"{name}, {expected[2]}"
    assert (row["source"], row["files"]) == (source, 1)
    assert (row["lines"], row["malformed"]) == counts
    assert row["first"].startswith(first) if first else row["first"] == ""


def test_nulls_of_tables(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a dog", None]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"query": ["fox", None, "cat"]}), tmp_path / "own.parquet")
    rows = made(tmp_path, text=[tmp_path / "text.parquet"], lists=[tmp_path / "own.parquet"])
    assert [(r["source"], r["lines"], r["malformed"], r["first"]) for r in rows] == [
        ("text", 2, 1, "text.parquet, line 2: 'null'"),
        ("lists", 3, 1, "own.parquet, line 2: ''"),
    ]


def test_all_titles(tmp_path: Path) -> None:
    (tmp_path / "pageviews-1").write_text("en Dog 90 0\nen Red_fox 80 0\nen Talk 80 0\n")
    titles = tmp_path / "titles.gz"
    for content, counts in (
        (b"page_title\nDog\nRed_fox\n", (3, 0)),
        (b"page_namespace\tpage_title\n0\tDog\n1\tTalk\n0\tRed_fox\nx\tDog\n0\tA\tB\n", (6, 2)),
        (b"Dog\nRed fox\n\xff\nRed_fox\n", (4, 2)),
    ):
        titles.write_bytes(gzip.compress(content, mtime=0))
        given_ = {"pageviews": [tmp_path / "pageviews-1"], "titles_file": titles}
        row = made(tmp_path, **given_)[1]
        assert (row["source"], row["lines"], row["malformed"]) == ("titles_file", *counts)
        assert [r["query"] for r in entries(tmp_path / "out")] == ["Dog", "Red fox"]


@given(
    st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"")), max_size=40),
    st.booleans(),
    st.integers(1, 50),
)
@settings(deadline=None)
def test_lines_are_numbered(
    tmp_path_factory: pytest.TempPathFactory, given_: list[bytes], ended: bool, read: int
) -> None:
    """As Python splits the file, whatever is read at a time."""
    data = b"\n".join(given_) + (b"\n" if ended else b"")
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_READ", read)
        table = Numbered(path).reader().read_all()
    wanted = data.split(b"\n")[: None if data and not data.endswith(b"\n") else -1]
    assert table["number"].to_pylist() == list(range(1, len(wanted) + 1))
    assert [line.removesuffix(b"\n") for line in table["line"].to_pylist()] == wanted


def test_a_tally_keeps_the_first() -> None:
    tally = Tally()
    for number, good in enumerate((True, False, True, False), 1):
        tally.add(f"line\n{number}", good, number)
    assert (tally.lines, tally.malformed) == (4, 2)
    assert tally.shown() == r"line 2: 'line\n2'"
    long = Tally()
    long.add("x" * 999, False, 1)
    assert len(long.shown()) < 100
    none = lines.by_source([("text", "a", Tally(2)), ("text", "b", tally), ("lists", "c", Tally())])
    assert none == [
        {
            "source": "text",
            "files": 2,
            "lines": 6,
            "malformed": 2,
            "first": r"b, line 2: 'line\n2'",
        },
        {"source": "lists", "files": 1, "lines": 0, "malformed": 0, "first": ""},
    ]
