"""The public model object: its transform to the last bit, its two encoders, the README's script."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from train import LoadedModel, checkpoint, load_model
from train.config import TrainConfig
from train.model import CLIP
from wit.config import write_config
from wit.image import to_rgb
from wit.tokenizer import Tokenizer

SIZE = 32


def write_run(folder: Path, **model: Any) -> Path:
    folder.mkdir()
    tokenizer = Tokenizer.train(["a red cat", "a blue dog", "a photo of a house"] * 3, 560)
    tokenizer.save(folder / "tokenizer.json")
    values = {"image_size": SIZE, "width": 32, "text_width": 32, "embed_dim": 16} | model
    config = TrainConfig(run=folder, model=values)
    torch.manual_seed(0)
    clip = CLIP(config.model, tokenizer.vocab_size)
    checkpoint.save(folder, 3, {"model": clip.state_dict(), "step": 3}, keep=1)
    write_config(config, folder / "config.json")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("loaded") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> LoadedModel:
    return load_model(run)


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16))
    channels = len(mode)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=None)


def published(picture: Image.Image, size: int) -> torch.Tensor:
    """The published transform, written down anew: torchvision's Resize, CenterCrop, ToTensor and
    Normalize on a Pillow picture."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    new_size = (size, new_long) if width <= height else (new_long, size)
    picture = picture.resize(new_size, Image.Resampling.BICUBIC)
    left = round((new_size[0] - size) / 2.0)
    top = round((new_size[1] - size) / 2.0)
    picture = picture.crop((left, top, left + size, top + size)).convert("RGB")
    pixels_CSS = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(torch.float32).div(255)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return pixels_CSS.sub_(mean).div_(std)


SHAPES = [
    (SIZE, SIZE),
    (32, 33),
    (33, 32),
    (35, 32),
    (61, 47),
    (47, 61),
    (224, 7),
    (5, 9),
    (31, 97),
]


@pytest.mark.parametrize(("width", "height"), SHAPES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_transform_is_the_published_one(model, width: int, height: int, mode: str) -> None:
    picture = noise(width, height, mode)
    pixels_CSS = model.preprocess(picture)
    assert (pixels_CSS.dtype, pixels_CSS.shape) == (torch.uint8, (3, SIZE, SIZE))
    normalised = model.clip.visual.normalised(pixels_CSS[None])[0]
    assert torch.equal(normalised, published(picture, SIZE))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_other_modes_become_rgb_before(model, mode: str) -> None:
    """Transparency lies over white, 16-bit grey keeps its high byte; then as published."""
    picture = noise(61, 47, mode)
    rgb = to_rgb(picture)
    normalised = model.clip.visual.normalised(model.preprocess(picture)[None])[0]
    assert torch.equal(normalised, published(rgb, SIZE))
    raw = np.asarray(picture).astype(np.float64)
    if mode == "I;16":
        right_HW3 = np.repeat((raw // 256)[..., None], 3, axis=2)
    else:
        alpha = raw[..., -1:] / 255
        right_HW3 = np.broadcast_to(raw[..., :-1], (47, 61, 3)) * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(rgb) - right_HW3).max() <= 1


def test_a_golden_picture(model) -> None:
    """Pillow's resize is integer arithmetic: the same bytes on every machine."""
    y, x = np.mgrid[:101, :157]
    wave = np.stack([x * y % 256, (3 * x + y) % 256, (x ^ y) % 256], axis=2).astype(np.uint8)
    pixels_CSS = model.preprocess(Image.fromarray(wave))
    assert hashlib.sha256(pixels_CSS.numpy().tobytes()).hexdigest()[:16] == "f804fc3e0781bd11"


@pytest.mark.parametrize(("width", "height"), [(61, 47), (32, 33), (47, 61), (64, 64)])
def test_as_transformers_has_it(model, width: int, height: int) -> None:
    """Its crop is rounded down, the published one to even: equal where that is the same."""
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE)
    picture = noise(width, height)
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    ours = model.clip.visual.normalised(model.preprocess(picture)[None])
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_a_strip_is_not_blown_up(model) -> None:
    strip = Image.new("L", (60_000, 1), 77)  # 32 by 1,920,000 after a resize
    assert (model.preprocess(strip) == 77).all()


def test_encoders(model) -> None:
    pictures = torch.stack([model.preprocess(noise(40, 50, seed=i)) for i in range(3)])
    tokens = model.tokenize(["a red cat", "a blue dog"])
    assert tokens.shape == (2, model.context_length)
    image_BE, text_BE = model.encode_image(pictures), model.encode_text(tokens)
    assert image_BE.shape == (3, model.embed_dim)
    assert text_BE.shape == (2, 16)
    assert not image_BE.requires_grad
    unit_BE = model.encode_image(pictures, normalize=True)
    assert torch.allclose(unit_BE.norm(dim=1), torch.ones(3))
    assert torch.allclose(unit_BE * image_BE.norm(dim=1, keepdim=True), image_BE, atol=1e-6)
    floats = model.clip.visual.normalised(pictures)
    assert torch.allclose(model.encode_image(floats), image_BE)
    assert model.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert (model.step, model.logit_bias) == (3, None)


def test_importing_train_is_cheap() -> None:
    code = (
        "import sys, train\nassert 'torch' not in sys.modules\n"
        "try: train.nothing\nexcept AttributeError: pass\nelse: sys.exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_script_in_the_readme_runs(run: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert "load_model" in script
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run").symlink_to(run)
    noise(60, 40).save(tmp_path / "cat.jpg")
    (tmp_path / "script.py").write_text(script)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shares = re.findall(r"([\d.]+)% +a (?:cat|dog|house)", done.stdout)
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)
