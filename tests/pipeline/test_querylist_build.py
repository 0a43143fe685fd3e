"""`wit queries build`: real files of every format, against counting by hand."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import html
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.querylist import count, dump, wordnet
from pipeline.querylist.build import build
from pipeline.querylist.config import BuildConfig
from pipeline.querylist.report import report
from wit.cli import run
from wit.errors import ConfigError, InputError
from wit.text import words

LINES = [f"The '''hot dog''' [[stand|stand]] of street {n}{{{{x}}}}" for n in range(6)]
LINES += ["A dog barks.", "The cat<ref>The dog</ref> sleeps", "Café dog café", "the sleeping dog"]
PLAIN = [f"The hot dog stand of street {n}" for n in range(6)]
PLAIN += ["A dog barks.", "The cat sleeps", "Café dog café", "the sleeping dog"]


def page(number: int, text: str, ns: int = 0, inside: str = "") -> str:
    return (
        f"  <page>\n    <title>T{number}</title>\n    <ns>{ns}</ns>\n{inside}    <revision>\n"
        f'      <text bytes="{len(text)}" xml:space="preserve">{html.escape(text)}</text>\n'
        "    </revision>\n  </page>\n"
    )


def dump_file(path: Path, streams: int) -> Path:
    """LINES as articles, among pages that are none; as `streams` bz2 streams, or plain for 0."""
    pages = [page(n, line) for n, line in enumerate(LINES)]
    pages += [page(90, "unwanted word", ns=10), page(91, "", inside='    <redirect title="A" />\n')]
    head, tail = '<mediawiki version="0.11">\n  <siteinfo></siteinfo>\n', "</mediawiki>\n"
    size = math.ceil(len(pages) / max(streams, 1))
    groups = ["".join(pages[at : at + size]) for at in range(0, len(pages), size)]
    texts = [head + groups[0] + tail] if streams == 1 else [head, *groups, tail]
    data = "".join(texts).encode()
    path.write_bytes(b"".join(bz2.compress(t.encode()) for t in texts) if streams else data)
    return path


def entries(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / "queries.parquet").to_pylist()
    return rows


def sha(output: Path) -> str:
    return hashlib.sha256((output / "queries.parquet").read_bytes()).hexdigest()


Make = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(text=[...], ...)`: the list that a config gives."""

    def made(**settings: Any) -> list[dict[str, Any]]:
        settings = {"output": tmp_path / "out", "engine": {"threads": 1}} | settings
        build(BuildConfig.model_validate(settings))
        return entries(settings["output"])

    return made


def few(**more: Any) -> dict[str, Any]:
    return {"words": {"min_count": 2}, "pairs": {"min_count": 2, "min_pmi": 0.5}, **more}


def by_hand() -> tuple[Counter[str], Counter[str]]:
    lines = [words(line) for line in PLAIN]
    pairs = (f"{a} {b}" for line in lines for a, b in pairwise(line))
    return Counter(word for line in lines for word in line), Counter(pairs)


def test_words_and_pairs_of_a_dump(make: Make, tmp_path: Path) -> None:
    rows = make(text=[dump_file(tmp_path / "a-pages-articles.xml.bz2", 3)], **few())
    single, double = by_hand()
    total = sum(single.values())
    wanted = [(w, n) for w, n in single.items() if n >= 2 and len(w) > 1]
    wanted.sort(key=lambda item: (-item[1], item[0]))
    assert [(r["query"], r["count"]) for r in rows if r["source"] == "words"] == wanted

    def information(pair: str) -> float:
        a, b = pair.split()
        return math.log2(double[pair] * total / single[a] / single[b])

    pairs = [(p, n) for p, n in double.items() if n >= 2 and information(p) >= 0.5]
    pairs.sort(key=lambda item: (-round(information(item[0]), 9), -item[1], item[0]))
    found = [row for row in rows if row["source"] == "pairs"]
    assert [(r["query"], r["count"]) for r in found] == pairs
    assert "hot dog" in dict(pairs)
    for row in found:
        assert row["score"] == pytest.approx(information(row["query"]), abs=6e-4)
    assert [row["rank"] for row in rows] == list(range(len(rows)))


def test_every_format_of_text_gives_the_same_list(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        dump_file(tmp_path / "one.xml.bz2", 1),
        dump_file(tmp_path / "many.xml.bz2", 4),
        dump_file(tmp_path / "plain.xml", 0),
        tmp_path / "t.txt",
        tmp_path / "t.txt.gz",
        tmp_path / "t.txt.bz2",
        tmp_path / "t.parquet",
    ]
    text = "\n".join(PLAIN).encode()
    for path, data in zip(
        files[3:6], (text, gzip.compress(text, mtime=0), bz2.compress(text)), strict=True
    ):
        path.write_bytes(data)
    halves = ["\n".join(PLAIN[:4]), "\n".join(PLAIN[4:])]
    pq.write_table(pa.table({"id": [1, 2], "text": halves}), files[6])
    lists = [make(output=tmp_path / f"out-{p.name}", text=[p], **few()) for p in files]
    monkeypatch.setattr(dump, "PART", 100)  # parts that hold no stream, one, or two
    assert len(dump.parts(files[1])) > 4
    lists.append(make(output=tmp_path / "parts", text=[files[1]], **few()))
    monkeypatch.setattr(count, "BATCH", 20)
    lists.append(make(output=tmp_path / "batches", text=[files[3]], **few()))
    assert all(rows == lists[0] for rows in lists)
    assert len(lists[0]) > 10


def test_a_text_without_lines(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_text(" ".join(PLAIN))
    monkeypatch.setattr(dump, "_READ", 16)
    rows = make(text=[tmp_path / "t.txt"], words={"min_count": 1}, pairs={"min_count": 99})
    single = {word: n for word, n in by_hand()[0].items() if len(word) > 1}
    assert {row["query"]: row["count"] for row in rows} == single


def test_the_bytes_do_not_depend_on_threads(make: Make, tmp_path: Path) -> None:
    files = [dump_file(tmp_path / f"{n}.xml.bz2", n) for n in (1, 2)]
    for threads in (1, 2):
        output = tmp_path / f"out{threads}"
        make(output=output, text=files, engine={"threads": threads}, **few())
    assert sha(tmp_path / "out1") == sha(tmp_path / "out2")
    assert (tmp_path / "out1/config.json").read_bytes() == (
        tmp_path / "out2/config.json"
    ).read_bytes()


def test_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    files = []
    for number in range(4):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text("\n".join(f"{line} {n}" for n in range(1500) for line in PLAIN))
    command = [sys.executable, "-m", "wit.cli", "queries", "build", "--words.min_count", "50"]
    command += [f"--text={path}" for path in files] + ["--engine.threads=2", "--output"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    with subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL) as process:
        while not list(killed.glob("work/text-*/*.txt.00000")):
            time.sleep(0.01)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "config.json").exists()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    assert sha(killed) == sha(whole)
    assert not list(killed.glob("work/**/*.tmp"))


def test_nothing_is_done_twice(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = [dump_file(tmp_path / "a.xml.bz2", 2)]
    make(text=text, **few())
    first, at = sha(tmp_path / "out"), (tmp_path / "out/queries.parquet").stat().st_mtime_ns
    make(text=text, **few())
    assert (tmp_path / "out/queries.parquet").stat().st_mtime_ns == at

    def never(*_: Any) -> Any:
        raise AssertionError("counted again")

    monkeypatch.setattr(count, "lines", never)
    rows = make(text=text, **few(max_queries=3))  # another list of the same counts
    assert [row["query"] for row in rows] == ["dog", "the", "hot"]
    monkeypatch.undo()
    (tmp_path / "out/queries.parquet").write_bytes(b"torn")
    make(text=text, **few())
    assert sha(tmp_path / "out") == first


def test_counted_ngrams(make: Make, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("ngram,freq\nDog,70\ndog,50\nhot,40\nrare,3\n犬,300\n")
    (tmp_path / "2.csv").write_text('ngram,freq\nhot dog,30\ndog hot,2\n"a b c",99\n')
    rows = make(
        counts=[tmp_path / "1.csv", tmp_path / "2.csv"],
        words={"min_count": 10},
        pairs={"min_count": 10, "min_pmi": 0},
    )
    assert [(r["query"], r["source"], r["count"], r["score"]) for r in rows] == [
        ("dog", "words", 120, round(120 / 463 * 1e6, 3)),
        ("hot", "words", 40, round(40 / 463 * 1e6, 3)),
        ("hot dog", "pairs", 30, round(math.log2(30 * 463 / (40 * 120)), 3)),
    ]


def test_titles_by_views(make: Make, tmp_path: Path) -> None:
    hours = tmp_path / "hours"
    hours.mkdir()
    texts = (
        "de Hund 900 0\nen Hot_dog 60 0\nen.m Hot_dog 20 0\nen Rare 49 0\n"
        "en Mercury_(planet) 60 0\nen Star_Wars:_A_New_Hope 75 0\nen Special:Search 999 0\n"
        "en - 999 0\nen Main_Page 9999 0\nen Caf%C3%A9 80 0\nen Bad%FF 80 0\nbroken\n"
        "en.m.d dog 90 0\n",
        "en Hot_dog 10 0\nen Mercury_(element) 55 0\nen Rare 60 0\n",
    )
    for number, text in enumerate(texts):
        with gzip.open(hours / f"pageviews-20260101-0{number}0000.gz", "wt") as file:
            file.write(text)
    rows = make(pageviews=[hours])
    assert [(r["query"], r["source"], r["count"], r["score"]) for r in rows] == [
        ("Mercury", "titles", 115, 115.0),
        ("Bad%FF", "titles", 80, 80.0),
        ("Café", "titles", 80, 80.0),
        ("Hot dog", "titles", 80, 80.0),
    ]
    for name, lines in (
        ("enwiki-all-titles-in-ns0.gz", ["page_title", "Hot_dog", "Star_Wars:_A_New_Hope"]),
        ("all-titles.gz", ["page_namespace\tpage_title", "0\tHot_dog", "1\tMercury_(planet)"]),
    ):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write("\n".join(lines) + "\n")
    listed = make(pageviews=[hours], titles_file=tmp_path / "enwiki-all-titles-in-ns0.gz")
    assert [row["query"] for row in listed] == ["Hot dog", "Star Wars: A New Hope"]
    assert [
        r["query"] for r in make(pageviews=[hours], titles_file=tmp_path / "all-titles.gz")
    ] == ["Hot dog"]


NOUN = """  1 This is a licence
  2 with more than one line
02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 001 @ 02083346 n 0000 | a member
07676602 13 n 04 hotdog 0 hot_dog 0 frank 0 red_hot 1 001 @ 07676602 n 0000 | a smooth sausage
"""
ADJECTIVE = "00001740 00 a 01 galore(ip) 0 001 = 00002312 a 0000 | in great numbers\n"


def test_wordnet(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(NOUN)
    (tmp_path / "data.adj").write_text(ADJECTIVE)
    (tmp_path / "index.noun").write_text("  1 licence\nhot_dog n 3 1 @ 3 1 10187710 10638922 1\n")
    (tmp_path / "lemmas.txt").write_text("Dog\nred fox\ndog\n")
    assert [row["query"] for row in make(wordnet=[tmp_path])] == ["dog", "galore", "hotdog"]
    full = [row["query"] for row in make(wordnet=[tmp_path], synsets={"synonyms": True})]
    assert full == ["Canis familiaris", "dog", "domestic dog", "frank", "galore", "hot dog",
                    "hotdog", "red hot"]  # fmt: skip
    assert [r["query"] for r in make(wordnet=[tmp_path / "index.noun"])] == ["hot dog"]
    rows = make(wordnet=[tmp_path / "lemmas.txt"])
    assert [(r["query"], r["source"], r["count"]) for r in rows] == [
        ("Dog", "wordnet", None),
        ("red fox", "wordnet", None),
    ]


def test_the_order_and_the_budget(make: Make, tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text(
        "ngram,count\nnew,500\nyork,200\nhot,400\ndog,300\nof,900\nthe,990\n"
        "new york,150\nhot dog,120\nof the,300\n"
    )
    (tmp_path / "pageviews-1").write_text(
        "en New_York 900 0\nen Hot_Dog_(film) 800 0\nen Rex 70 0\n"
    )
    (tmp_path / "lemmas.txt").write_text("puppy\nDOG\nhot dog\n")
    (tmp_path / "own.txt").write_text("zebra crossing\nRex\n")
    sources = {
        "counts": [tmp_path / "counts.csv"],
        "pageviews": [tmp_path / "pageviews-1"],
        "wordnet": [tmp_path / "lemmas.txt"],
        "lists": [tmp_path / "own.txt"],
        "pairs": {"min_pmi": -9},
    }

    def listed(size: int) -> list[tuple[str, str]]:
        return [(r["query"], r["source"]) for r in make(max_queries=size, **sources)]

    first = [("zebra crossing", "given"), ("Rex", "given")]
    six = [(word, "words") for word in ("the", "of", "new", "hot", "dog", "york")]
    pairs = [("new york", "pairs"), ("hot dog", "pairs"), ("of the", "pairs")]
    assert listed(100) == [*first, *six, *pairs, ("puppy", "wordnet")]
    # One place short, the pair of least information goes. Two pairs are titles too, so they are
    # as safe as these, which outlast the synsets.
    assert listed(11) == [*first, *six, *pairs[:2], ("puppy", "wordnet")]
    assert listed(10) == [*first, *six, *pairs[:2]]
    assert listed(9) == [*first, *six, pairs[0]]
    assert listed(12)[-4:] == [*pairs, ("puppy", "wordnet")]
    told = json.loads((tmp_path / "out/report.json").read_text())["sources"]
    for row in told:
        out = row["too_many_words"] + row["in_another_source"] + row["over_budget"]
        assert row["offered"] == row["listed"] + out


def test_the_report_counts_captions(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.txt").write_text("dog\nred fox\nzebra\n")
    captions = ["A dog", "a red fox and a DOG", "nothing", None]
    pq.write_table(pa.table({"TEXT": captions}), tmp_path / "captions.parquet")
    make(lists=[tmp_path / "own.txt"], captions=tmp_path / "captions.parquet")
    found = json.loads((tmp_path / "out/report.json").read_text())
    assert found["coverage"] == [
        {"captions": 4, "with_a_query": 2, "percent": 50.0, "queries_each": 0.75}
    ]
    (source,) = found["coverage_by_source"]
    assert (source["matched"], source["match_nothing"], source["captions"]) == (2, 1, 2)
    assert found["match_nothing_for_example"] == [{"source": "given", "query": "zebra", "rank": 2}]
    with duckdb.connect() as con:
        per_query = con.read_parquet(str(tmp_path / "out/coverage.parquet")).fetchall()
    assert per_query == [
        ("dog", "given", 0, 2),
        ("red fox", "given", 1, 1),
        ("zebra", "given", 2, 0),
    ]
    assert "match nothing for example" in capsys.readouterr().out
    (tmp_path / "captions.txt").write_text("a zebra\n")
    output, captions_file = str(tmp_path / "out"), str(tmp_path / "captions.txt")
    assert run(["queries", "report", "--output", output, "--captions", captions_file]) == 0
    assert "zebra" not in capsys.readouterr().out


def test_the_list_goes_into_a_corpus(make: Make, tmp_path: Path, run_until: Any) -> None:
    made = make(text=[dump_file(tmp_path / "a.xml.bz2", 2)], **few())
    tables = run_until(
        "18_queries", [("http://h.example", "a dog")], tmp_path / "out/queries.parquet"
    )
    columns = ("query", "source", "rank", "count", "score")
    found = [{name: row[name] for name in columns} for row in tables("18_queries")]
    assert found == made


def test_without_sources_the_wordnet_of_the_machine(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(wordnet, "_INSTALLED", (str(tmp_path / "wordnet"),))
    with pytest.raises(InputError, match="no source and no WordNet"):
        make()
    (tmp_path / "wordnet").mkdir()
    (tmp_path / "wordnet/data.noun").write_text(NOUN)
    assert [row["query"] for row in make()] == ["dog", "hotdog"]
    assert "no source given: the list is of the names in" in capsys.readouterr().err


BZ2 = bz2.compress(b"x" * 100_000)


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("a.xml.bz2", b"no bz2 at all", "text", "not a bz2 file"),
        ("a.xml.bz2", BZ2[: len(BZ2) // 2], "text", "truncated at byte"),
        ("a.xml.bz2", BZ2[:20] + b"\x00" * 9 + BZ2[29:], "text", "damaged before byte"),
        ("a.xml.bz2", bz2.compress(b"<page> and no end"), "text", "ends within a page"),
        ("a.txt.gz", gzip.compress(b"dog" * 999, mtime=0)[:20], "text", "truncated or damaged"),
        ("a.parquet", b"PAR1", "text", "not readable as Parquet"),
        ("a.doc", b"", "text", "unknown kind of text"),
        ("a.txt", b"!!", "text", "hold no query"),
        ("a.csv", b"a,b\n1,2\n", "counts", "no ngram column among a, b"),
        ("a.csv", b"ngram,count\ndog,many\n", "counts", "a count is no whole number"),
        ("data.noun", b"not a synset\n", "wordnet", "line 1 is no synset"),
        ("a.txt", b"caf\xe9", "wordnet", "not UTF-8"),
        ("a.txt", None, "lists", "no such file"),
    ],
)
def test_bad_sources_are_named(
    make: Make, tmp_path: Path, name: str, content: bytes | None, kind: str, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        make(**{kind: [path]})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/queries.parquet").exists()


def test_titles_without_views_say_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --pageviews too"):
        make(titles_file=tmp_path / "titles.gz")


def test_two_runs_in_one_folder(make: Make, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out").mkdir()
    (tmp_path / "own.txt").write_text("dog\n")
    with (tmp_path / "out/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is at work there"):
            make(lists=[tmp_path / "own.txt"])


def test_a_report_needs_a_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `wit queries build`"):
        report(tmp_path, None, BuildConfig().engine)
    with pytest.raises(ConfigError, match="use build or report"):
        run(["queries", "biuld"])
