"""Evaluation while training: right numbers, the same from any number of processes, no trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from train import checkpoint, load_model
from train.config import TrainConfig
from train.dist import World
from train.loop import train
from train.pairs import BadSamples, Pairs
from train.validate import recall
from wit import image
from wit.errors import ConfigError

from . import ranks

ALONE = World(0, 1, torch.device("cpu"))


def rows(run: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if "val/loss" in row]


@pytest.fixture
def held_out(make_corpus: Callable[..., Path], tmp_path: Path) -> Path:
    """20 pairs: a whole batch of 16, and 4."""
    return make_corpus(tmp_path / "held_out", shards=1, count=20)


def validated(make_config, held_out: Path, run: Path, **changes: object) -> TrainConfig:
    asked = {"corpus": str(held_out), "every": 2}
    config: TrainConfig = make_config(run=run, steps=5, validation=asked, **changes)
    return config


def test_it_is_the_loss_and_recall_of_the_loaded_model(make_config, held_out, tmp_path) -> None:
    config = validated(make_config, held_out, tmp_path / "run")
    assert train(config) == 0
    found = rows(config.run)
    assert [row["step"] for row in found] == [2, 4, 5]
    model = load_model(config.run)
    bad = BadSamples(0, print)
    pairs = Pairs(held_out, bad)
    pixels = [model.preprocess(image.decode(pairs.read(i).image, 10**8)) for i in range(20)]
    image_NE = model.encode_image(torch.stack(pixels), normalize=True)
    text_NE = model.encode_text(model.tokenize(list(pairs.texts(bad))), normalize=True)
    logits_16 = model.logit_scale * image_NE[:16] @ text_NE[:16].T
    right_16 = torch.arange(16)
    loss = (F.cross_entropy(logits_16, right_16) + F.cross_entropy(logits_16.T, right_16)) / 2
    assert found[-1]["val/loss"] == pytest.approx(loss.item(), abs=1e-5)
    above_20 = (image_NE @ text_NE.T).argsort(dim=1, descending=True)
    share = (above_20[:, :5] == torch.arange(20)[:, None]).any(dim=1).float().mean().item()
    assert found[-1]["val/image_to_text@5"] == pytest.approx(share)


def test_it_leaves_no_trace_in_the_weights_and_the_best_is_kept(make_config, held_out, tmp_path):
    loop = {"log_every": 1, "save_every": 100, "keep": 1, "threads": 1, "tensorboard": False}
    config = validated(
        make_config, held_out, tmp_path / "run", loop={**loop, "keep_best": "val/loss"}
    )
    plain = make_config(run=tmp_path / "plain", steps=5, loop=loop)
    assert train(config) == train(plain) == 0
    states = [checkpoint.load(run) for run in (config.run, plain.run)]
    one, other = (found.state["model"] for found in states if found)
    assert all(torch.equal(one[name], other[name]) for name in one)
    found = rows(config.run)
    best = min(found, key=lambda row: row["val/loss"])
    about = json.loads((config.run / "best.json").read_text())
    assert (about["step"], about["value"]) == (best["step"], best["val/loss"])
    kept = {path.name for path in (config.run / "checkpoints").glob("*.pt")}
    assert kept == {f"step_{int(step):08d}.pt" for step in {best["step"], 5}}
    wrong = validated(
        make_config, held_out, tmp_path / "wrong", loop={**loop, "keep_best": "val/los"}
    )
    with pytest.raises(ConfigError, match="val/los is not one of val/image_to_text@1, "):
        train(wrong)
    (saved,) = (wrong.run / "checkpoints").glob("*.pt")  # nothing that was trained is lost
    assert saved.stem == f"step_{int(found[0]['step']):08d}"


@pytest.mark.parametrize("objective", ["contrastive", "caption"])
def test_two_processes_find_the_same(make_config, held_out, tmp_path, objective: str) -> None:
    settings = {"model__dropout": 0.0, "model__objective": objective}
    one = validated(make_config, held_out, tmp_path / "one", **settings)
    two = validated(make_config, held_out, tmp_path / "two", **settings)
    assert train(one) == 0
    ranks.train_in(2, two)
    for a, b in zip(rows(one.run), rows(two.run), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_recall_knows_equal_pictures_and_captions() -> None:
    """Against the definition, on made-up features with five captions of each picture."""
    make = torch.Generator().manual_seed(0)
    image_NE = F.normalize(torch.randn(12, 4, generator=make), dim=1).repeat_interleave(5, 0)
    text_NE = F.normalize(image_NE + 0.9 * torch.randn(60, 4, generator=make), dim=1)
    picture_N = torch.arange(12).repeat_interleave(5)
    caption_N = torch.arange(60)
    caption_N[17], text_NE[17] = caption_N[44], text_NE[44]  # the same words of two pictures
    found = recall(image_NE, text_NE, torch.stack([picture_N, caption_N], dim=1), ALONE)
    score_NN = (image_NE @ text_NE.T).numpy()
    right_NN = (picture_N[:, None] == picture_N).numpy()
    right_NN |= (caption_N[:, None] == caption_N).numpy()
    for name, score, right in (
        ("image_to_text", score_NN, right_NN),
        ("text_to_image", score_NN.T, right_NN.T),
    ):
        best_N = np.where(right, score, -9).max(axis=1)
        rank_N = ((score >= best_N[:, None]) & ~right).sum(axis=1)
        for k in (1, 5, 10):
            assert found[f"val/{name}@{k}"] == pytest.approx((rank_N < k).mean())
    assert found["val/image_to_text@1"] < 1


def test_ties_count_against_the_model() -> None:
    same_NE = torch.ones(20, 2)
    groups = torch.arange(20)[:, None].expand(-1, 2)
    assert set(recall(same_NE, same_NE, groups, ALONE).values()) == {0.0}
