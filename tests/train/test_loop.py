"""Whole runs, in this process and in others that are killed."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from train import checkpoint, load_model
from train.config import TrainConfig
from train.loop import NonFiniteLoss, train
from wit.errors import CheckpointError, ConfigError, WitError

from . import ranks

Make = Callable[..., TrainConfig]


def rows(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def curve(run: Path) -> list[tuple[float, float, float]]:
    return [(row["step"], row["loss"], row["lr"]) for row in rows(run)]


def state(run: Path) -> dict[str, Any]:
    found = checkpoint.load(run)
    assert found is not None
    return found.state


def equal(a: Any, b: Any) -> bool:
    """Bitwise equality of two trees of tensors and plain values."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def same_state(a: Path, b: Path) -> bool:
    return equal(state(a) | {"seconds": 0}, state(b) | {"seconds": 0})


def begun(run: Path, step: int) -> Callable[[], bool]:
    return lambda: len(rows(run)) >= step


def test_a_run_learns_and_a_finished_one_does_nothing(make_config: Make, tiny, capsys) -> None:
    model = {**tiny, "width": 32, "text_width": 32, "embed_dim": 32, "dropout": 0.0}
    config = make_config(
        steps=80,
        model=model,
        data={"crop_min": 0.9},
        loop={"log_every": 20, "save_every": 30, "threads": 1},
    )
    assert train(config) == 0
    got = rows(config.run)
    assert [row["step"] for row in got] == [20, 40, 60, 80]
    assert got[-1]["loss"] < 1.6  # ln 16 = 2.77 is chance
    assert got[-1]["accuracy"] > 4 / 16
    assert all(0 <= row["data_wait"] <= 1 and row["samples_per_second"] > 0 for row in got)
    done = json.loads((config.run / "done.json").read_text())
    assert (done["steps"], done["samples"]) == (80, 1280)
    assert (config.run / done["checkpoint"]).is_file()
    assert list((config.run / "tensorboard").iterdir())
    out = capsys.readouterr().out
    assert "step 80/80 epoch 26.7 loss" in out
    assert "samples/s data" in out

    before = {path: path.stat().st_mtime_ns for path in config.run.rglob("*")}
    assert train(config) == 0
    assert "finished already" in capsys.readouterr().out
    unlocked = {p: t for p, t in before.items() if p.name != ".lock"}
    assert all(path.stat().st_mtime_ns == t for path, t in unlocked.items())


def test_sigterm_saves_and_the_same_command_goes_on(make_config, tmp_path) -> None:
    config = make_config(run=tmp_path / "run", steps=60, loop__save_every=1000)
    log = tmp_path / "log"
    process = ranks.start(config, log)
    ranks.until(begun(config.run, 5), process, log)
    process.terminate()  # SIGTERM
    process.join(60)
    assert process.exitcode == 143, log.read_text()
    assert "the same command goes on from here" in log.read_text()
    assert 5 <= state(config.run)["step"] < 60
    whole = make_config(run=tmp_path / "whole", steps=60, loop__save_every=1000)
    assert train(config) == train(whole) == 0
    assert same_state(whole.run, config.run)


def test_a_damaged_newest_checkpoint_costs_only_its_steps(make_config, tmp_path, capsys) -> None:
    config, whole = make_config(run=tmp_path / "run"), make_config(run=tmp_path / "whole")
    assert train(config) == train(whole) == 0
    (config.run / "done.json").unlink()
    before = (config.run / "metrics.jsonl").read_text()
    os.link(config.run / "metrics.jsonl", tmp_path / "before.jsonl")
    newest = config.run / "checkpoints" / "step_00000012.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert train(config) == 0
    assert "passed over a damaged checkpoint" in capsys.readouterr().out
    assert same_state(whole.run, config.run)
    assert curve(whole.run) == curve(config.run)
    assert (tmp_path / "before.jsonl").read_text() == before, "rows were rewritten in place"


def test_bad_samples_are_counted_over_all_sittings_and_processes(
    make_config, make_corpus, tmp_path
) -> None:
    corpus = make_corpus(tmp_path / "damaged", shards=1, count=24)
    with (corpus / "shards" / "00000.tar").open("r+b") as file:
        for row in pq.read_table(corpus / "shards" / "index.parquet").to_pylist()[:3]:
            file.seek(row["offset"])
            file.write(bytes(row["size"]))
    config = make_config(corpus=corpus)
    done = config.run / "done.json"
    assert train(config) == 0
    assert json.loads(done.read_text())["bad_samples"] == 3
    done.unlink()
    line = (config.run / "bad_samples.jsonl").read_text().splitlines()[0]
    other = json.dumps({**json.loads(line), "key": "000000020"})
    (config.run / "bad_samples.rank1.jsonl").write_text(f"{line}\n{other}\n")
    assert train(config) == 0
    assert json.loads(done.read_text())["bad_samples"] == 4


def test_a_finished_run_without_its_checkpoints_starts_anew(make_config: Make) -> None:
    assert train(make_config(steps=4)) == 0
    config = make_config(steps=4, seed=1, loop__save_every=1)
    shutil.rmtree(config.run / "checkpoints")
    assert train(config) == 0
    assert [row["step"] for row in rows(config.run)] == [1, 2, 3, 4]
    assert json.loads((config.run / "config.json").read_text())["config"]["seed"] == 1


def test_another_config_or_corpus_is_refused(make_config, make_corpus, tmp_path) -> None:
    config = make_config(steps=4)
    assert train(config) == 0
    with pytest.raises(CheckpointError, match=r"optim\.lr = 0\.003, not 0\.001"):
        train(make_config(steps=4, optim={"lr": 1e-3}))
    (config.run / "latest.json").unlink()  # a kill may come between a checkpoint and this file
    with pytest.raises(CheckpointError, match="seed = 0, not 1"):
        train(make_config(steps=4, seed=1))
    other = make_corpus(tmp_path / "other", shards=1, count=20)
    with pytest.raises(CheckpointError, match="other samples"):
        train(make_config(steps=4, corpus=other))
    (config.run / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        train(config)


def test_a_non_finite_loss_stops_before_the_weights_change(make_config: Make) -> None:
    config = make_config(optim={"lr": 1e30}, loop__save_every=1)
    with pytest.raises(NonFiniteLoss, match=r"the loss is nan and its gradient nan at .*optim\.lr"):
        train(config)
    assert not (config.run / "done.json").exists()
    assert all(math.isfinite(value) for row in rows(config.run) for value in row.values())
    assert len((config.run / "skipped.jsonl").read_text().splitlines()) == config.guard.skips


def test_two_trainings_in_one_directory_are_refused(make_config: Make, tmp_path: Path) -> None:
    config = make_config(steps=4000)
    process = ranks.start(config, tmp_path / "log")
    try:
        ranks.until(begun(config.run, 1), process, tmp_path / "log")
        with pytest.raises(CheckpointError, match="another process trains here"):
            train(config)
    finally:
        process.kill()
        process.join()


def test_clip_norm_bf16_batch_norm_and_mean_pooling_train(make_config: Make, tiny) -> None:
    model = {**tiny, "stem": (8, 8), "stem_strides": (2, 1), "stem_norm": "batch", "pool": "mean"}
    config = make_config(
        steps=3, model=model, precision="bf16", optim={"lr": 1e-3, "clip_norm": 0.01}
    )
    assert train(config) == 0
    weights = state(config.run)["model"]
    assert all(weight.dtype != torch.bfloat16 for weight in weights.values())
    assert weights["visual.stem.1.num_batches_tracked"].item() == 3


@pytest.mark.parametrize(
    ("objective", "accumulate"),
    [("contrastive", 3), ("sigmoid", 2), ("caption", 2)],
)
def test_two_gloo_processes_equal_one(make_config, tmp_path, objective, accumulate: int) -> None:
    settings = {"steps": 4, "model__dropout": 0.0, "model__objective": objective}
    one = make_config(run=tmp_path / "one", **settings)
    two = make_config(run=tmp_path / "two", **settings, accumulate=accumulate)
    assert train(one) == 0
    ranks.train_in(2, two)
    for a, b in zip(rows(one.run), rows(two.run), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-5, rel=1e-5)
        assert b.get("scale") == pytest.approx(a.get("scale"), abs=1e-5)
    assert len(state(two.run)["random"]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "abacus"}, "not a device"),
        ({"vocab": "missing.json"}, "missing.json"),
        ({"corpus": Path("nowhere")}, "nowhere"),
        (
            {"model": {"name": "RN50"}, "compile": True, "gradient_checkpointing": True},
            "exclude each other in a ResNet",
        ),
    ],
)
def test_mistakes_are_one_line(make_config: Make, changes, words: str) -> None:
    with pytest.raises(WitError, match=words):
        train(make_config(**changes))


def test_a_run_that_is_a_file_is_refused(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        train(make_config(run=tmp_path / "file"))


def test_a_trained_model_loads_and_encodes(make_config: Make) -> None:
    config = make_config(steps=4)
    with pytest.raises(CheckpointError, match="not a run directory"):
        load_model(config.run)
    assert train(config) == 0
    model = load_model(config.run)
    assert (model.step, model.image_size, model.context_length) == (4, 16, 16)
    assert model.logit_scale == pytest.approx(1 / 0.07, rel=0.1)
    tokens_BL = model.tokenize(["a small red square", "a large blue square. " * 9])
    assert tokens_BL.shape == (2, 16)
    text_BE = model.encode_text(tokens_BL)
    img_BCSS = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert model.encode_image(img_BCSS).shape == text_BE.shape == (2, 16)
    assert torch.equal(load_model(config.run).encode_text(tokens_BL), text_BE)
    assert load_model(config.run).fingerprint == model.fingerprint
    other = make_config(steps=4, seed=1, run=config.run.with_name("other"))
    assert train(other) == 0
    assert load_model(other.run).fingerprint != model.fingerprint
    for damaged in ("", "null", "{}", '{"config": {"model": {"breadth": 1}}}'):
        (other.run / "config.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"config\.json: damaged") as caught:
            load_model(other.run)
        assert "\n" not in str(caught.value)


def test_a_run_of_an_earlier_version_goes_on(make_config, tmp_path, capsys) -> None:
    """Its config has fewer keys, and its checkpoint fewer parts and another digest of samples."""
    whole = make_config(run=tmp_path / "whole", loop__keep=9)
    assert train(whole) == 0
    old = make_config(run=tmp_path / "old")
    old.run.mkdir()
    shutil.copy(whole.run / "tokenizer.json", old.run)
    found = torch.load(whole.run / "checkpoints" / "step_00000004.pt", weights_only=True)
    del found["numbers"], found["guard"]
    for group in found["optimizer"]["param_groups"]:
        del group["factor"]
    checkpoint.save(old.run, 4, found | {"samples": 64 * "0"}, 2)
    config = json.loads((whole.run / "config.json").read_text())
    for key in ("guard", "validation", "lock"):
        del config["config"][key]
    del config["config"]["optim"]["ema"], config["config"]["data"]["query"]
    config["config"] |= {"compile": False, "gradient_checkpointing": True}
    (old.run / "config.json").write_text(json.dumps(config))
    assert train(old) == 0
    assert "its samples are taken on trust" in capsys.readouterr().out
    expected, got = state(whole.run), state(old.run)
    for state_of in (expected, got):
        del state_of["samples"], state_of["guard"], state_of["optimizer"]["param_groups"]
    assert equal(expected | {"seconds": 0}, got | {"seconds": 0})
