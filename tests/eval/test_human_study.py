"""Who is asked what, the page's server, and a whole study in a real browser."""

import http.client
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.human_study import Study
from eval.pages.journal import Journal
from eval.pages.server import serve
from eval.run import main
from eval.sets import open_set
from wit.errors import InputError


@pytest.fixture
def data(split_set):
    return open_set(split_set, "test", ("train",))


def right_answer(study, question):
    """Looks up what the page is not told."""
    return study.pending[question]["label"]


def work(study, person, said):
    """Answers everything; returns the questions."""
    page, seen = study.next({"person": person}), []
    while not page["done"]:
        seen.append(page)
        answer = said(page, study.pending[person])
        page = study.answer(
            {"person": person, "id": page["id"], "said": answer, "seconds": 1.5}
        )  # fmt: skip
    return seen


def test_everyone_is_asked_every_picture_in_three_rounds(data, tmp_path):
    study = Study(data, tmp_path, people=2, check_every=5)
    seen = work(study, "ann", lambda page, open_: open_["label"])
    pictures = [page for page in seen if page["check"] is None]
    assert [page["shots"] for page in pictures] == [0] * 18 + [1] * 18 + [2] * 18
    assert len({(page["shots"], page["picture"]) for page in pictures}) == 54
    assert sum(page["check"] is not None for page in seen) == 9  # three in each round
    assert all(len(s) == page["shots"] for page in pictures for s in page["samples"])
    work(study, "bob", lambda page, _: None)
    assert work(study, "eve", lambda page, _: 0) == []  # two people were enough


def test_pictures_that_were_begun_are_finished_first(data, tmp_path):
    study = Study(data, tmp_path, people=2, most=4, check_every=100)
    first = {p["picture"] for p in work(study, "ann", lambda *_: 0) if p["shots"] == 0}
    second = {p["picture"] for p in work(study, "bob", lambda *_: 0) if p["shots"] == 0}
    assert first == second
    assert len(first) == 4


def test_the_page_is_not_told_the_answer(data, tmp_path):
    study = Study(data, tmp_path)
    page = study.next({"person": "ann"})
    assert not re.search(r"red/|green/|blue/|label|key", json.dumps(page))
    assert study.picture(page["picture"]).startswith(b"\x89PNG")
    assert study.picture("../../etc/passwd") is None


def test_samples_without_a_training_split_are_never_asked(class_folder, tmp_path):
    study = Study(open_set(class_folder), tmp_path, people=1)
    helping = {sample.key for samples in study.help for sample in samples}
    assert len(helping) == 6
    work(study, "ann", lambda *_: 0)
    assert not helping & {row["key"] for row in study.journal.rows}


def test_a_killed_study_goes_on_where_it_was(data, tmp_path):
    study = Study(data, tmp_path, people=1, check_every=100)
    page = study.next({"person": "ann"})
    study.answer({"person": "ann", "id": page["id"], "said": 1, "seconds": 1})
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"person": "ann", "sh')  # cut off by the kill
    again = Study(data, tmp_path, people=1, check_every=100)
    assert len(again.journal.rows) == 1
    left = work(again, "ann", lambda *_: 0)
    assert page["picture"] not in {p["picture"] for p in left if p["shots"] == 0}
    assert len(Journal(tmp_path / "answers.jsonl").rows) == 54
    with pytest.raises(InputError, match="another --out"):
        Study(data, tmp_path, people=3, check_every=100)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"person": ""}, "a name of 1 to 64"),
        ({"person": 3}, "a name of 1 to 64"),
        ({"person": "ann", "id": "0-1", "said": 0, "seconds": 1}, "not open any more"),
        ({"person": "ann", "said": 3, "seconds": 1}, "3 is no class"),
        ({"person": "ann", "said": True, "seconds": 1}, "True is no class"),
        ({"person": "ann", "said": 1, "seconds": "x"}, "must be a number"),
    ],
)
def test_what_a_page_can_not_say(data, tmp_path, asked, words):
    study = Study(data, tmp_path)
    page = study.next({"person": "ann"})
    with pytest.raises(InputError, match=words):
        study.answer({"id": page["id"]} | asked)
    assert study.journal.rows == []


def request(address, method, path, body=None, **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def test_the_server_lets_nobody_else_in(data, tmp_path):
    study = Study(data, tmp_path)
    with serve("human", {"next": study.next}, study.picture) as address:
        token = urlsplit(address).query.removeprefix("token=")
        host = urlsplit(address).netloc
        enter, _ = request(address, "GET", f"/?token={token}")
        cookie = enter.headers["Set-Cookie"].split(";")[0]
        assert "HttpOnly" in enter.headers["Set-Cookie"]
        page, content = request(address, "GET", "/", Cookie=cookie)
        assert page.status == 200
        assert b"<script src=" in content
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        json_type = {"Content_Type": "application/json"}
        post, _ = request(address, "POST", "/next", '{"person": "a"}', Cookie=cookie, **json_type)
        assert post.status == 200
        refused = [
            (403, "GET", "/", None, {}),
            (403, "GET", "/?token=wrong", None, {}),
            (403, "GET", "/", None, {"Cookie": "wit=wrong"}),
            (421, "GET", "/", None, {"Cookie": cookie, "Host": "evil.example"}),
            (421, "POST", "/next", "{}", {"Cookie": cookie, "Host": "evil.example"}),
            (403, "POST", "/next", "{}", {"Cookie": cookie, "Origin": "http://evil.example"}),
            (403, "POST", "/next", "{}", {**json_type}),
            (415, "POST", "/next", "{}", {"Cookie": cookie, "Content_Type": "text/plain"}),
            (413, "POST", "/next", "x" * 70_000, {"Cookie": cookie, **json_type}),
            (400, "POST", "/next", "{", {"Cookie": cookie, **json_type}),
            (400, "POST", "/next", "[]", {"Cookie": cookie, **json_type}),
            (404, "POST", "/other", "{}", {"Cookie": cookie, **json_type}),
            (404, "GET", "/../server.py", None, {"Cookie": cookie}),
            (404, "GET", "/picture/../../x", None, {"Cookie": cookie}),
        ]
        for status, method, path, body, headers in refused:
            reply, _ = request(address, method, path, body, **headers)
            assert (reply.status, path) == (status, path)
            assert host
        picture = study.next({"person": "a"})["picture"]
        reply, content = request(address, "GET", f"/picture/{picture}", Cookie=cookie)
        assert content.startswith(b"\xff\xd8")  # a JPEG of our own, whatever was in the file
    for line in page.headers["Content-Security-Policy"], content[:0].decode():
        assert "unsafe" not in line


def test_people_beside_a_model(data, split_set, run, tmp_path, capsys):
    """Everybody names reds, half know greens, nobody blues; the model has its own accuracies."""
    out = tmp_path / "study"
    with pytest.raises(InputError, match="no answers yet"):
        main(["human", f"--set={split_set}", f"--out={out}", "--analyse"])
    study = Study(data, out)
    red, green = data.classes.index("red"), data.classes.index("green")
    knows = {"ann": {red, green}, "bob": {red}}
    for person, classes in knows.items():
        work(study, person, lambda _, q, known=classes: q["label"] if q["label"] in known else None)
    main([f"--run={run}", f"--set={split_set}", "--device=cpu"])
    model = run / "eval" / "walls-zeroshot.parquet"
    arguments = ["human", f"--set={split_set}", f"--out={out}", "--analyse"]
    assert main([*arguments, f"--model={model}"]) == 0
    shown = capsys.readouterr().out
    kept = json.loads((out / "human.json").read_text())["rounds"]["2"]
    assert kept["by_class"] == {"red": 1.0, "green": 0.5, "blue": 0.0}
    assert kept["accuracy"]["value"] == pytest.approx(0.5)
    assert kept["accuracy on guesses"]["value"] == 1
    assert (kept["answers"], kept["people"]) == (36, 2)
    rows = pq.read_table(model).to_pandas()
    people = [kept["by_class"][name] for name in data.classes]
    by_class = rows.groupby("label")["probability"].mean()
    expected = np.corrcoef(by_class, people)[0, 1]
    hardness = kept["hardness"]["probability of the right class"]
    assert hardness["pearson"] == pytest.approx(expected)
    assert "the model's probability of the right class: r" in " ".join(shown.split())
    by_rank = (rows["rank"] == 0).groupby(rows["label"]).mean()
    hardness = kept["hardness"]["accuracy"]
    if by_rank.nunique() > 1:
        assert hardness["pearson"] == pytest.approx(np.corrcoef(by_rank, people)[0, 1])
    else:
        assert "three classes that differ" in hardness
    page = tmp_path / "report"
    main(["report", str(run), f"--human={out / 'human.json'}", f"--out={page}"])
    drawn = (page / "report.html").read_text()
    assert "People and a model by class (cf. figure 16)" in drawn
    assert f"people, 2 sample pictures: r {expected:.2f}" in drawn
    with pytest.raises(InputError, match="has no rounds"):
        main(["report", str(run), f"--human={out / 'study.json'}", f"--out={page}"])
    with pytest.raises(InputError, match="can't be read"):
        main([*arguments, "--model=none.parquet"])


def test_a_study_in_a_real_browser(browser, split_set, tmp_path, capsys):
    """The command serves; a person answers by clicking; a kill loses nothing; numbers come out."""
    out = tmp_path / "study"
    arguments = [f"--set={split_set}", f"--out={out}", "--most=3", "--check_every=2"]
    command = [sys.executable, "-m", "wit.cli", "eval", "human", *arguments]
    errors = []

    def answer(address, answers):
        page = browser.new_context().new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text)
                if message.type == "error" else None)  # fmt: skip
        page.goto(address)
        page.fill("#person", "ann")
        page.click("text=Begin")
        for _ in range(answers):
            page.wait_for_selector("#choices button")
            before = page.get_attribute("body", "data-question")
            if page.is_visible("#check"):
                name = page.inner_text("#check").split('"')[1]
                page.click(f"#choices button:has-text('{name}')")
            elif page.evaluate("question.shots") == 0:
                page.click("#unknown")
            else:
                shown = page.locator("#choices img").count()
                assert shown == 3 * page.evaluate("question.shots")
                page.locator("#picture").evaluate("image => image.decode()")
                page.click("#choices button >> nth=0")
            page.wait_for_selector(f"body:not([data-question='{before}'])")
        return page.is_visible("#end")

    def visit(answers):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        ) as server:
            try:
                return answer(server.stdout.readline().removeprefix("open ").strip(), answers)
            finally:
                server.send_signal(signal.SIGKILL)

    assert not visit(2)
    assert visit(2 + 4 + 4)  # three pictures in each round, a check after the second
    assert errors == []
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    pictures = [row for row in rows if not row["check"]]
    assert [row["shots"] for row in pictures] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(rows) == 9 + 3
    assert all(row["said"] == row["label"] for row in rows if row["check"])
    assert [row["said"] for row in pictures[:3]] == [None] * 3
    assert {row["said"] for row in pictures[3:]} == {0}  # the first in the alphabet
    assert main(["human", *arguments, "--analyse"]) == 0
    assert "people, in per cent" in capsys.readouterr().out
    kept = json.loads((out / "human.json").read_text())
    assert kept["rounds"]["0"]["accuracy"]["value"] == 0
