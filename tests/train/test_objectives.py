"""Every objective as whole runs; over processes: test_loop.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train import checkpoint, load_model
from train.config import ModelConfig, TrainConfig
from train.loop import train
from train.model.predictive import new_model
from wit.errors import CheckpointError

Make = Callable[..., TrainConfig]


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load(run)
    assert found is not None
    state: dict[str, torch.Tensor] = found.state["model"]
    return state


@pytest.mark.parametrize("objective", ["sigmoid", "bag_of_words", "caption"])
def test_a_run_learns_resumes_to_the_bit_and_adds_up_over_micro_batches(
    make_config: Make, tmp_path: Path, objective: str
) -> None:
    def config(name: str, **more: Any) -> TrainConfig:
        settings = {"model__objective": objective, "model__dropout": 0.0, **more}
        return make_config(run=tmp_path / name, steps=30, **settings)

    assert train(config("whole")) == 0
    losses = [row["loss"] for row in rows(tmp_path / "whole")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert ("scale" in rows(tmp_path / "whole")[0]) == (objective == "sigmoid")
    assert all(0 <= row["accuracy"] <= 1 for row in rows(tmp_path / "whole"))

    assert train(config("parts", accumulate=3)) == 0
    parts = [row["loss"] for row in rows(tmp_path / "parts")]
    assert parts[0] == pytest.approx(losses[0], rel=1e-5)
    assert parts[4] == pytest.approx(losses[4], rel=1e-3)

    before = weights(tmp_path / "whole")
    (tmp_path / "whole" / "checkpoints" / "step_00000030.json").unlink()
    assert train(config("whole")) == 0
    after = weights(tmp_path / "whole")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_sigmoid_starts_as_published(make_config: Make, tiny) -> None:
    config = make_config(model__objective="sigmoid", steps=1, optim={"lr": 1e-9})
    assert config.temperature == 0.1
    assert make_config().temperature == 0.07
    assert (
        make_config(optim={"init_temperature": 0.5}, model__objective="sigmoid").temperature == 0.5
    )
    assert train(config) == 0
    state = weights(config.run)
    assert state["logit_scale"].exp().item() == pytest.approx(10, rel=1e-4)
    assert state["logit_bias"].item() == pytest.approx(-10, rel=1e-4)
    assert "logit_bias" not in new_model(ModelConfig(**tiny), 90).state_dict()


def test_a_predictor_scores_texts_and_has_no_features_of_them(make_config: Make) -> None:
    config = make_config(model__objective="caption", steps=2)
    assert train(config) == 0
    loaded = load_model(config.run)
    tokens_ML = loaded.tokenize(["a red square", "blue", "a large green one. " * 9])
    assert loaded.score(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), tokens_ML).shape == (2, 3)
    with pytest.raises(CheckpointError, match=r"objective = caption has no text features"):
        loaded.encode_text(tokens_ML)
