"""A locked tower stays as it was, and the other learns."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from train import checkpoint
from train.loop import train


@pytest.mark.parametrize(
    ("which", "accumulate"), [("image", 1), ("image", 2), ("text", 1), ("text", 2)]
)
def test_a_locked_tower_does_not_change(make_config, tiny, tmp_path, which, accumulate) -> None:
    model = {**tiny, "stem_norm": "batch"}
    first = make_config(run=tmp_path / "first", steps=2, model=model)
    assert train(first) == 0
    config = make_config(
        run=tmp_path / "run",
        steps=3,
        model=model,
        init=first.run,
        lock=which,
        accumulate=accumulate,
        optim={"lr": 3e-3, "ema": 0.5, "layer_decay": 0.9},
    )
    assert train(config) == 0
    states = [checkpoint.load(run) for run in (first.run, config.run)]
    before, after = (found.state["model"] for found in states if found)
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    image = {name for name in before if name.startswith("visual.")}
    both = {"logit_scale"}
    assert stayed == (image if which == "image" else before.keys() - image - both)
    for name in stayed:
        assert torch.equal(states[1].state["ema"][name], before[name])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lock": "image"}, "lock = image keeps the weights of init: give it"),
        ({"lock": "text", "init": "r", "model__objective": "caption"}, "objective = caption"),
        ({"lock": "words"}, "'none', 'image' or 'text'"),
        ({"loop__keep_best": "val/loss"}, "needs validation.corpus or validation.sets"),
    ],
)
def test_mistakes_name_the_key(make_config, changes, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make_config(**changes)
