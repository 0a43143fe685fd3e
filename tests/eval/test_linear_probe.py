"""The task `probe` on multilabel and two-class sets, beside scikit-learn on the same features."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from eval.run import main


@pytest.fixture
def table(tmp_path, png):
    """Noisy colours in a CSV file of two splits, and features that say a little of them."""
    rng = np.random.default_rng(0)
    truth_N2 = rng.random((160, 2)) < 0.5
    x_ND = (truth_N2 @ rng.normal(size=(2, 6)) + 1.2 * rng.normal(size=(160, 6))).astype("f4")
    (tmp_path / "x.png").write_bytes(png((1, 2, 3)))

    def write(column, value):
        rows = [f"image,{column},split"]
        for i, truth in enumerate(truth_N2):
            (tmp_path / f"{i}.png").hardlink_to(tmp_path / "x.png")
            rows.append(f"{i}.png,{value(truth)},{'train' if i < 100 else 'test'}")
        path = tmp_path / "shades.csv"
        path.write_text("\n".join(rows))
        features = tmp_path / "features"
        features.mkdir()
        np.save(features / "shades-train.npy", x_ND[:100])
        np.save(features / "shades-test.npy", x_ND[100:])
        out = tmp_path / "out"
        arguments = [f"--extractor=npy:{features}", f"--set={path}", f"--out={out}", "--task=probe"]
        assert main([*arguments, "--device=cpu"]) == 0
        kept = json.loads((out / "shades-probe.json").read_text())
        return kept, pq.read_table(out / "shades-probe.parquet")

    return write, x_ND, truth_N2


def penalty(kept):
    return float(kept["notes"][0].split()[1].rstrip(","))


def test_a_multilabel_set_is_a_sigmoid_for_each_class(table):
    write, x_ND, truth_N2 = table
    kept, rows = write("labels", lambda t: "|".join(np.array(["dark", "red"])[t]))
    score_NC = np.stack(
        [
            LogisticRegression(C=1 / penalty(kept), tol=1e-8, max_iter=5000)
            .fit(x_ND[:100], truth_N2[:100, c])
            .decision_function(x_ND[100:])
            for c in range(2)
        ],
        axis=1,
    )
    expected = average_precision_score(truth_N2[100:], score_NC)
    assert kept["metrics"]["mAP"]["value"] == pytest.approx(expected, abs=0.003)
    low, high = kept["metrics"]["mAP"]["interval_95"]
    assert low < kept["metrics"]["mAP"]["value"] < high
    assert np.stack(rows["truth"].to_numpy()).tolist() == truth_N2[100:].astype(int).tolist()


def test_two_classes_are_one_sigmoid(table):
    write, x_ND, truth_N2 = table
    kept, rows = write("label", lambda t: "yes" if t[0] else "no")
    theirs = LogisticRegression(C=1 / penalty(kept), tol=1e-8, max_iter=5000)
    theirs.fit(x_ND[:100], truth_N2[:100, 0])
    expected = theirs.score(x_ND[100:], truth_N2[100:, 0])
    assert kept["metrics"]["top-1"]["value"] == pytest.approx(expected, abs=1e-4)
    side_N = theirs.decision_function(x_ND[100:])
    np.testing.assert_allclose(rows["positive"].to_numpy(), side_N, atol=0.01, rtol=0.01)
    assert roc_auc_score(truth_N2[100:, 0], rows["positive"].to_numpy()) == pytest.approx(
        roc_auc_score(truth_N2[100:, 0], side_N), abs=0.005
    )
