"""Draws, curves and what they say, and the probes' tasks from the command line on."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from eval import fewshot
from eval.fewshot import effective_shots
from eval.probe import Held, Labelled
from eval.run import main
from wit.errors import ConfigError, InputError


@given(seed=st.integers(0, 99), shots=st.integers(1, 5))
def test_a_draw_has_as_many_of_each_class_and_is_nested(seed, shots):
    label_N = np.random.default_rng(1).permutation(np.repeat(np.arange(4), [9, 7, 6, 30]))
    fewer, more = (set(fewshot.draw(label_N, k, seed).tolist()) for k in (shots, shots + 1))
    assert np.bincount(label_N[list(fewer)]).tolist() == [shots] * 4
    assert fewer < more


def test_draws_differ_by_seed_and_only_by_seed():
    label_N = np.repeat(np.arange(5), 50)
    first, again, other = (fewshot.draw(label_N, 4, seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(InputError, match="class 1 has 2 training images, too few for 3 shots"):
        fewshot.draw(np.array([0, 0, 0, 1, 1]), 3, 0)


def test_effective_shots_lie_on_the_log_line():
    """From 50% at 2 images to 70% at 8: 60% is at 4."""
    assert effective_shots(0.6, [1, 2, 8], [0.3, 0.5, 0.7]) == pytest.approx(4)
    assert effective_shots(0.5, [1, 2, 8], [0.3, 0.5, 0.7]) == pytest.approx(2)
    assert effective_shots(0.71, [1, 2, 8], [0.3, 0.5, 0.7]) is None
    # 20 points a doubling, so 10% at half an image
    assert effective_shots(0.1, [1, 2, 8], [0.3, 0.5, 0.7]) == pytest.approx(0.5)


def test_effective_shots_of_a_curve_that_falls():
    assert effective_shots(0.6, [1, 2, 4, 8], [0.5, 0.4, 0.6, 0.5]) == pytest.approx(4)
    assert effective_shots(0.3, [1, 2, 4], [0.5, 0.4, 0.6]) == 1
    with pytest.raises(ValueError, match="two points"):
        effective_shots(0.3, [1], [0.5])


def test_a_curve_on_digits_is_what_scikit_learn_makes_of_the_same_draw():
    x_ND, label_N = load_digits(return_X_y=True)
    order_N = np.random.default_rng(0).permutation(len(x_ND))
    x_ND, label_N = x_ND[order_N].astype(np.float32), label_N[order_N].astype(np.int64)
    train = Labelled(x_ND[:1000], label_N[:1000])
    validation, held = (
        Labelled(x_ND[1000:1300], label_N[1000:1300]), Held(x_ND[1300:], label_N[1300:])
    )  # fmt: skip
    found = fewshot.curve(train, validation, held, 10, [1, 8], [0, 1])
    assert [(shot.shots, shot.draw) for shot in found] == [(1, 0), (8, 0), (1, 1), (8, 1)]
    for shot in found:
        few = fewshot.draw(train.label, shot.shots, shot.draw)
        theirs = LogisticRegression(C=1 / shot.penalty, tol=1e-8, max_iter=5000)
        theirs.fit(train.x_ND[few].astype(np.float64), train.label[few])
        expected = theirs.score(held.x_ND.astype(np.float64), held.label)
        assert shot.value == pytest.approx(expected, abs=0.003)  # one digit of 497
    assert min(s.value for s in found if s.shots == 8) > max(s.value for s in found if s.shots == 1)


def test_probes_of_a_model_learn_colours(run, split_set, capsys):
    arguments = [
        f"--run={run}",
        f"--set={split_set}",
        "--device=cpu",
        "--probe.shots=[1,4,64]",
    ]
    assert main([*arguments, "--task=probe", "--task=fewshot", "--probe.draws=2"]) == 0
    assert "64 shots left out" in capsys.readouterr().out
    kept = json.loads((run / "eval" / "walls-probe.json").read_text())
    assert kept["metrics"]["top-1"]["value"] >= 0.9
    rows = pq.read_table(run / "eval" / "walls-probe.parquet")
    assert np.mean(np.array(rows["rank"]) == 0) == kept["metrics"]["top-1"]["value"]
    assert kept["protocol"]["validation"] == "0.2 of split train, seed 0"
    few = json.loads((run / "eval" / "walls-fewshot.json").read_text())
    assert set(few["metrics"]) == {"1-shot top-1", "4-shot top-1"}
    table, _ = few["tables"]  # the other has effective shots
    assert [row[0] for row in table["rows"]] == ["zero-shot", 1, 4, "all, 10"]
    assert table["rows"][-1][1] == kept["metrics"]["top-1"]["value"]


def test_stored_features_are_probed(tmp_path, split_set, capsys):
    """Features from anywhere: here the right answer in the first of two columns."""
    features = tmp_path / "features"
    features.mkdir()
    for split, count in (("train", 30), ("test", 18)):
        label_N = np.repeat(np.arange(3), count // 3)
        column = np.stack([label_N * 10.0, np.ones(count)], axis=1)
        np.save(features / f"walls-{split}.npy", column)
    out = tmp_path / "out"
    arguments = [f"--extractor=npy:{features}", f"--set={split_set}", f"--out={out}"]
    assert main([*arguments, "--task=probe", "--task=fewshot", "--device=cpu"]) == 0
    kept = json.loads((out / "walls-probe.json").read_text())
    assert kept["metrics"]["top-1"]["value"] == 1
    assert kept["model"]["run"] == f"npy:{features}"
    few = json.loads((out / "walls-fewshot.json").read_text())
    assert "zero-shot" not in [row[0] for row in few["tables"][0]["rows"]]
    np.save(features / "walls-test.npy", np.zeros((5, 2)))
    with pytest.raises(InputError, match="where 18 rows of floats belong"):
        main([*arguments, "--task=probe", "--device=cpu"])
    with pytest.raises(ConfigError, match="reads no text, task zeroshot does"):
        main([*arguments, "--device=cpu"])


def test_a_set_without_training_data_can_not_be_probed(run, class_folder):
    with pytest.raises(InputError, match="which this set lacks"):
        main([f"--run={run}", f"--set={class_folder}", "--task=probe", "--device=cpu"])
