"""The task `shift` from the command line on, with a real model of random weights."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval import results, shift, shift_table
from eval.run import main
from wit.errors import ConfigError, InputError


@pytest.fixture
def shifted(tmp_path, png):
    """Darker pictures of two of the three colours."""
    rng = np.random.default_rng(1)
    root = tmp_path / "dark"
    for label, name in ((2, "blue"), (0, "red")):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(8):
            colour = rng.integers(0, 60, 3)
            colour[label] = rng.integers(90, 255)
            (folder / f"{i}.png").write_bytes(png(tuple(int(c) for c in colour)))
    return root


def values(path):
    return {name: m["value"] for name, m in json.loads(path.read_text())["metrics"].items()}


def test_four_ways_to_answer(run, split_set, shifted):
    arguments = [f"--run={run}", f"--set={shifted}", "--device=cpu", "--task=zeroshot"]
    main([*arguments, "--task=shift", f"--shift.reference={split_set}", "--split=test"])
    found = values(run / "eval" / "dark-shift.json")
    assert set(found) == {
        "own names", "names of the reference", "fitted to the reference",
        "reference, these classes",
    }  # fmt: skip
    assert found["own names"] == values(run / "eval" / "dark-zeroshot.json")["top-1"]
    # the names are the same words, so they give the same answers
    assert found["names of the reference"] == found["own names"]
    assert found["fitted to the reference"] > 0.8
    rows = pq.read_table(run / "eval" / "dark-shift.parquet")
    assert (
        np.mean(np.array(rows["hit, fitted to the reference"])) == found["fitted to the reference"]
    )


def test_coarser_classes_need_a_mapping(run, split_set, shifted, tmp_path):
    (shifted / "blue").rename(shifted / "cold")
    arguments = [f"--run={run}", f"--set={shifted}", "--device=cpu", "--task=shift"]
    arguments.append(f"--shift.reference={split_set}")
    with pytest.raises(InputError, match="'cold' is no class of"):
        main(arguments)
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps({"cold": ["green", "blue"], "red": ["red"]}))
    main([*arguments, f"--shift.mapping={mapping}"])
    kept = json.loads((run / "eval" / "dark-shift.json").read_text())
    assert kept["protocol"]["groups"] == [[1, 0], [2]]  # blue, green, red are 0, 1, 2
    assert kept["metrics"]["reference, these classes"]["n"] == 18
    mapping.write_text('{"cold": "blue"}')
    with pytest.raises(InputError, match="must be of the form"):
        main([*arguments, f"--shift.mapping={mapping}"])


def test_without_a_reference_there_is_nothing_to_compare(run, shifted):
    with pytest.raises(ConfigError, match=r"give --shift\.reference"):
        main([f"--run={run}", f"--set={shifted}", "--device=cpu", "--task=shift"])


@pytest.fixture
def clips(tmp_path, png):
    """Clips of three frames in a CSV file, the middle one being the anchor."""
    rng = np.random.default_rng(2)
    rows = ["image,label,group,anchor"]
    for clip in range(8):
        for frame in range(3):
            label = clip % 2
            colour = rng.integers(0, 90, 3)
            colour[2 * label] = rng.integers(80, 255)
            (tmp_path / f"{clip}-{frame}.png").write_bytes(png(tuple(int(c) for c in colour)))
            rows.append(f"{clip}-{frame}.png,{('red', 'blue')[label]},c{clip},{int(frame == 1)}")
    path = tmp_path / "film.csv"
    path.write_text("\n".join(rows))
    return path


def test_of_clips_the_mean_of_anchor_and_all_frames(run, split_set, clips):
    arguments = [f"--run={run}", f"--set={clips}", "--device=cpu", "--task=shift"]
    main([*arguments, f"--shift.reference={split_set}"])
    found = values(run / "eval" / "film-shift.json")
    rows = pq.read_table(run / "eval" / "film-shift.parquet").to_pandas()
    for way in ("own names", "names of the reference", "fitted to the reference"):
        hit = rows[f"hit, {way}"]
        anchor, every = hit[rows["anchor"]].mean(), hit.groupby(rows["group"]).all().mean()
        assert found[f"{way}, pm-0"] == anchor
        assert found[f"{way}, pm-10"] == every
        assert found[way] == pytest.approx((anchor + every) / 2)
    clips.write_text(clips.read_text().replace("c3,1", "c3,0"))
    with pytest.raises(InputError, match="clip c3 has 0 anchors"):
        main([*arguments, f"--shift.reference={split_set}"])


def test_the_reference_is_fitted_once_and_all_shifts_are_one_table(
    run, split_set, shifted, clips, monkeypatch, capsys
):
    fits = []
    plain = shift.probe.probe

    def counted(*arguments, **options):
        fits.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(shift.probe, "probe", counted)
    main([f"--run={run}", f"--set={shifted}", f"--set={clips}", "--device=cpu", "--task=shift",
          f"--shift.reference={split_set}"])  # fmt: skip
    assert len(fits) == 1
    capsys.readouterr()
    main(["robustness", str(run)])
    shown = capsys.readouterr().out
    assert "accuracy under shifts" in shown
    table = shift_table.table(results.load(run))
    assert table.columns == ("", "reference %", "dark %", "film pm-0 %", "film pm-10 %")
    assert [row[0].split(": ")[1] for row in table.rows] == ["zero-shot", "fitted to the reference"]
    film = values(run / "eval" / "film-shift.json")
    assert table.rows[1][2:] == (
        values(run / "eval" / "dark-shift.json")["fitted to the reference"],
        film["fitted to the reference, pm-0"], film["fitted to the reference, pm-10"],
    )  # fmt: skip
    # the reference column: the probe that is asked about its own test split
    main([f"--run={run}", f"--set={split_set}", "--device=cpu", "--task=probe", "--task=zeroshot"])
    assert table.rows[1][1] == values(run / "eval" / "walls-probe.json")["top-1"]
    assert table.rows[0][1] == values(run / "eval" / "walls-zeroshot.json")["top-1"]
    page = (run / "eval" / "report.html").read_text()
    assert "Accuracies under shifts, as in table 16" in page


def test_published_rows_are_marked(tmp_path):
    metrics = {
        name: {"value": 0.5} for name in ("own names", "own names, pm-0", "own names, pm-10")
    }
    data = {"set": "x", "task": "shift", "entry": "imagenet-vid", "model": {}, "metrics": metrics,
            "tables": []}  # fmt: skip
    table = shift_table.table([results.Stored(tmp_path, data)])
    assert table.columns == ("", "reference %", "imagenet-vid pm-0 %", "imagenet-vid pm-10 %")
    published = {row[0]: row[1:] for row in table.rows if row[0].startswith("published")}
    assert published["published: CLIP ViT-L/14@336px, zero-shot"] == pytest.approx(
        (0.762, 0.953, 0.892)
    )
