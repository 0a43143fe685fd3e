"""`wit classify`, from its command line to its lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from train import load_model
from train.classify_command import classify, main
from train.loop import train
from wit.errors import ConfigError, InputError

LABELS = "red,green,blue,yellow"


@pytest.fixture
def trained(make_config, tmp_path: Path) -> Path:
    """A run that has learnt the colours of its squares a little."""
    config = make_config(steps=120, loop__log_every=60, loop__save_every=120, pack=False)
    assert train(config) == 0
    return config.run


def plain(path: Path, colour: tuple[int, int, int]) -> Path:
    pixels = np.full((30, 36, 3), 125, np.uint8)
    pixels[6:24, 8:26] = colour
    Image.fromarray(pixels).save(path)
    return path


def test_colours_are_told_apart(trained: Path, tmp_path: Path, capsys) -> None:
    red = plain(tmp_path / "first.png", (220, 30, 30))
    blue = plain(tmp_path / "second.png", (30, 40, 220))
    argv = [str(red), str(blue), f"--model={trained}", f"--labels={LABELS}", "--device=cpu"]
    argv += ["--template=A large {c} square.", "--template=A small {c} square."]
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    out = capsys.readouterr()
    first, second = json.loads(out.out)
    assert out.err == f"{trained}: run, gelu as trained\n"
    assert (first["image"], second["image"]) == (str(red), str(blue))
    assert [row["labels"][0]["label"] for row in (first, second)] == ["red", "blue"]
    for row in (first, second):
        shares = [label["probability"] for label in row["labels"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
    model = load_model(trained)
    image = model.encode_image(model.preprocess(Image.open(red))[None], normalize=True)
    prompts = [f"A {size} red square." for size in ("large", "small")]
    mean = model.encode_text(model.tokenize(prompts), normalize=True).mean(dim=0)
    cosine = torch.nn.functional.cosine_similarity(image[0], mean, dim=0).item()
    assert first["labels"][0]["cosine"] == pytest.approx(cosine, abs=1e-5)

    assert main([*argv, "--top=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[3], len(lines)) == (str(red), str(blue), 6)
    best = first["labels"][0]
    assert lines[1].split() == [f"{best['probability']:.1%}", "cosine", f"{cosine:.3f}", "red"]
    model = load_model(trained)
    model.clip.logit_bias = nn.Parameter(
        torch.tensor(-10.0)
    )  # of a sigmoid objective: each for itself
    (rows,) = classify(model, [Image.open(red)], ["red", "blue"], ["{c}"])
    assert sum(row["probability"] for row in rows) < 1


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (["{tmp}/none.png", "--labels=a,b"], InputError, "none.png: can't be read: No such file"),
        (["{tmp}/text.png", "--labels=a,b"], InputError, "text.png: .*not_an_image"),
        (["{tmp}/text.png", "--labels=a"], ConfigError, "at least two different labels"),
        (["{tmp}/text.png", "--labels=a,a"], ConfigError, "at least two different labels"),
        (["{tmp}/text.png", "--labels=a,b", "--template=x"], ConfigError, "write {c} where"),
        (["--labels=a,b"], ConfigError, "required: IMAGES"),
    ],
)
def test_mistakes(argv: list[str], error, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(error, match=message) as caught:
        main([part.replace("{tmp}", str(tmp_path)) for part in argv])
    assert "\n" not in str(caught.value)
