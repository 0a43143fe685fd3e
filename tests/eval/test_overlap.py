"""Overlap against scipy and by hand; the command on a real result; the page in a real browser."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom
from sklearn.metrics import f1_score

from eval import overlap
from eval.overlap_labels import Labelling
from eval.run import main
from eval.sets import open_set
from wit.errors import InputError


def test_all_overlap_and_clean_by_hand():
    hit_N = np.array([1, 1, 1, 0, 1, 0, 0, 1, 0, 0], bool)
    overlap_N = np.arange(10) < 4
    label_N = np.array([0, 0, 1, 2, 0, 0, 1, 1, 1, 1])
    found = overlap.analyse(hit_N, overlap_N, label_N)
    assert (found.accuracy_all, found.accuracy_overlap) == (0.5, 0.75)
    assert found.accuracy_clean == pytest.approx(2 / 6)
    assert found.shift == pytest.approx(0.5 - 2 / 6)
    assert found.share == 0.4
    # three or four hits of four, each by chance 1/3
    assert found.p == pytest.approx(binom.sf(2, 4, 1 / 3))
    # classes 0 (1 of 2) and 1 (1 of 4) twice and once; class 2 has no clean image
    assert found.matched == pytest.approx((2 * 1 / 2 + 1 / 4) / 3)


@settings(max_examples=40)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_two_beta_quantiles(proportion):
    hits, n = proportion
    low, high, _ = overlap.clopper_pearson(hits, n)
    assert low == pytest.approx(beta.ppf(0.0025, hits, n - hits + 1) if hits else 0)
    assert high == pytest.approx(beta.ppf(0.9975, hits + 1, n - hits) if hits < n else 1)


@pytest.mark.parametrize("held", [0, 5])
def test_a_set_without_overlap_or_without_clean_images(held):
    hit_N = np.array([True, True, False, True, False])
    found = overlap.analyse(hit_N, np.arange(5) < held, np.zeros(5, np.int64))
    assert (found.p, found.shift, found.matched) == (1, 0, None)
    assert (found.accuracy_overlap is None) == (held == 0)
    assert (found.accuracy_clean is None) == (held == 5)


def test_bonferroni():
    assert overlap.bonferroni(0.01, 35) == pytest.approx(0.35)
    assert overlap.bonferroni(0.2, 35) == 1


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40))
def test_no_threshold_has_a_better_f1(pairs):
    score_J = np.array([score for score, _ in pairs], float)
    same_J = np.array([same for _, same in pairs])
    if same_J.all() or not same_J.any():
        with pytest.raises(ValueError, match="pairs that aren't"):
            overlap.choose_threshold(score_J, same_J)
        return
    found = overlap.choose_threshold(score_J, same_J)
    f1 = {t: f1_score(same_J, score_J >= t) for t in score_J}
    assert f1[found.score] == pytest.approx(max(f1.values()))
    taken = score_J >= found.score
    assert found.precision[0] == pytest.approx(same_J[taken].mean())
    assert found.recall[0] == pytest.approx(taken[same_J].mean())


def test_pairs_to_label_come_from_all_scores():
    score_J = np.concatenate([np.zeros(1000), np.linspace(0.5, 1, 30)])
    chosen = overlap.sample_pairs(score_J, 40, seed=0)
    assert len(set(chosen.tolist())) == 40
    assert (score_J[chosen] >= 0.5).sum() >= 25  # of 3% of all pairs


@pytest.fixture
def pairs(split_set, tmp_path):
    """Half of the test images of the first class are in the corpus: the first three of six."""
    rows = [
        {"set": "walls", "key": sample.key, "match": f"m{i}", "score": 0.9 if i < 3 else 0.2}
        for i, sample in enumerate(open_set(split_set, "test").samples)
    ]
    rows.append(rows[0] | {"match": "worse", "score": 0.1})
    path = tmp_path / "overlaps.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_command_on_a_real_result(run, split_set, pairs, tmp_path, capsys):
    main([f"--run={run}", f"--set={split_set}", "--device=cpu"])
    out = tmp_path / "out"
    arguments = ["overlap", f"--run={run}", f"--out={out}", "--threshold=0.5"]
    arguments.append(f"--thresholds={tmp_path / 'none.json'}")
    assert main([*arguments, f"--overlaps={pairs}"]) == 0
    assert "overlap, in per cent" in capsys.readouterr().out
    found = json.loads((out / "overlap.json").read_text())["walls"]
    rows = pq.read_table(run / "eval" / "walls-zeroshot.parquet")
    hit_N = np.array(rows["rank"]) == 0
    assert (found["images"], found["overlapping"]) == (18, 3)
    assert found["accuracy_overlap"] == pytest.approx(hit_N[:3].mean())
    assert found["accuracy_clean"] == pytest.approx(hit_N[3:].mean())
    page = tmp_path / "report"
    main(["report", str(run), f"--overlap={out / 'overlap.json'}", f"--out={page}"])
    drawn = (page / "report.html").read_text()
    assert "Overlap and accuracy (cf. figure 17)" in drawn
    assert ">walls<" in drawn.split("cf. figure 17")[1]
    # the same from the table of a catalogue
    file = tmp_path / "corpus.duckdb"
    with duckdb.connect(str(file)) as con:
        con.execute(f"""CREATE TABLE "overlaps" AS FROM '{pairs}'""")
    main([*arguments, f"--overlaps={file}"])
    assert json.loads((out / "overlap.json").read_text())["walls"] == found
    # and as `wit shards --dedupe.evaluation` leaves it: bits of 64 instead of a score
    with duckdb.connect(str(file)) as con:
        con.execute(f"""CREATE TABLE eval_overlaps AS
            SELECT set, key, match AS uid, CASE WHEN score >= 0.5 THEN 0 ELSE 40 END AS distance
            FROM '{pairs}'""")
        con.execute('DROP TABLE "overlaps"')
    main([*arguments, f"--overlaps={file}"])
    again = json.loads((out / "overlap.json").read_text())["walls"]
    assert (again["images"], again["overlapping"]) == (18, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["match"]), "no column match"),
        (lambda t: t.set_column(3, "score", [["x"] * len(t)]), "not numbers"),
        (lambda t: t.set_column(1, "key", [["nobody.png"] * len(t)]), "nobody.png is no image"),
        (lambda t: t.set_column(0, "set", [["other"] * len(t)]), "sets: other"),
    ],
)
def test_pairs_are_checked(run, split_set, pairs, tmp_path, change, words):
    main([f"--run={run}", f"--set={split_set}", "--device=cpu"])
    pq.write_table(change(pq.read_table(pairs)), pairs)
    arguments = ["overlap", f"--run={run}", f"--overlaps={pairs}", f"--out={tmp_path}"]
    with pytest.raises(InputError, match=words):
        main([*arguments, "--threshold=0.5"])


def test_a_set_without_a_threshold_says_how_to_get_one(run, split_set, pairs, tmp_path):
    main([f"--run={run}", f"--set={split_set}", "--device=cpu"])
    thresholds = f"--thresholds={tmp_path / 'thresholds.json'}"
    arguments = ["overlap", f"--run={run}", f"--overlaps={pairs}", thresholds]
    with pytest.raises(InputError, match="choose one with --label walls"):
        main(arguments)


@pytest.fixture
def corpus(tmp_path, tar, png):
    """Foreign shards whose keys are the matches."""
    members = []
    for i in range(18):
        members += [(f"m{i}.png", png((10 * i, 90, 90))), (f"m{i}.txt", b"a picture")]
    tar(tmp_path / "tars" / "00000.tar", members)
    return tmp_path / "tars"


def test_labels_survive_and_give_a_threshold(split_set, pairs, corpus, tmp_path):
    table = pq.read_table(pairs).slice(0, 18)
    data, thresholds = open_set(split_set, "test"), tmp_path / "thresholds.json"
    thresholds.write_text('{"other": 0.7}')

    def begin():
        return Labelling(table, data, corpus, tmp_path, thresholds, 18, 0)

    labelling = begin()
    page = labelling.next({})
    for number in range(20):
        if page["done"]:
            break
        if number == 5:
            labelling = begin()  # as after a kill
            assert labelling.next({}) == page
        pair = labelling.pairs[page["id"]]
        assert labelling.picture(f"match-{page['id']}").startswith(b"\x89PNG")
        page = labelling.answer({"id": page["id"], "same": pair["score"] > 0.5})
    assert "precision 100%" in page["result"]
    assert json.loads(thresholds.read_text()) == {"other": 0.7, "walls": 0.9}
    assert labelling.picture("match-99") is labelling.picture("x-1") is None
    for asked in ({"id": 99, "same": True}, {"id": 1, "same": "x"}):
        with pytest.raises(InputError):
            labelling.answer(asked)
    unknown = table.set_column(2, "match", [["nothing"] * 18])
    with pytest.raises(InputError, match="no image nothing"):
        Labelling(unknown, data, corpus, tmp_path, thresholds, 18, 0)


def test_pairs_are_labelled_in_a_real_browser(browser, split_set, pairs, corpus, tmp_path):
    out = tmp_path / "labels"
    command = [sys.executable, "-m", "wit.cli", "eval", "overlap", f"--overlaps={pairs}",
               "--label=walls", f"--set={split_set}", f"--corpus={corpus}", "--pairs=10",
               f"--out={out}", f"--thresholds={out / 'thresholds.json'}"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as server:
        try:
            page = browser.new_page()
            page.goto(server.stdout.readline().removeprefix("open ").strip())
            page.wait_for_selector("body[data-question]")
            for i in range(10):
                before = page.get_attribute("body", "data-question")
                for side in ("#test", "#match"):
                    page.locator(side).evaluate("image => image.decode()")
                if i % 2:
                    page.keyboard.press("d")
                else:
                    page.click("#same")
                page.wait_for_selector(f"body:not([data-question='{before}'])")
            result = page.inner_text("#result")
            page.close()
        finally:
            server.send_signal(signal.SIGKILL)
    assert re.match(r"Threshold 0\.[29], from 10 pairs: precision \d+%", result)
    assert json.loads((out / "thresholds.json").read_text())["walls"] in (0.2, 0.9)
    assert len((out / "walls-labels.jsonl").read_text().splitlines()) == 10
