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
        (("--model.name", "RN50x5"), "did you mean RN50x4"),
        (("--model.name", "RN50", "--model.image_size", "225"), "225 can't be .* 32 .*; 224 can"),
        (("--model.name", "RN50", "--model.heads", "7"), "2048 can't be divided by 7 heads"),
        (("--model.name", "RN50", "--model.width", "33"), "width 33 .* must be even"),
        (("--model.name", "RN50", "--model.layers", "6"), "layers has no meaning in a ResNet"),
        (("--model.name", "RN50", "--model.blocks", "3,4"), "blocks has 2 numbers"),
        (("--model.blocks", "3,4,6,3"), "set tower = resnet"),
        (("--model.tower", "resnt"), "did you mean resnet"),
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


PAPER = [  # tables 18 to 20 and section 2.5: name, rate, second beta, epsilon, epochs
    ("RN50", 5e-4, 0.999, 1e-8, 32),
    ("RN101", 5e-4, 0.999, 1e-8, 32),
    ("RN50x4", 5e-4, 0.999, 1e-8, 32),
    ("RN50x16", 4e-4, 0.999, 1e-8, 32),
    ("RN50x64", 3.6e-4, 0.999, 1e-8, 32),
    ("ViT-B/32", 5e-4, 0.98, 1e-6, 32),
    ("ViT-B/16", 5e-4, 0.98, 1e-6, 32),
    ("ViT-L/14", 4e-4, 0.98, 1e-6, 32),
    ("ViT-L/14@336px", 2e-5, 0.98, 1e-6, 1),
]


@pytest.mark.parametrize(("name", "lr", "beta2", "eps", "epochs"), PAPER)
def test_the_papers_configs(name: str, lr: float, beta2: float, eps: float, epochs: int) -> None:
    file = name.lower().replace("/", "-").replace("@", "-") + ".toml"
    config = read("--config", str(Path(__file__).parents[2] / "runs" / "paper" / file))
    optim = config.optim
    assert config.model == ModelConfig.model_validate({"name": name})
    assert (optim.lr, optim.beta1, optim.beta2, optim.eps) == (lr, 0.9, beta2, eps)
    assert (config.batch, config.epochs, config.vocab) == (32_768, epochs, "openai")
    assert (optim.weight_decay, optim.warmup, optim.max_scale) == (0.2, 2000, 100)
    assert (optim.init_temperature, optim.clip_norm, config.data.crop_min) == (0.07, 0, 1)


def test_every_paper_config_is_tested() -> None:
    found = list((Path(__file__).parents[2] / "runs" / "paper").iterdir())
    assert len(found) == len(PAPER)
