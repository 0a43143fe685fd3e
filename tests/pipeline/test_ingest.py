"""Metadata of every kind that people have, and what is said about files that are none."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import ShardsConfig
from pipeline.sources import roots, sources
from wit.errors import InputError
from wit.text import rank, uid

URLS = ["http://a.example/1.jpg", "http://b.example/2.jpg"]
TEXTS = ["a red dog", 'a "blue" cat']
PLAIN = list(zip(URLS, TEXTS, strict=True))


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def found(run_until: Any, *inputs: Path) -> list[tuple[str, str]]:
    rows = run_until("10_ingest", input=list(inputs))("10_ingest")
    assert [row["row"] for row in rows] == list(range(len(rows)))
    for row in rows:
        assert row["uid"] == uid(row["url"], row["raw_text"])
        assert row["rank"] == rank(row["uid"])
    return [(row["url"], row["raw_text"]) for row in rows]


def test_laion(run_until: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "laion.parquet", SAMPLE_ID=[1, 2], URL=URLS, TEXT=TEXTS)
    assert found(run_until, path) == PLAIN


def test_datacomp(run_until: Any, tmp_path: Path) -> None:
    ids = ["0" * 32, "1" * 32]
    path = parquet(tmp_path / "dc.parquet", uid=ids, url=URLS, text=TEXTS, sha256=ids)
    assert found(run_until, path) == PLAIN


def test_output_of_img2dataset(run_until: Any, tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "00000.parquet", url=URLS, caption=TEXTS, key=["0", "1"], status=["success"] * 2
    )
    (tmp_path / "00000_stats.json").write_text("{}")
    assert found(run_until, tmp_path) == found(run_until, path) == PLAIN


@pytest.mark.parametrize("header", ["caption\turl\n", "url\tcaption\n", ""])
@pytest.mark.parametrize("url_first", [True, False])
def test_conceptual_captions(run_until: Any, tmp_path: Path, header: str, url_first: bool) -> None:
    if header and header.startswith("url") != url_first:
        header = "\t".join(reversed(header.split())) + "\n"
    lines = [f"{url}\t{text}" if url_first else f"{text}\t{url}" for url, text in PLAIN]
    path = tmp_path / "cc.tsv"
    path.write_text(header + "\n".join(lines) + "\n", "utf-8")
    assert found(run_until, path) == PLAIN


def test_tsv_keeps_lone_quotes_and_short_lines(run_until: Any, tmp_path: Path) -> None:
    path = tmp_path / "cc.tsv"
    path.write_text('5" pipe\thttp://a.example/1\nno url here\n', "utf-8")
    assert found(run_until, path) == [("http://a.example/1", '5" pipe'), (None, "no url here")]


def test_csv_with_quotes_and_newlines(run_until: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("Image_URL", "Alt_Text"), (URLS[0], 'a, "b"\nc'), (URLS[1], "2020")])
    assert found(run_until, path) == [(URLS[0], 'a, "b"\nc'), (URLS[1], "2020")]


def test_compressed_json_lines_whose_captions_look_like_dates(
    run_until: Any, tmp_path: Path
) -> None:
    path = tmp_path / "list.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for url in URLS:
            file.write(json.dumps({"url": url, "caption": "2020-01-01", "other": {"x": 1}}) + "\n")
    assert found(run_until, path) == [(url, "2020-01-01") for url in URLS]


def test_json_array(run_until: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"url": url, "text": text} for url, text in PLAIN]))
    assert found(run_until, path) == PLAIN


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_lists_of_captions_become_rows(run_until: Any, tmp_path: Path, kind: str) -> None:
    path, captions = tmp_path / f"c.{kind}", [["one", "two"], []]
    if kind == "parquet":
        table = pa.table({"url": URLS, "captions": pa.array(captions, pa.list_(pa.string()))})
        pq.write_table(table, path)
    else:
        lines = [json.dumps({"url": u, "captions": c}) for u, c in zip(URLS, captions, strict=True)]
        path.write_text("\n".join(lines))
    # an image without captions stays a row: it leaves with a reason
    assert found(run_until, path) == [(URLS[0], "one"), (URLS[0], "two"), (URLS[1], None)]


def test_nulls_stay_rows(run_until: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "n.parquet", url=[URLS[0], None], text=[None, "a dog"])
    assert found(run_until, path) == [(URLS[0], None), (None, "a dog")]


def test_a_folder_of_images_with_captions(run_until: Any, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "1.jpg").write_bytes(b"not looked at here")
    parquet(folder / "captions.parquet", image=["1.jpg", "2.jpg"], caption=TEXTS)
    tables = run_until("12_urls", input=[folder])
    rows = tables("10_ingest")
    assert [(row["local"], row["url"]) for row in rows] == [
        (True, "images/1.jpg"),
        (True, "images/2.jpg"),
    ]
    assert [(row["domain"], row["reason"]) for row in tables("12_urls")] == [(None, None)] * 2
    assert roots(ShardsConfig(input=[folder])) == {"captions.parquet": folder}


def test_several_files_are_numbered_through(run_until: Any, tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        parquet(tmp_path / part / "part.parquet", url=URLS, text=TEXTS)
    inputs = [tmp_path / "a", tmp_path / "b"]
    assert found(run_until, *inputs) == PLAIN + PLAIN
    assert [s.name for s in sources(ShardsConfig(input=inputs))] == [
        "a/part.parquet",
        "b/part.parquet",
    ]


def test_names_that_look_like_patterns(run_until: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "a[1]*.parquet", url=URLS, text=TEXTS)
    parquet(tmp_path / "a1x.parquet", url=URLS[:1], text=TEXTS[:1])
    assert found(run_until, path) == PLAIN


def test_the_place_of_the_input_does_not_matter(run_until: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "list.parquet", url=URLS, text=TEXTS)
    first = run_until("10_ingest", input=[path])
    moved = shutil.move(
        path, (tmp_path / "elsewhere").mkdir() or tmp_path / "elsewhere" / path.name
    )
    again = run_until("10_ingest", input=[Path(moved)])
    assert first.built() == ["10_ingest"]
    assert again.built() == []


def test_one_changed_byte_is_noticed(run_until: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("url,text\nhttp://x/1,a dog\n")
    run_until("10_ingest", input=[path])
    path.write_text("url,text\nhttp://x/1,a cat\n")
    assert run_until("10_ingest", input=[path])("10_ingest")[0]["raw_text"] == "a cat"


def write_nothing(path: Path) -> None:
    del path


def write_torn_parquet(path: Path) -> None:
    pq.write_table(pa.table({"url": URLS, "text": TEXTS}), path)
    path.write_bytes(path.read_bytes()[:-20])


def write_damaged_parquet(path: Path) -> None:
    pq.write_table(pa.table({"url": URLS, "text": TEXTS}), path, compression="gzip")
    body = bytearray(path.read_bytes())
    body[30:60] = b"\xff" * 30
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.parquet", write_nothing, "no such file"),
        ("torn.parquet", write_torn_parquet, "not readable as parquet"),
        ("damaged.parquet", write_damaged_parquet, "not readable as parquet"),
        ("x.xlsx", b"x", "unknown kind of file"),
        ("x.csv", b"link,text\nhttp://x,hi\n", "no url column among link, text"),
        ("x.csv", b"url,words\nhttp://x,hi\n", "no text column among url, words"),
        ("x.csv", b"url,text\nhttp://x,\xff\xfe\n", "not readable as csv"),
        ("x.tsv", b"one\ntwo\n", "one column only"),
        ("x.tsv", b"one\ttwo\n", "no column holds http URLs"),
        ("x.jsonl", b'{"url": "http://x", "text": 5}\n', "column text is BIGINT"),
        ("x.jsonl", b'{"url": "http://x", "text": "hi"\n', "not readable as jsonl"),
        ("x.jsonl", b'{"url": ["http://x"], "text": "hi"}\n', "column url is VARCHAR[]"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    run_until: Any, tmp_path: Path, name: str, content: Any, says: str
) -> None:
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        run_until("10_ingest", input=[path])
    line = str(caught.value)
    assert says in line
    assert line.startswith(str(path))
    assert "\n" not in line


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"url": [1, 2], "text": TEXTS}, "column url is BIGINT: it must be text"),
        ({"url": URLS, "text": [1.5, 2.5]}, "column text is DOUBLE: it must be text or a list"),
        ({"url": [["a"], ["b"]], "text": TEXTS}, "column url is VARCHAR[]"),
    ],
)
def test_wrong_types_in_parquet(
    run_until: Any, tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    path = parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(InputError, match=says.replace("[", r"\[")):
        run_until("10_ingest", input=[path])


def test_an_empty_folder_and_a_file_named_twice(run_until: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no metadata in this folder"):
        run_until("10_ingest", input=[empty])
    path = parquet(tmp_path / "list.parquet", url=URLS, text=TEXTS)
    with pytest.raises(InputError, match="given twice"):
        run_until("10_ingest", input=[path, path])


def test_urls_that_fsspec_reads(run_until: Any) -> None:
    store = fsspec.filesystem("memory")
    for name in ("b", "a"):
        with store.open(f"/lists/{name}.parquet", "wb") as file:
            table = {"URL": [f"{url}?{name}" for url in URLS], "TEXT": TEXTS, "WIDTH": [640, 480]}
            pq.write_table(pa.table(table), file)
    with store.open("/lists/c.csv", "wb") as file:
        file.write(b"url,text\nhttp://c.example/3.jpg,a third\n")
    expected = [f"{url}?{name}" for name in "ab" for url in URLS]
    try:
        rows = run_until("10_ingest", input=["memory://lists/*.parquet"])("10_ingest")
        assert [row["url"] for row in rows] == expected
        assert [row["declared_width"] for row in rows] == [640, 480] * 2
        assert rows[0]["source"].endswith("/lists/a.parquet")
        again = run_until("10_ingest", input=["memory://lists/*.parquet"])
        assert again.built() == []
        whole = run_until("10_ingest", input=["memory://lists"])("10_ingest")
        assert [row["url"] for row in whole] == [*expected, "http://c.example/3.jpg"]
        with pytest.raises(InputError, match=r"memory://lists/x: no metadata there"):
            run_until("10_ingest", input=["memory://lists/x"])
    finally:
        store.rm("/lists", recursive=True)
    with pytest.raises(InputError, match=r"nothing://x: fsspec can't read this"):
        run_until("10_ingest", input=["nothing://x"])


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_large_files_are_cut_into_parts(run_until: Any, tmp_path: Path, kind: str) -> None:
    urls, texts = [f"http://a.example/{i}" for i in range(10)], [f"text {i}" for i in range(10)]
    path = tmp_path / f"list.{kind}"
    if kind == "parquet":
        captions = pa.array([[text, text + "!"] for text in texts], pa.list_(pa.string()))
        parquet(path, url=urls, captions=captions)
        expected = [text + end for text in texts for end in ("", "!")]
    else:
        path.write_text("url,text\n" + "\n".join(map(",".join, zip(urls, texts, strict=True))))
        expected = texts
    tables = run_until("10_ingest", input=[path], engine={"partition_rows": 4})
    files = sorted(tables.runner.results["10_ingest"].folder.glob("*"))
    assert [file.name for file in files] == [
        *(f"{i:05}.parquet" for i in range(3)),
        "stage.json",
    ]
    rows = tables("10_ingest")
    assert [(row["row"], row["raw_text"]) for row in rows] == list(enumerate(expected))
