"""What was exported, read by the tools it is meant for, and by `load_model`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from train import load_model
from train.interchange.export import export
from wit.cli import run as wit
from wit.errors import ConfigError, InputError

TEXTS = ["a photo of a cat", "Two DOGS,   it's raining", "émigré 12\tnaïve 日本 😀", "", "x" * 80]


def same(made, model) -> None:
    image_BE, text_BE = made.features()
    assert torch.allclose(model.encode_image(made.img_BCSS), image_BE, atol=1e-6)
    assert torch.allclose(model.encode_text(made.tokens_BL), text_BE, atol=1e-6)


@pytest.mark.parametrize("to", ["safetensors", "hf", "open_clip"])
def test_there_and_back(made, to: str, tmp_path: Path) -> None:
    one = made("vit", "gelu")
    first = load_model(one.write_run(tmp_path / "run"))
    argv = ["export", str(tmp_path / "run"), "--to", to, "--out", str(tmp_path / "out")]
    assert wit(argv) == 0
    again = load_model(tmp_path / "out")
    same(one, again)
    assert again.config.activation == "gelu"
    assert again.logit_scale == first.logit_scale
    assert torch.equal(again.tokenize(TEXTS), first.tokenize(TEXTS))
    assert load_model(tmp_path / "out").fingerprint == again.fingerprint
    assert again.step == (7 if to == "safetensors" else 0)
    with pytest.raises(InputError, match="is there already"):
        wit(argv)


@pytest.mark.parametrize("to", ["safetensors", "open_clip"])
def test_resnets_there_and_back(made, to: str, tmp_path: Path) -> None:
    one = made("resnet")
    model = load_model(one.write_run(tmp_path / "run"))
    export(model, to, tmp_path / "out")
    same(one, load_model(tmp_path / "out"))
    with pytest.raises(ConfigError, match="Hugging Face has no form for ResNets"):
        export(model, "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stem": (8,), "patch": 4}, "a stem of convolutions .model.stem."),
        ({"pool": "max"}, "model.pool = max"),
    ],
)
def test_what_others_have_no_form_for(made, changes, words: str, tmp_path: Path) -> None:
    one = made("vit", **changes)
    model = load_model(one.write_run(tmp_path / "run"))
    for to in ("hf", "open_clip"):
        with pytest.raises(ConfigError, match=f"has no form for {words}; use --to safetensors"):
            export(model, to, tmp_path / "out")
    export(model, "safetensors", tmp_path / "out")
    same(one, load_model(tmp_path / "out"))


def test_a_bias_of_the_logits_goes_along(vit, tmp_path: Path) -> None:
    """Models of the sigmoid objective have one; Hugging Face's CLIPModel has no place for it."""
    vit.tokenizer.save(tmp_path / "words.json")
    file = tmp_path / "sigmoid.safetensors"
    save_file(vit.state | {"logit_bias": torch.tensor(-9.5)}, file)
    model = load_model(file, activation="quick_gelu", vocab=str(tmp_path / "words.json"))
    for to in ("safetensors", "open_clip"):
        export(model, to, tmp_path / to)
        assert load_model(tmp_path / to).logit_bias == -9.5
    with pytest.raises(ConfigError, match="no form for a bias of the logits"):
        export(model, "hf", tmp_path / "hf")


@pytest.mark.parametrize("published", [False, True], ids=["own words", "published words"])
def test_hugging_face_reads_it(made, published: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="extra dev")
    transformers.utils.logging.disable_progress_bar()
    one = made("vit", "quick_gelu", published)
    model = load_model(one.write_run(tmp_path / "run"))
    export(model, "hf", tmp_path / "hf")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "hf").eval()
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path / "hf")
    assert theirs.config.text_config.eos_token_id == one.tokenizer.eot

    noise_HWC = np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    picture = Image.fromarray(noise_HWC)
    inputs = processor(
        text=TEXTS, images=picture, padding="max_length", truncation=True, return_tensors="pt"
    )
    tokens_BL = model.tokenize(TEXTS)
    for row, ours in zip(inputs["input_ids"], tokens_BL, strict=True):
        end = int(ours.argmax()) + 1
        assert torch.equal(row[:end], ours[:end])
        assert (row[end:] == one.tokenizer.eot).all()  # ours are padded with zeros
    with torch.no_grad():
        out = theirs(**inputs)
    image_BE = model.encode_image(model.preprocess(picture)[None], normalize=True)
    text_BE = model.encode_text(tokens_BL, normalize=True)
    assert torch.allclose(out.image_embeds, image_BE, atol=1e-6)
    assert torch.allclose(out.text_embeds, text_BE, atol=1e-6)
    logits_BB = model.logit_scale * image_BE @ text_BE.T
    assert torch.allclose(out.logits_per_image, logits_BB, atol=1e-4)


# open_clip imports torchvision for its training transforms; nothing of it is used here.
OPEN_CLIP = """
import importlib.machinery, json, sys, types
class Empty(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"BICUBIC": 3, "BILINEAR": 2})
for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional",
             "torchvision.ops", "torchvision.ops.misc"):
    module = sys.modules[name] = Empty(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
import numpy as np, torch
from open_clip.factory import create_model, get_tokenizer
for folder in sys.argv[1:]:
    model = create_model("local-dir:" + folder).eval()
    pixels = torch.from_numpy(np.load(folder + "/pixels.npy"))
    tokens = get_tokenizer("local-dir:" + folder)(json.load(open(folder + "/texts.json")))
    with torch.no_grad():
        np.save(folder + "/image.npy", model.encode_image(pixels))
        np.save(folder + "/text.npy", model.encode_text(tokens))
"""


def test_open_clip_reads_it(made, tmp_path: Path) -> None:
    """Its own factory, in a process of its own, on models with both kinds of vocabulary."""
    pytest.importorskip("transformers", reason="extra dev")
    cases = {"vit": made("vit", "gelu"), "resnet": made("resnet", "quick_gelu", True)}
    models = {}
    for name, one in cases.items():
        models[name] = model = load_model(one.write_run(tmp_path / f"{name}-run"))
        export(model, "open_clip", tmp_path / name)
        pixels = model.clip.visual.normalised(one.img_BCSS)
        np.save(tmp_path / name / "pixels.npy", pixels)
        (tmp_path / name / "texts.json").write_text(json.dumps(TEXTS))
    script = [sys.executable, "-c", OPEN_CLIP, *(str(tmp_path / name) for name in cases)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    if "No module named 'open_clip'" in done.stderr:
        pytest.skip("needs open_clip_torch (pip install --no-deps open_clip_torch)")
    assert done.returncode == 0, done.stderr
    for name, model in models.items():
        image_BE = np.load(tmp_path / name / "image.npy")
        text_BE = np.load(tmp_path / name / "text.npy")
        ours_BE = model.encode_image(cases[name].img_BCSS)
        np.testing.assert_allclose(image_BE, ours_BE, atol=1e-5)
        np.testing.assert_allclose(text_BE, model.encode_text(model.tokenize(TEXTS)), atol=1e-5)


def test_onnx_runs(made, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra dev")
    pytest.importorskip("onnxscript", reason="extra onnx")
    one = made("vit")
    model = load_model(one.write_run(tmp_path / "run"))
    export(model, "onnx", tmp_path / "onnx")
    for name, inputs, features in zip(
        ("image", "text"), (one.img_BCSS, one.tokens_BL), one.features(), strict=True
    ):
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx")
        (entry,) = session.get_inputs()
        for batch in (1, 3):
            (out,) = session.run(None, {entry.name: inputs[:batch].numpy()})
            np.testing.assert_allclose(out, features[:batch], atol=1e-4)
    about = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    assert about["logit_scale"] == pytest.approx(model.logit_scale)
    assert about["end_id"] == one.tokenizer.eot
