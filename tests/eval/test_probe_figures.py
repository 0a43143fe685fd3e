"""What the figures of several models say, and `wit eval robustness`, on results made by hand."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import linregress

from eval import figures, probe_figures
from eval.results import Stored
from eval.run import main
from wit.charts import svg
from wit.errors import InputError

PAPER = figures.published()


def result(task, name, value, model="a", tables=(), gflop=10.0, metrics=None):
    shown = {"value": value, "n": 100, "interval_95": [value - 0.05, value + 0.05], "chance": 0.1}
    return {
        "set": name, "entry": "", "task": task, "main": "top-1", "protocol_hash": "0",
        "metrics": metrics or {"top-1": shown}, "tables": list(tables), "notes": [],
        "model": {"run": model, "step": 7, "name": "small", "gflop_image": gflop},
    }  # fmt: skip


def stored(tmp_path, *rows):
    return [Stored(tmp_path / f"{i}.json", row) for i, row in enumerate(rows)]


def text(figure):
    return svg(figure, "test")


def test_nothing_to_draw_gives_no_figure(tmp_path):
    rows = stored(tmp_path, result("retrieval", "x", 0.5))
    assert [figure_of(rows, PAPER) for figure_of, _ in probe_figures.FIGURES] == [None] * 7


def test_zero_shot_against_supervised_gives_r_and_slope(tmp_path):
    full, zero = [0.6, 0.7, 0.8, 0.9], [0.3, 0.5, 0.55, 0.8]
    rows = []
    for i, (x, y) in enumerate(zip(full, zero, strict=True)):
        rows += [result("probe", f"s{i}", x), result("zeroshot", f"s{i}", y)]
    fit = linregress(full, zero)
    drawn = text(probe_figures.supervised(stored(tmp_path, *rows), PAPER))
    assert f"r {fit.rvalue:.2f}, slope {fit.slope:.2f} (" in drawn
    assert "published: ViT-L/14" in drawn


def test_the_suites_error_falls_with_compute(tmp_path):
    rows = [
        result("zeroshot", name, 1 - 2 * gflop**-0.5, f"m{gflop}", gflop=2 * gflop)
        for gflop in (10, 40, 160)
        for name in ("s", "t")
    ]
    drawn = text(probe_figures.suite_scaling(stored(tmp_path, *rows), PAPER))
    assert "log-log slope -0.500 (-0.500 to -0.500)" in drawn


def test_transfer_needs_imagenet_and_another_set(tmp_path):
    rows = [result("probe", name, v, m) for m, v in (("a", 0.5), ("b", 0.6), ("c", 0.7))
            for name in ("imagenet", "pets")]  # fmt: skip
    drawn = text(probe_figures.transfer(stored(tmp_path, *rows), PAPER))
    assert "r 1.00, slope 1.00" in drawn
    assert probe_figures.transfer(stored(tmp_path, rows[0]), PAPER) is None


def test_few_shot_curves_of_two_models(tmp_path):
    rows = [["zero-shot", 0.5, None], [1, 0.3, 0.01], [4, 0.6, 0.01], ["all, 10", 0.8, None]]
    table = {"title": "zero-shot and few-shot", "rows": rows}
    other = {"title": "zero-shot and few-shot", "rows": rows[1:]}
    drawn = text(
        probe_figures.few_shots(
            stored(
                tmp_path,
                result("fewshot", "s", 0.6, "a", [table]),
                result("fewshot", "s", 0.6, "b", [other]),
            ),
            PAPER,
        )
    )
    assert "small (a, step 7): zero-shot" in drawn
    assert "small (b, step 7): probe" in drawn
    assert "small (b, step 7): zero-shot" not in drawn


def test_data_efficiency_has_median_and_mean(tmp_path):
    rows = []
    for name, images in (("s", 0.9), ("t", 4.0), ("u", 64.0), ("v", None)):
        table = {"title": "data efficiency of zero-shot", "rows": [["as good", images]]}
        rows.append(result("fewshot", name, 0.6, tables=[table]))
    drawn = text(probe_figures.efficiency(stored(tmp_path, *rows), PAPER))
    assert "small (a, step 7): median 4, mean 23" in drawn
    assert "<!-- u -->" in drawn
    assert "<!-- v -->" not in drawn  # no number of images was enough there


def test_zero_shot_less_the_probe_of_another_model(tmp_path):
    zero = [result("zeroshot", name, 0.6) for name in ("s", "t", "u")]
    own = [result("probe", "s", 0.9)]
    other = [result("probe", name, v, "rn50") for name, v in (("s", 0.5), ("t", 0.7))]
    drawn = text(probe_figures.against_probes(stored(tmp_path, *zero, *own, *other), PAPER))
    assert "less the probe of small (rn50, step 7): above on 1 of 2" in drawn
    assert probe_figures.against_probes(stored(tmp_path, *zero, *own), PAPER) is None


@pytest.fixture
def shift_run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    metrics = {
        name: {"value": v, "n": 500, "interval_95": [v, v], "chance": 0.1}
        for name, v in (
            ("own names", 0.6), ("names of the reference", 0.55),
            ("reference, these classes", 0.7),
        )
    }  # fmt: skip
    row = result("shift", "sketch", 0.6, metrics=metrics) | {"main": "own names"}
    (folder / "sketch-shift.json").write_text(json.dumps(row))
    return folder


def test_effective_robustness_from_the_command_line(shift_run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = ["model,set,reference,shifted"]
    for i, x in enumerate(np.linspace(0.5, 0.8, 12)):
        y = expit(logit(x) - 1.5 + 0.02 * rng.normal())
        lines.append(f"m{i},sketch,{100 * x:.4f},{100 * y:.4f}")
    standard = tmp_path / "standard.csv"
    standard.write_text("\n".join(lines))
    out = tmp_path / "out"
    arguments = ["robustness", str(shift_run), f"--standard={standard}", f"--out={out}"]
    assert main(arguments) == 0
    assert "effective robustness" in capsys.readouterr().out
    own, names = json.loads((out / "robustness.json").read_text())
    assert own["effective"] == pytest.approx(0.6 - expit(logit(0.7) - 1.5), abs=0.01)
    assert own["interval_95"][0] < own["effective"] < own["interval_95"][1]
    assert own["effective"] - names["effective"] == pytest.approx(0.05)
    assert "sketch" in text(
        probe_figures.shifts(
            [Stored(shift_run / "x", json.loads((shift_run / "sketch-shift.json").read_text()))],
            PAPER,
        )
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model,set,reference\n", "no column shifted"),
        ("model,set,reference,shifted\na,sketch,120,3\n", "line 2: reference = '120'"),
        ("model,set,reference,shifted\na,sketch,50,x\n", "line 2: shifted = 'x'"),
        ("model,set,reference,shifted\na,sketch,50,40\n", "fewer than three standard models"),
    ],
)
def test_standard_models_are_checked(shift_run, tmp_path, content, words):
    standard = tmp_path / "standard.csv"
    standard.write_text(content)
    with pytest.raises(InputError, match=words):
        main(["robustness", str(shift_run), f"--standard={standard}", f"--out={tmp_path}"])
