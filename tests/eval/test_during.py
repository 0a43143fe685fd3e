"""Evaluation sets while training: the plug-in is found and gives what `wit eval` gives."""

from __future__ import annotations

import json

import torch

from eval.config import EvalConfig
from eval.during import evaluate
from eval.run import evaluate_all
from train import load_model
from train.dist import World


def test_it_gives_the_numbers_of_wit_eval(run, colour_set, tmp_path) -> None:
    world, folder = World(0, 1, torch.device("cpu")), tmp_path / "scratch"
    found = evaluate(load_model(run), [colour_set], world, folder)
    assert evaluate_all(EvalConfig(run=run, set=[colour_set])) == 0
    kept = json.loads((run / "eval" / "colours-zeroshot.json").read_text())
    expected = {f"colours/{name}": metric["value"] for name, metric in kept["metrics"].items()}
    assert found == expected
    assert not folder.exists()


def test_wit_train_finds_it_by_its_entry_point() -> None:
    from importlib.metadata import entry_points

    from train.validate import GROUP

    assert evaluate in [point.load() for point in entry_points(group=GROUP)]
