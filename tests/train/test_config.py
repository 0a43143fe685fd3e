"""The config: presets, what counts as the same run, and messages for mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.config import MODELS, ModelConfig, TrainConfig
from wit.config import load
from wit.errors import ConfigError


def read(*argv: str) -> TrainConfig:
    return load(TrainConfig, argv, "wit train")


def test_a_variant_gives_the_defaults_and_keys_change_them() -> None:
    model = read("--model.name", "ViT-L/14", "--model.layers", "6").model
    assert (model.patch, model.width, model.heads, model.layers) == (14, 1024, 16, 6)
    assert model.activation == "quick_gelu"
    assert read().model == ModelConfig()


def test_a_file_may_name_the_variant_and_the_line_change_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[model]\nname = "ViT-B/16"\nlayers = 3\n')
    model = read("--config", str(tmp_path / "a.toml"), "--model.layers", "2").model
    assert (model.patch, model.width, model.layers) == (16, 768, 2)


@pytest.mark.parametrize("name", MODELS)
def test_a_resolved_model_reads_back_the_same(name: str) -> None:
    model = ModelConfig(name=name)  # type: ignore[arg-type]
    assert ModelConfig(**model.model_dump(mode="json")) == model


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--model.name", "ViT-B/31"), "did you mean ViT-B/32"),
        (("--model.image_size", "63"), "63 can't be divided by"),
        (("--model.heads", "5"), "can't be divided by 5 heads"),
        (("--model.stem", "8,8", "--model.stem_strides", "2"), "stem_strides has 1"),
        (("--optim.lr", "0"), "optim.lr"),
        (("--optim.beta2", "1"), "less than 1"),
        (("--data.crop_min", "0"), "greater than 0"),
        (("--bach", "8"), "did you mean --batch"),
    ],
)
def test_mistakes_name_the_key(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(*argv)


def test_identity_holds_what_changes_the_weights_and_nothing_else() -> None:
    base = read().identity()
    for argv in (
        ("--corpus", "elsewhere"),
        ("--run", "other"),
        ("--loop.log_every", "3"),
        ("--data.workers", "7"),
        ("--data.cache_mb", "0"),
        ("--device", "cpu"),
    ):
        assert read(*argv).identity() == base
    for argv in (
        ("--seed", "1"),
        ("--batch", "8"),
        ("--data.crop_min", "0.5"),
        ("--model.layers", "5"),
        ("--optim.lr", "1e-3"),
        ("--precision", "bf16"),
    ):
        assert read(*argv).identity() != base


@pytest.mark.parametrize("name", ["sample.toml", "small.toml"])
def test_the_configs_in_runs_are_valid(name: str) -> None:
    path = Path(__file__).parents[2] / "runs" / name
    config = read("--config", str(path))
    assert config.identity() != read().identity()
