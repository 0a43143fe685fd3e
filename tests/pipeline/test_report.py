"""`wit report CORPUS`: complete, true to the catalogue, harmless, bounded."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest

from pipeline.catalogue import open_catalogue
from pipeline.config import EngineConfig
from pipeline.report import samples
from pipeline.report.build import SECTIONS
from pipeline.report.source import opened
from wit import manifest
from wit.errors import CorpusError
from wit.report_command import ReportConfig, main

VOID = {"img", "meta", "link", "br", "use", "path"}


class Page(HTMLParser):
    """What a reader depends on: balanced tags, ids, links, alternatives to pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.charts: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"] or "")
        if "href" in given or "xlink:href" in given:
            self.links.append(given.get("href") or given.get("xlink:href") or "")
        if tag == "img":
            assert (given["src"] or "").startswith("data:image/jpeg;base64,")
            self.pictures.append(given["alt"] or "")
        if given.get("role") == "img":
            self.charts.append(given["aria-label"] or "")
        assert not any(name.startswith("on") for name in given)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("img", "meta", "link"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def written(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "page.html"
    assert main([str(corpus), "--out", str(out), "--threads", "1"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]  # nothing else is left
    return out.read_text("utf-8")


def test_the_page_stands_alone(written: str) -> None:
    page = Page(written)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert {name for name, _, _, _ in SECTIONS} <= set(page.ids)
    assert "script" not in page.tags
    assert all(page.pictures)  # each has words for those who can't see it
    assert len(page.pictures) > 60
    assert len(page.charts) == len(set(page.charts)) >= 10
    assert "mathdefault" not in written  # ticks of logarithmic axes
    assert len(written.encode()) < 10_000_000


def test_its_numbers_are_those_of_the_manifest(written: str, corpus: Path) -> None:
    words = Page(written).words
    stages = {stage["name"]: stage for stage in manifest.read(corpus).stages}
    kept, total = (
        stages[name][key] for name, key in (("80_pack", "rows_out"), ("90_pairs", "rows_in"))
    )
    assert f"{kept:,} of {total:,} rows of metadata" in words
    with open_catalogue(corpus) as con:
        for reason, rows in con.execute(
            "SELECT reason, rows FROM reasons WHERE rows > 0"
        ).fetchall():
            assert reason in words
            assert f"{rows:,}" in words
        sizes = con.execute("SELECT sum(urls) FROM domains").fetchall()
    assert sizes[0][0] > 0
    dropped = re.findall(r"<b>dropped</b><img", written)
    assert len(dropped) >= 10  # duplicates stand beside the picture that stayed
    assert "No evaluation set was named" in written


def test_another_seed_shows_other_pairs(written: str, corpus: Path, tmp_path: Path) -> None:
    main([str(corpus), "--out", str(tmp_path), "--seed", "1", "--samples", "3"])
    other = (tmp_path / "report.html").read_text("utf-8")
    assert "<p>3 of " in other
    counted, shown = other.split('<section id="duplicates"')
    assert counted == written.split('<section id="duplicates"')[0]  # the same numbers and charts
    assert shown.split('<section id="sample"')[0] not in written


HOSTILE = {
    "script": "<script>document.title='broken'</script>",
    "image": "\"><img src=x onerror=alert(1)>' onmouseover='x",
    "turned": "innocent \u202egpj.exe and \u2067more\u2069",
    "long": "m" * 5000,
    "entity": "&lt;b&gt; &amp; $\\frac{1}{2}$ {body} {{x}} %s",
}


def test_hostile_words_do_no_harm(corpus: Path, tmp_path: Path) -> None:
    """Everything that comes from outside, in the places where it can stand."""
    mine = tmp_path / "corpus"
    shutil.copytree(corpus, mine)
    with duckdb.connect(str(mine / "corpus.duckdb")) as con:
        for i, text in enumerate(HOSTILE.values()):
            con.execute(
                "UPDATE pairs SET text = $text, domain = $text, license = $text, source = $text"
                " WHERE verdict = 'kept' AND row % 5 = $i", {"text": text, "i": i},
            )  # fmt: skip
            con.execute(
                "UPDATE queries SET query = $text WHERE query_id % 5 = $i", {"text": text, "i": i}
            )
            con.execute("UPDATE domains SET domain = $text || domain WHERE rows % 5 = $i",
                        {"text": text, "i": i})  # fmt: skip
            con.execute("UPDATE duplicates SET text = $text, url = $text WHERE row % 5 = $i",
                        {"text": text, "i": i})  # fmt: skip
    main([str(mine), "--samples", "200"])
    whole = (mine / "report.html").read_text("utf-8")
    page = Page(whole)
    assert page.open == []
    assert "script" not in page.tags
    assert "\u202e" not in whole
    assert "\u2067" not in whole
    assert "⟨U+202E⟩" in whole
    assert "m" * 1001 not in whole
    assert any("document.title='broken'" in word for word in page.words)  # shown as it is
    assert len(whole.encode()) < 10_000_000


def test_overlaps_that_features_found_are_said_to_be_so(corpus: Path, tmp_path: Path) -> None:
    mine = tmp_path / "corpus"
    shutil.copytree(corpus, mine, ignore=shutil.ignore_patterns("stages"))
    with duckdb.connect(str(mine / "corpus.duckdb")) as con:
        con.execute("INSERT INTO eval_overlaps SELECT row, uid, 'cars', 'c7', 'feature', NULL"
                    " FROM pairs WHERE verdict = 'kept' LIMIT 1")  # fmt: skip
    with opened(ReportConfig(paths=[mine]), EngineConfig(threads=1), tmp_path / "x") as source:
        shown = "".join(samples.overlaps(source))
    assert "<small>alike by the features of a model; the pair is kept</small>" in shown


def test_a_corpus_without_its_stages(corpus: Path, tmp_path: Path) -> None:
    """Work tables may be deleted: kept pictures are shown, the others are said to be gone."""
    mine = tmp_path / "corpus"
    shutil.copytree(corpus, mine, ignore=shutil.ignore_patterns("stages", "provenance.parquet"))
    main([str(mine)])
    whole = (mine / "report.html").read_text("utf-8")
    assert "The size against the cap is not drawn: " in whole
    assert "picture not kept" in whole
    assert "provenance.parquet of this corpus is gone" in whole
    assert re.search(r"<b>stays</b><img", whole)


def test_mistakes_are_one_line(corpus: Path, tmp_path: Path) -> None:
    mine = tmp_path / "corpus"
    mine.mkdir()
    (mine / "stages").mkdir()
    with pytest.raises(CorpusError, match="no finished corpus; run `wit shards"):
        main([str(mine)])
    shutil.copy(corpus / "manifest.json", mine)
    with pytest.raises(CorpusError, match="no such catalogue: run `wit shards"):
        main([str(mine)])
    shutil.copy(corpus / "config.json", mine)
    with duckdb.connect(str(mine / "corpus.duckdb")) as con:
        con.execute("CREATE TABLE pairs AS SELECT 1 AS row")
    with pytest.raises(CorpusError, match="of another version: ") as caught:
        main([str(mine)])
    assert "\n" not in str(caught.value)
    assert not (mine / "report.html").exists()
