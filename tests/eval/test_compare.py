"""What `wit compare` refuses, adjusts and says of seeds."""

import json

import pytest

from eval.compare import CompareConfig, _holm, compare, main
from eval.run import main as evaluate
from wit.errors import InputError


@pytest.fixture
def runs(tmp_path, make_run, colour_set, capsys):
    """Two models on two sets."""
    found = [make_run(tmp_path / f"model{seed}", seed) for seed in (0, 1)]
    for run in found:
        evaluate([f"--run={run}", f"--set={colour_set}", "--device=cpu"])
    return found


def test_mcnemar_of_the_stored_predictions(runs):
    found = compare(CompareConfig(first=runs[0], second=runs[1]))
    (row,) = found["rows"]
    assert (row["set"], row["metric"], row["n"], row["test"]) == (
        "colours", "top-1", 24, "McNemar, exact")  # fmt: skip
    assert found["averages"] == []


def test_other_protocols_are_refused(runs, colour_set, capsys):
    (colour_set / "zeroshot_classification_templates.txt").write_text("{c}")
    evaluate([f"--run={runs[1]}", f"--set={colour_set}", "--device=cpu"])
    with pytest.raises(
        InputError, match=r"nothing to compare \(colours: other protocol: templates"
    ):
        main([str(runs[0]), str(runs[1])])


def test_other_image_sizes_are_a_part_of_the_model(runs):
    path = runs[1] / "eval" / "colours-zeroshot.json"
    data = json.loads(path.read_text())
    data["protocol"]["preprocessing"]["image_size"] = 64
    data["protocol_hash"] = "other"
    path.write_text(json.dumps(data))
    assert len(compare(CompareConfig(first=runs[0], second=runs[1]))["rows"]) == 1


def test_a_result_that_only_one_has(runs, class_folder, capsys):
    evaluate([f"--run={runs[0]}", f"--set={class_folder}", "--device=cpu"])
    assert main([str(runs[0]), str(runs[1])]) == 0
    assert "photos zeroshot: not compared: the second model has no such result" in " ".join(
        capsys.readouterr().out.split()
    )


def test_seeds(runs, tmp_path, make_run, colour_set, capsys):
    more = [make_run(tmp_path / f"model{seed}", seed) for seed in (2, 3)]
    for run in more:
        evaluate([f"--run={run}", f"--set={colour_set}", "--device=cpu"])
    config = CompareConfig(first=runs[0], second=runs[1], also_first=[more[0]],
                           also_second=[more[1]])  # fmt: skip
    (row,) = compare(config)["seeds"]
    values = [json.loads((run / "eval" / "colours-zeroshot.json").read_text())["metrics"]["top-1"]
              ["value"] for run in (runs[0], more[0])]  # fmt: skip
    assert row["first"]["seeds"] == 2
    assert row["first"]["mean"] == pytest.approx(sum(values) / 2)


def test_runs_without_results(tmp_path, runs):
    with pytest.raises(InputError, match="no results here; run `wit eval` first"):
        main([str(tmp_path / "none"), str(runs[0])])
    (runs[1] / "eval" / "colours-zeroshot.parquet").unlink()
    with pytest.raises(InputError, match=r"colours-zeroshot\.parquet: can't be read"):
        main([str(runs[0]), str(runs[1])])


def test_holm():
    """Three of four: the smallest times four, then times three, never falling."""
    assert _holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert _holm([0.4, 0.9]) == [0.8, 0.9]
