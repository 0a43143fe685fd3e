"""Sets in folds: found, checked, evaluated one by one, and averaged."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval import compare, registry, sets
from eval.run import main
from wit.errors import InputError


@pytest.fixture
def folded(split_set):
    """Two folds of training pictures and one test split, as STL-10 has ten."""
    for label in ("red", "green", "blue"):
        files = sorted((split_set / "train" / label).iterdir())
        for i, file in enumerate(files):
            target = split_set / f"train{i % 2 + 1}" / label
            target.mkdir(parents=True, exist_ok=True)
            file.rename(target / file.name)
    shutil.rmtree(split_set / "train")
    return split_set


@pytest.fixture
def three_splits(tmp_path, png):
    """A CSV file in which every picture is tested in one of three splits, as UCF101's videos."""
    rng = np.random.default_rng(0)
    rows = ["image,label,split,group"]
    for i in range(36):
        colour = rng.integers(0, 200, 3)
        label = i % 3
        colour[label] = rng.integers(100, 255)
        (tmp_path / f"{i}.png").write_bytes(png(tuple(int(c) for c in colour)))
        for fold in (1, 2, 3):
            part = "test" if i // 12 == fold - 1 else "train"
            rows.append(
                f"{i}.png,{('red', 'green', 'blue')[label]},{part}{fold},g{i // 12}-{label}"
            )
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(rows))
    return path


def kept(run, name):
    return json.loads((run / "eval" / f"{name}.json").read_text())


def test_folds_are_found_by_the_names_of_their_splits(folded, three_splits):
    assert sets.open_set(folded, "test").folds == ()  # nothing differs without training data
    data = sets.open_set(folded, "test", ("train", "val"))
    assert [fold.train.split for fold in data.folds] == ["train1", "train2"]
    assert {fold.split for fold in data.folds} == {"test"}
    data = sets.open_set(three_splits, "test", ("train",))
    assert [(f.split, f.train.split) for f in data.folds] == [
        (f"test{i}", f"train{i}") for i in (1, 2, 3)
    ]
    assert [len(fold.samples) for fold in data.folds] == [12, 12, 12]
    shutil.rmtree(folded / "train2")
    with pytest.raises(InputError, match="no such split"):
        sets.open_set(folded, "val", ("train",))


def test_a_fold_that_lacks_a_part_is_an_error(three_splits):
    text = three_splits.read_text()
    three_splits.write_text(text.replace("train3", "train4"))
    with pytest.raises(InputError, match="fold 3 has not both test and train"):
        sets.open_set(three_splits, "test", ("train",))


def test_a_probe_of_folds_is_the_mean_of_its_folds(run, folded, capsys):
    main([f"--run={run}", f"--set={folded}", "--device=cpu", "--task=probe", "--task=zeroshot"])
    found = kept(run, "walls-probe")
    each = dict(row[:2] for row in found["tables"][0]["rows"])
    assert set(each) == {"train1", "train2", "standard deviation"}
    top = found["metrics"]["top-1"]
    assert top["value"] == pytest.approx((each["train1"] + each["train2"]) / 2)
    low, high = top["interval_95"]
    assert low <= top["value"] <= high
    assert top["n"] == 18
    assert top["interval_method"] in ("cluster bootstrap", "wilson over clusters")
    assert found["protocol"]["folds"] == 2
    assert len(set(found["protocol"]["train"])) == 2
    assert "mean over 2 folds" in capsys.readouterr().out
    rows = pq.read_table(run / "eval" / "walls-probe.parquet").to_pandas()
    assert len(rows) == 36
    by_fold = (rows["rank"] == 0).groupby(rows["fold"]).mean()
    assert by_fold.tolist() == [each["train1"], each["train2"]]
    # zero-shot sees nothing of the folds
    assert "folds" not in kept(run, "walls-zeroshot")["protocol"]


def test_three_splits_in_every_task_and_between_two_models(make_run, tmp_path, three_splits):
    runs = [make_run(tmp_path / f"run{seed}", seed) for seed in (0, 1)]
    for run, tasks in zip(runs, (["zeroshot", "fewshot", "frames"], []), strict=True):
        main([f"--run={run}", f"--set={three_splits}", "--device=cpu", "--task=probe",
              "--probe.shots=[1,2]", "--probe.draws=2", "--resamples=100",
              *(f"--task={task}" for task in tasks)])  # fmt: skip
    zero = kept(runs[0], "clips-zeroshot")
    rows = pq.read_table(runs[0] / "eval" / "clips-zeroshot.parquet").to_pandas()
    assert zero["metrics"]["top-1"]["value"] == pytest.approx((rows["rank"] == 0).mean())
    assert rows["group"].nunique() == 9  # videos are drawn, not frames
    assert [table["title"] for table in zero["tables"]][:2] == ["folds", "prompts"]
    assert zero["tables"][1]["rows"][2][1] == pytest.approx(zero["metrics"]["top-1"]["value"])
    few = kept(runs[0], "clips-fewshot")
    assert few["metrics"]["1-shot top-1"]["interval_method"] == "t over folds"
    assert few["split"] == "test"
    assert kept(runs[0], "clips-frames")["metrics"]["top-1"]["n"] == 9
    assert "Zero-shot against few-shot" in (runs[0] / "eval" / "report.html").read_text()
    found = compare.compare(compare.CompareConfig(first=runs[0], second=runs[1], resamples=100))
    rows = {row["task"]: row for row in found["rows"]}
    one, two = (kept(run, "clips-probe")["metrics"]["top-1"]["value"] for run in runs)
    assert rows["probe"]["difference"] == pytest.approx(two - one)
    assert rows["probe"]["test"] == "paired bootstrap"
    assert rows["probe"]["n"] == 36


def test_each_fold_has_its_own_counts(tmp_path, three_splits):
    path = tmp_path / "sets.toml"
    entry = '[clips]\ntitle = "Clips"\nclasses = 3\ntemplates = ["{c}"]\n'
    path.write_text(entry + "fold_train = [24, 24, 24]\nfold_test = [12, 12, 12]\n")
    data = sets.open_set(three_splits, "test", ("train",))
    checked = registry.apply(registry.read(path), data)
    assert [fold.templates for fold in checked.folds] == [("{c}",)] * 3
    path.write_text(entry + "fold_train = [24, 24, 25]\nfold_test = [12, 12, 12]\n")
    with pytest.raises(InputError, match="25 images to train on, and train and validation have 24"):
        registry.apply(registry.read(path), data)
    path.write_text(entry + "fold_train = [24, 24]\n")
    with pytest.raises(InputError, match="comes in 2 folds, and this has 3"):
        registry.apply(registry.read(path), data)
