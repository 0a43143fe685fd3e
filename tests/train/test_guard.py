"""Steps that are left out: when, and what is left as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from train.config import GuardConfig
from train.data import Batch
from train.dist import World
from train.guard import SETTLED, Guard, NonFiniteLoss
from train.loop import Run, build, one_step

ALONE = World(0, 1, torch.device("cpu"))


def guard(path: Path, **config: float) -> Guard:
    return Guard(GuardConfig(**config), path, ALONE)


def batch(value: float) -> Batch:
    img_bCSS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens_bL = torch.tensor([[598, i + 1, 599] for i in range(4)])
    return Batch(img_bCSS * value, tokens_bL, (3, 1, 4, 7))


def keys(numbers) -> list[str]:
    return [f"tar: {i}" for i in numbers]


def weights(run: Run) -> list[torch.Tensor]:
    return [value.clone() for value in run.model.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if x.is_floating_point())


def test_a_step_that_is_not_finite_changes_nothing_and_is_written_down(make_config, tiny) -> None:
    model = {**tiny, "stem_norm": "batch", "dropout": 0.0}
    config = make_config(model=model, guard={"skips": 2})
    config.run.mkdir()
    run = build(config, 600, 10, "", ALONE)
    before = weights(run)
    one_step(config, run, batch(math.nan), 1e-2, keys)
    assert same(weights(run), before)
    assert run.guard.skipped == 1
    one_step(config, run, batch(1.0), 1e-2, keys)
    assert not same(weights(run), before)
    assert math.isfinite(run.loss)
    one_step(config, run, batch(math.nan), 1e-2, keys)
    with pytest.raises(NonFiniteLoss, match="for 2 steps in a row; their samples are in skipped"):
        one_step(config, run, batch(math.nan), 1e-2, keys)
    rows = [json.loads(line) for line in (config.run / "skipped.jsonl").read_text().splitlines()]
    assert [row["why"] for row in rows] == ["not finite"] * 3
    assert rows[0]["keys"] == ["tar: 3", "tar: 1", "tar: 4", "tar: 7"]
    run.guard.resume(rows[0]["step"])
    left = (config.run / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in left] == [r for r in rows if r["step"] == rows[0]["step"]]


def test_a_spike_is_left_out_and_a_new_level_is_accepted(tmp_path: Path) -> None:
    watch = guard(tmp_path, spike=4.0, skips=3)
    noise = torch.randn(2 * SETTLED, generator=torch.Generator().manual_seed(1)).tolist()
    assert all(watch.passes(i, 2 + 0.1 * x, 1.0, False, list) for i, x in enumerate(noise))
    assert not watch.passes(300, 3.0, 1.0, False, list)
    assert watch.passes(301, 2.1, 1.0, False, list)
    assert watch.passes(302, 0.5, 1.0, False, list)  # below is no spike
    assert [watch.passes(i, 9.0, 1.0, False, list) for i in range(303, 307)] == [False] * 3 + [True]
    assert watch.skipped == 4
    other = guard(tmp_path, spike=4.0, skips=3)
    other.load_state_dict(watch.state_dict())
    assert other.state_dict() == watch.state_dict()


def test_early_losses_are_no_spikes_and_without_the_option_none_is(tmp_path: Path) -> None:
    assert guard(tmp_path, spike=1.0).passes(1, 1e9, 1.0, False, list)
    plain = guard(tmp_path)
    assert all(plain.passes(i, 1.0, 1.0, False, list) for i in range(2 * SETTLED))
    assert plain.passes(500, 1e9, 1.0, False, list)


def test_a_scaler_that_calibrates_is_left_to_itself(tmp_path: Path) -> None:
    watch = guard(tmp_path)
    assert watch.passes(1, 2.0, math.inf, True, list)
    assert not watch.passes(1, 2.0, math.inf, False, list)
    assert not watch.passes(1, math.nan, 1.0, True, list)
