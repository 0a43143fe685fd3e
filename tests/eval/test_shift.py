"""The task `shift` from the command line on, with a real model of random weights."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

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
