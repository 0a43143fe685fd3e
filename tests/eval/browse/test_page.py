"""A pair and why it is there, flags, and what the page says without a model."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow.parquet as pq
import pytest

from eval.browse.flags import Flags
from eval.browse.pictures import Pictures
from eval.browse.reader import Reader
from pipeline.remove import main as remove_main
from wit.errors import InputError
from wit.image import decode


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
    fetched = [reader.fetched(row["url"]) for row in rows if row["key"]][:3]
    assert all(one["http_status"] == 200 and one["fetched_at"] for one in fetched)
    with pytest.raises(InputError, match="no row 99999"):
        reader.pair(99999)
    twice = next(c for c in page.search({"text": "again"})["pairs"] if c["verdict"] == "dropped")
    told = page.pair({"row": twice["row"]})
    assert told["why"]["reason"] in ("duplicate_image", "near_duplicate_image")
    assert told["why"]["stage"] == "70_images"
    assert told["kept"]["text"] == "a picture of a red boat"


def test_a_pair_that_features_found_in_an_evaluation_set(looked_at, reader, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(looked_at, copy)
    with duckdb.connect(str(copy / "corpus.duckdb")) as con:
        con.execute("INSERT INTO eval_overlaps VALUES (3, 'x', 'cars', 'c7', 'feature', NULL)")
    opened = Reader(copy, next(copy.glob("browse/words-*.duckdb")), "1GB", 30.0)
    (overlap,) = opened.pair(3)["overlaps"]
    opened.close()
    assert overlap["words"] == "alike by the features of a model"


def test_the_provenance_is_read_for_one_pair_alone(page, monkeypatch):
    asked = []
    monkeypatch.setattr(page.reader, "fetched", lambda url: asked.append(url) or {"bytes": 3})
    found = page.why({"text": "a picture of a red boat"})["found"]
    assert (len(found), asked) == (1, [])
    assert page.pair({"row": found[0]["pair"]["row"]})["fetched"] == {"bytes": 3}
    assert asked == [found[0]["pair"]["url"]]


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


def test_two_pages_write_one_list(page):
    path, uids = page.corpus / "flagged.txt", [f"{i:032x}" for i in range(24)]
    other = Flags(path, page.corpus)
    page.flag({"value": "example.org"})
    other.set("example.net", True)
    assert page.flag({"value": "example.org", "on": False})["flags"] == 1
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(one.set, uid, True) for uid in uids for one in (page.flags, other)]
    assert [future.result() for future in both] == [None] * 48
    found = Flags(path, page.corpus).entries
    assert found == {("domain", "example.net"), *(("uid", uid) for uid in uids)}


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
