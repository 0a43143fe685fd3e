"""Search, filters, free SQL, features, flags and the server of `wit browse`, without a browser."""

import base64
import http.client
import json
import math
import shutil
import struct
import zlib
from collections import Counter
from urllib.parse import urlsplit

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.browse import search, vectors
from eval.browse.command import BrowseConfig, served
from eval.browse.flags import Flags
from eval.browse.nearest import Nearest
from eval.browse.page import Page
from eval.browse.pictures import Pictures
from eval.browse.postings import postings, state_of
from eval.browse.reader import Reader
from pipeline import optout
from pipeline.config import EngineConfig
from pipeline.removal import remove
from pipeline.remove import main as remove_main
from train import load_model
from wit.config import load
from wit.errors import ConfigError, CorpusError, InputError
from wit.image import decode
from wit.text import words

KEPT = [{"column": "verdict", "op": "is", "value": "kept"}]


def config_of(corpus, **values):
    return BrowseConfig(corpus=corpus, **values)


@pytest.fixture(scope="session")
def looked_at(corpus, tmp_path_factory):
    """A copy of the sample's corpus, since indexes are kept beside it."""
    copy = tmp_path_factory.mktemp("browse") / "corpus"
    shutil.copytree(corpus, copy, ignore=shutil.ignore_patterns("stages"))
    return copy


@pytest.fixture(scope="session")
def reader(looked_at):
    index = postings(looked_at, state_of(looked_at), EngineConfig(threads=1))
    opened = Reader(looked_at, index, "1GB", 30.0)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def rows(looked_at):
    return pq.read_table(looked_at / "pairs").to_pylist()


@pytest.fixture(scope="session")
def checkpoint(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("browse") / "run")


@pytest.fixture
def page(gallery, tmp_path):
    """A page of a copy of the gallery."""
    copy = tmp_path / "corpus"
    shutil.copytree(gallery, copy, ignore=shutil.ignore_patterns("stages"))
    index = postings(copy, state_of(copy), EngineConfig(threads=1))
    opened = Reader(copy, index, "1GB", 30.0)
    yield Page(copy, opened, Flags(copy / "flagged.txt", copy))
    opened.close()


@pytest.mark.parametrize(
    "text", ["red circle", "square", "a star.", "Shapes", "zzz", "the-red", ""]
)
def test_words_find_what_a_look_at_every_caption_finds(reader, rows, text):
    wanted = set(words(text))
    expected = {row["row"] for row in rows if wanted <= set(words(row["text"] or ""))}
    found, total = reader.find(text, [], [], 10_000, 0)
    assert total == len(expected)
    assert set(found) == expected
    assert reader.find(text, [], [], 5, 3)[0] == found[3:8]


def test_the_best_captions_by_bm25_come_first(reader, rows):
    listed = {row["row"]: words(row["text"] or "") for row in rows}
    bags = {row: Counter(found) for row, found in listed.items()}
    postings_of = sum(len(bag) for bag in bags.values())
    mean = sum(len(listed[row]) for row, bag in bags.items() for _ in bag) / postings_of

    def score(row, terms):
        total = 0.0
        for term in terms:
            holders = sum(term in bag for bag in bags.values())
            rarity = math.log(1 + (len(rows) - holders + 0.5) / (holders + 0.5))
            length = search.K1 * (1 - search.B + search.B * len(listed[row]) / mean)
            times = bags[row][term]
            total += rarity * times * (search.K1 + 1) / (times + length)
        return total

    found, _ = reader.find("red circle", [], [], 200, 0)
    scores = [score(row, ["red", "circle"]) for row in found]
    assert len(found) > 5
    assert scores == pytest.approx(sorted(scores, reverse=True))
    assert scores[0] > scores[-1]


def test_prefixes_phrases_and_scripts_without_spaces(page):
    def captions(text):
        return [card["text"] for card in page.search({"text": text, "filters": KEPT})["pairs"]]

    assert len(captions("umbrella")) == 2
    assert len(captions("umbrel*")) == 3
    assert captions('"umbrella in a picture"')[0].startswith("a planted umbrella")
    assert captions('"picture umbrella"') == []
    assert captions("\u4f1e") == ["picture \u96e8\u4f1e umbrella"]
    assert captions("UMBRELLA planted") == ["a planted umbrella in a picture by the sea, a picture"]


@given(st.text(max_size=60))
def test_any_text_can_be_searched_for(text):
    try:
        found = search.terms(text)
    except InputError:
        return
    assert all(low <= high for low, high in found.ranges)
    query = search.filters(
        [{"column": "text", "op": "contains", "value": text}], {"text": "VARCHAR"}
    )
    best, count = search.ranked(found, query)
    marked = {low for low, _ in found.ranges} | set(found.pieces) | {text}
    assert not any(len(word) > 9 and word in best + count for word in marked)  # only parameters


@pytest.mark.parametrize(
    ("column", "op", "value", "holds"),
    [
        ("reason", "is", "language", lambda row: row["reason"] == "language"),
        ("verdict", "is not", "kept", lambda row: row["verdict"] != "kept"),
        ("domain", "contains", "SCHOOL", lambda row: "school" in (row["domain"] or "")),
        ("width", "at least", "90", lambda row: (row["width"] or 0) >= 90),
        ("row", "at most", "77", lambda row: row["row"] <= 77),
        ("phash", "is empty", "", lambda row: row["phash"] is None),
        ("duplicate_of", "is not empty", "", lambda row: row["duplicate_of"] is not None),
    ],
)  # fmt: skip
def test_filters(reader, rows, column, op, value, holds):
    asked = [{"column": column, "op": op, "value": value}]
    found, total = reader.find("", asked, ["row"], 10_000, 0)
    assert found == [row["row"] for row in rows if holds(row)]
    assert 0 < total == len(found) < len(rows)


def test_filters_by_query_and_order(reader, rows, looked_at):
    with duckdb.connect(str(looked_at / "corpus.duckdb"), read_only=True) as con:
        expected = con.execute("""SELECT row FROM matches JOIN queries USING (query_id)
            WHERE query = 'red circle' ORDER BY row""").fetchall()
    asked = [{"column": "query", "op": "is", "value": "red circle"}]
    assert reader.find("", asked, ["row"], 10_000, 0)[0] == [row for (row,) in expected]
    widths = [rows[row]["width"] for row in reader.find("", KEPT, ["-width"], 50, 0)[0]]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([{"column": "nobody", "op": "is", "value": "x"}], "there is no filter nobody"),
        ([{"column": "text; DROP TABLE pairs", "op": "is", "value": "x"}], "there is no filter"),
        ([{"column": "row", "op": "is", "value": "x"}], "whole number"),
        ([{"column": "row", "op": "like", "value": "1"}], "there is no filter row like"),
        ([{"column": "phash", "op": "is", "value": "9" * 60}], "phash|range|Conversion"),
        ("all of it", "a list"),
        ([3], "a column, an op and a value"),
        (KEPT * 20, "at most"),
    ],
)
def test_filters_that_are_none(reader, asked, words):
    with pytest.raises(InputError, match=words):
        reader.find("", asked, [], 10, 0)


def test_sql_reads_and_does_nothing_else(reader, looked_at, tmp_path):
    answer = reader.sql("SELECT count(*) AS n, repeat('x', 9000) AS long FROM pairs", 10)
    assert answer["columns"] == ["n", "long"]
    assert answer["rows"][0][0] == reader.counts["rows"]
    assert len(answer["rows"][0][1]) == 2001
    assert reader.sql("SELECT * FROM range(100)", 7)["more"]
    assert len(reader.sql("DESCRIBE pairs", 100)["rows"]) == len(reader.columns)
    big = reader.sql("SELECT rank, [1, 2], {'a': 1.5}, 'nan'::DOUBLE FROM pairs LIMIT 1", 1)
    assert json.dumps(big)  # every value is one of JSON's
    before = (looked_at / "corpus.duckdb").read_bytes()
    written = tmp_path / "out"
    for query in (
        "DELETE FROM pairs",
        "UPDATE pairs SET text = ''",
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        f"COPY pairs TO '{written}'",
        f"ATTACH '{written}'",
        f"EXPORT DATABASE '{written}'",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        f"SELECT * FROM read_parquet('{looked_at}/pairs/*.parquet')",
        "FROM sniff_csv('/etc/passwd')",
        "SELECT nothing FROM pairs",
        "SELEC 1",
    ):
        with pytest.raises(InputError) as caught:
            reader.sql(query, 10)
        assert "\n" not in str(caught.value)
    assert not written.exists()
    assert (looked_at / "corpus.duckdb").read_bytes() == before


def test_sql_that_takes_too_long_or_too_much_is_stopped(looked_at):
    index = postings(looked_at, state_of(looked_at), EngineConfig(threads=1))
    quick = Reader(looked_at, index, "100MB", 600.0)
    try:
        quick.seconds = 0.2
        with pytest.raises(InputError, match=r"stopped after 0\.2 seconds"):
            quick.sql("SELECT sum(a.range) FROM range(1000000) a, range(1000000) b", 1)
        quick.seconds = 600.0
        with pytest.raises(InputError, match=r"(?i)memory"):
            quick.sql("SELECT list(range) FROM range(100000000)", 1)
        assert quick.sql("SELECT 1", 1)["rows"] == [[1]]
    finally:
        quick.close()


def test_postings_are_made_once_for_each_corpus(looked_at, reader, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(looked_at, copy)
    state = state_of(copy)
    (first,) = copy.glob("browse/words-*.duckdb")
    made = first.stat().st_mtime_ns
    (copy / "browse" / "words-old-1.1.duckdb").write_bytes(b"of an older corpus")
    first.with_suffix(".tmp").write_bytes(b"of a run that was killed")
    assert postings(copy, state, EngineConfig(threads=1)) == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in (copy / "browse").iterdir()] == [first.name]
    other = postings(copy, "another", EngineConfig(threads=1))
    assert list((copy / "browse").iterdir()) == [other]


def test_pictures_are_those_of_the_tars(looked_at, rows):
    pictures = Pictures(looked_at)
    for row in [row for row in rows if row["key"]][::40]:
        width, height = decode(pictures.read(row["key"]), 10**7).size
        assert (width, height) == (row["width"], row["height"])
    for name in ("", "x", "../../manifest.json", "000000000.jpg", "\u00e9", "999999999"):
        assert pictures.read(name) is None


def test_a_pair_with_all_that_is_known(page, reader, rows):
    chosen = [row for row in rows if row["duplicate_of"]][:3] + rows[::300]
    for row in chosen:
        found = reader.pair(row["row"])
        assert found["pair"]["uid"] == row["uid"]
        assert (found["kept"] is not None) == (row["duplicate_of"] is not None)
        if found["kept"]:
            assert found["kept"]["uid"] == row["duplicate_of"]
            assert row["row"] in [one["row"] for one in reader.pair(found["kept"]["row"])["gone"]]
    fetched = [reader.pair(row["row"])["fetched"] for row in rows if row["key"]][:3]
    assert all(one["http_status"] == 200 and one["fetched_at"] for one in fetched)
    with pytest.raises(InputError, match="no row 99999"):
        reader.pair(99999)
    twice = next(c for c in page.search({"text": "again"})["pairs"] if c["verdict"] == "dropped")
    told = page.pair({"row": twice["row"]})
    assert told["why"]["reason"] in ("duplicate_image", "near_duplicate_image")
    assert told["why"]["stage"] == "70_images"
    assert told["kept"]["text"] == "a picture of a red boat"


def clustered(n, width, seed=0):
    """Features of length 1 around a few centres, as those of pictures are."""
    rng = np.random.default_rng(seed)
    centre_CE = rng.normal(size=(40, width))
    found_NE = centre_CE[rng.integers(0, 40, n)] + 0.4 * rng.normal(size=(n, width))
    return (found_NE / np.linalg.norm(found_NE, axis=1, keepdims=True)).astype(np.float32)


def write_parts(folder, feature_NE, part=700):
    folder.mkdir()
    for number, start in enumerate(range(0, len(feature_NE), part)):
        piece = feature_NE[start : start + part]
        np.save(folder / f"{number:05d}.npy", piece.astype(np.float16))
        keys = [f"{i:09d}" for i in range(start, start + len(piece))]
        pq.write_table(vectors.pa.table({"key": keys}), folder / f"{number:05d}.parquet")


@pytest.mark.parametrize("exact", [10_000, 100])
def test_the_nearest_are_those_of_a_comparison_with_all(tmp_path, monkeypatch, exact):
    if exact == 100:
        pytest.importorskip("faiss", reason="needs the extra browse")
    monkeypatch.setattr(vectors, "EXACT", exact)
    monkeypatch.setattr(vectors, "PROBES", 16)
    feature_NE = clustered(3000, 16)
    write_parts(tmp_path / "images", feature_NE)
    stored_NE = feature_NE.astype(np.float16).astype(np.float32)
    found = vectors.Vectors(tmp_path / "images")
    assert found.key_N[2345] == "000002345"
    assert np.array_equal(found.take(np.array([2999, 0, 701])), stored_NE[[2999, 0, 701]])
    few_N, many_N = np.arange(3000) % 50 == 0, np.arange(3000) % 2 == 0
    hits = 0
    for query_E in clustered(20, 16, seed=1):
        for allowed_N in (None, few_N, many_N):
            masked_N = stored_NE @ query_E
            masked_N = masked_N if allowed_N is None else np.where(allowed_N, masked_N, -2)
            place_K, cosine_K = found.nearest(query_E, 10, allowed_N)
            assert list(cosine_K) == sorted(cosine_K, reverse=True)
            assert np.allclose(cosine_K, masked_N[place_K], atol=1e-5)  # no approximate cosine
            hits += len(set(place_K) & set(np.argsort(-masked_N)[:10]))
    assert hits >= (600 if exact == 10_000 else 570)
    files = {path.name for path in (tmp_path / "images").iterdir()}
    assert ("ivf.faiss" in files) == (exact == 100)
    assert not any(name.endswith(".tmp") for name in files)
    if exact == 100:
        made = (tmp_path / "images" / "ivf.faiss").stat().st_mtime_ns
        again = vectors.Vectors(tmp_path / "images").nearest(query_E, 10, None)
        assert np.array_equal(again[0], found.nearest(query_E, 10, None)[0])
        assert (tmp_path / "images" / "ivf.faiss").stat().st_mtime_ns == made


def nearest_of(page, checkpoint, state=None):
    model = load_model(checkpoint)
    options = {"model": checkpoint, "batch_size": 8, "threads": 1, "max_pixels": 10**6}
    parts = (page.corpus, state or state_of(page.corpus), page.reader, page.pictures)
    page.nearest = Nearest(model, "run", *parts, options, 10**6)
    return page.nearest


def encoded(data):
    return base64.b64encode(data).decode()


def test_search_by_text_picture_and_pair(page, checkpoint, png, capsys):
    stale = page.corpus / "browse" / "features-0123-4567"
    stale.mkdir()
    model = nearest_of(page, checkpoint).model
    assert not stale.exists()
    kept = [row for row in pq.read_table(page.corpus / "pairs").to_pylist() if row["key"]]
    pixels = [model.preprocess(decode(page.picture(row["key"]), 10**6))[None] for row in kept]
    image_NE = np.concatenate([model.encode_image(p, normalize=True).numpy() for p in pixels])
    captions = model.tokenize([row["text"] for row in kept])
    text_NE = model.encode_text(captions, normalize=True).numpy()

    def expect(asked, feature_NE, query_E, filters=()):
        found = page.search({**asked, "filters": list(filters)})["pairs"]
        scores = feature_NE @ query_E
        best = sorted(range(len(kept)), key=lambda i: -scores[i])
        if filters:
            best = [i for i in best if "umbrella" in kept[i]["text"]]
        shown = {row["row"]: scores[i] for i, row in enumerate(kept)}
        assert [card["cosine"] for card in found] == pytest.approx(
            [scores[i] for i in best], abs=2e-3
        )
        for card in found:
            assert card["cosine"] == pytest.approx(shown[card["row"]], abs=2e-3)

    query_E = model.encode_text(model.tokenize(["a boat"]), normalize=True).numpy()[0]
    expect({"mode": "text", "text": "a boat"}, image_NE, query_E)
    named = [{"column": "text", "op": "contains", "value": "umbrella"}]
    expect({"mode": "text", "text": "a boat"}, image_NE, query_E, named)
    expect({"mode": "like", "key": kept[3]["key"]}, image_NE, image_NE[3])
    expect({"mode": "like", "key": kept[3]["key"], "target": "captions"}, text_NE, image_NE[3])
    expect({"mode": "like", "key": kept[3]["key"], "by": "caption"}, image_NE, text_NE[3])
    drop = {"mode": "image", "picture": encoded(page.picture(kept[5]["key"]))}
    expect(drop, image_NE, image_NE[5])
    expect({**drop, "target": "captions"}, text_NE, image_NE[5])
    capsys.readouterr()
    nearest_of(page, checkpoint)  # features are there: nothing is embedded again
    assert "embed" not in capsys.readouterr().err


def bomb():
    """A PNG of a few bytes that declares 60,000 by 60,000 pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_labels_for_a_picture(page, checkpoint, png):
    nearest_of(page, checkpoint)
    asked = {"picture": encoded(png((230, 20, 20))), "labels": ["red", " green", "red"]}
    answer = page.classify({**asked, "template": "a {c} picture"})
    assert {one["label"] for one in answer["labels"]} == {"red", "green"}
    assert sum(one["probability"] for one in answer["labels"]) == pytest.approx(1)
    assert answer["labels"][0]["probability"] >= answer["labels"][1]["probability"]
    good = {"template": "{c}", **asked}
    for change, said in (
        ({"picture": encoded(bomb())}, "more pixels than the cap"),
        ({"picture": encoded(b"<svg onload=alert(1)>")}, "can't decode|not an image"),
        ({"picture": encoded(png((1, 2, 3))[:60])}, "cut off or damaged"),
        ({"picture": encoded(b"\x89PNG" + bytes(1_000_001))}, "more than 1,000,000 bytes"),
        ({"picture": "%%%"}, "did not arrive whole"),
        ({"picture": ""}, "drop a picture"),
        ({"labels": ["one"]}, "2 to 100"),
        ({"labels": [f"{i}" for i in range(101)]}, "2 to 100"),
        ({"labels": "red"}, "a list"),
        ({"template": "no place"}, "write {c}"),
    ):
        with pytest.raises(InputError, match=said):
            page.classify({**good, **change})


def test_without_a_model_the_page_says_what_it_needs(page):
    assert page.about({})["checkpoint"] is None
    for action, asked in (
        (page.search, {"mode": "text", "text": "x"}),
        (page.classify, {"labels": []}),
    ):
        with pytest.raises(InputError, match="--checkpoint RUN"):
            action(asked)


def test_flags_stay_and_remove_takes_the_list(page, capsys):
    planted = page.search({"text": "planted umbrella"})["pairs"][0]
    path = page.corpus / "flagged.txt"
    page.flag({"value": planted["uid"], "on": True})
    page.flag({"value": "example.org", "on": True})
    path.write_text(path.read_text() + "# by hand\nexample.net  # asked on Tuesday\n")
    again = Flags(path, page.corpus)  # as after a restart
    assert again.entries == {
        ("uid", planted["uid"]),
        ("domain", "example.org"),
        ("domain", "example.net"),
    }
    page.flags = again
    page.flag({"value": "example.org", "on": False})
    assert "asked on Tuesday" in path.read_text()
    assert page.flagged({})["others"] == ["example.net"]
    assert [card["row"] for card in page.flagged({})["pairs"]] == [planted["row"]]
    command = page.flagged({})["command"].split()
    assert command[:2] == ["wit", "remove"]
    for value in ("", "x\ny", "no such kind of thing", "example.org # and more", 3):
        with pytest.raises(InputError):
            page.flag({"value": value})
    assert remove_main(command[2:]) == 0
    assert "1 pairs removed" in capsys.readouterr().out
    assert not (page.corpus / "browse").exists()  # features of removed pictures go too
    rows = {row["uid"]: row for row in pq.read_table(page.corpus / "pairs").to_pylist()}
    assert rows[planted["uid"]]["reason"] == "opted_out"
    with pytest.raises(InputError, match="the corpus has changed"):
        page.actions()["search"]({"text": ""})


def test_why_not(page):
    kept = page.why({"text": "a picture of a\tlighthouse "})
    assert kept["cleaned"] == "a picture of a lighthouse"
    assert [one["why"]["verdict"] for one in kept["found"]] == ["kept"]
    twice = page.why({"text": "the same boat again, a picture"})["found"][0]
    assert twice["kept"]["text"] == "a picture of a red boat"
    named = page.why({"text": "IMG_2034.JPG"})["found"][0]["why"]
    assert (named["stage"], named["reason"]) == ("30_filter", "file_name")
    assert named["limits"] == {"text.file_names": "false"}
    by_path = page.why({"url": "q0.png"})["found"]
    assert [one["pair"]["text"] for one in by_path] == ["a picture of a lighthouse"]
    small = page.why({"text": "too small a picture"})["found"][0]["why"]
    assert small["measured"] == "20 × 20 pixels"
    assert small["limits"] == {"image.min_side": "100"}
    never = page.why({"url": "https://nowhere.example/a.svg"})
    assert never["found"] == []
    assert never["verdict"]["reason"] == "url_extension"
    with pytest.raises(InputError, match="paste an address"):
        page.why({"url": " ", "text": ""})


def request(address, method, path, body=None, **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    connection.request(method, path, body, {n.replace("_", "-"): v for n, v in headers.items()})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def enter(address, **headers):
    reply, _ = request(address, "GET", f"/?{urlsplit(address).query}", **headers)
    return reply.headers["Set-Cookie"].split(";")[0]


def test_the_page_and_nothing_else_is_served(gallery, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(gallery, copy, ignore=shutil.ignore_patterns("stages"))
    with served(config_of(copy)) as address, served(config_of(copy)) as second:
        assert address.startswith("http://127.0.0.1:")
        cookie = enter(address)
        assert cookie.split("=")[0] != enter(second).split("=")[0]  # two pages in one browser
        json_type = {"Content_Type": "application/json", "Cookie": cookie}
        for path, kind in (
            ("/", "text/html"),
            ("/page.js", "text/javascript"),
            ("/browse.css", "text/css"),
        ):
            reply, content = request(address, "GET", path, Cookie=cookie)
            assert (reply.status, reply.headers.get_content_type()) == (200, kind)
            assert b"innerHTML" not in content
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        _, content = request(address, "POST", "/search", '{"text": "lighthouse"}', **json_type)
        (pair,) = json.loads(content)["pairs"]
        reply, content = request(address, "GET", f"/picture/{pair['key']}", Cookie=cookie)
        assert (reply.headers.get_content_type(), content[:2]) == ("image/jpeg", b"\xff\xd8")
        picture = f"/picture/{pair['key']}"
        for path in (
            *(
                "/../server.py",
                "/server.py",
                "/manifest.json",
                "/overlap.js",
                "/browse-../server.py",
            ),
            *("/picture/", "/picture/../manifest.json", "/picture/%2e%2e%2fmanifest.json"),
            *("/picture//etc/passwd", f"{picture}/..", f"{picture}.jpg"),
        ):
            assert request(address, "GET", path, Cookie=cookie)[0].status == 404, path
        for method, path in (("GET", "/"), ("GET", picture), ("POST", "/search")):
            assert request(address, method, path, "{}")[0].status == 403
        reply, content = request(address, "POST", "/search", '{"offset": -1}', **json_type)
        assert (reply.status, json.loads(content)["error"][:7]) == (400, "offset:")
        reply, _ = request(address, "POST", "/search", " " * 300_000, **json_type)
        assert reply.status == 413


def test_bound_elsewhere_a_token_lets_in_and_a_strangers_name_does_not(gallery, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(gallery, copy, ignore=shutil.ignore_patterns("stages"))
    with served(config_of(copy, host="0.0.0.0")) as address:
        port = urlsplit(address).port
        assert "token=" in address
        assert "0.0.0.0" not in address
        for host in (f"127.0.0.1:{port}", f"192.168.7.7:{port}", urlsplit(address).netloc):
            assert request(address, "GET", "/", Host=host)[0].status == 403
            cookie = enter(address, Host=host)
            assert request(address, "GET", "/", Host=host, Cookie=cookie)[0].status == 200
        for host in (
            f"evil.example:{port}",
            "evil.example",
            f"127.0.0.1:{port + 1}",
            "[::1",
            "x:y:z",
        ):
            assert request(address, "GET", "/", Host=host, Cookie=cookie)[0].status == 421
        post = {"Cookie": cookie, "Content_Type": "application/json", "Host": f"127.0.0.1:{port}"}
        stranger = request(address, "POST", "/about", "{}", Origin="http://evil.example", **post)
        assert stranger[0].status == 403
        assert request(address, "POST", "/about", "{}", **post)[0].status == 200


def test_settings_that_can_not_be(tmp_path, gallery):
    with pytest.raises(ConfigError, match="must be an address"):
        load(BrowseConfig, ["--host", "localhost"], prog="wit browse")
    with pytest.raises(CorpusError, match="no manifest"), served(config_of(tmp_path)):
        pass
    listed = tmp_path / "flags.txt"
    listed.write_text("what is this\n")
    with (
        pytest.raises(InputError, match="mend that line"),
        served(config_of(gallery, flags=listed)),
    ):
        pass


def test_a_removal_takes_the_features_along(page, checkpoint):
    nearest_of(page, checkpoint)
    uid = page.search({"text": "lighthouse"})["pairs"][0]["uid"]
    assert list((page.corpus / "browse").glob("features-*"))
    remove(page.corpus, optout.parse([uid], "test"))
    assert not (page.corpus / "browse").exists()
