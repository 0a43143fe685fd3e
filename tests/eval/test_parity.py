"""Zero-shot scores beside transformers: its model, its picture transform, open_clip's tokenizer.

The weights are random and the images drawn here, so nothing is downloaded.
"""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval import task
from eval.config import EvalConfig
from eval.features import Encoder
from eval.sets import open_set
from train.config import ModelConfig
from train.model import CLIP, LoadedModel
from wit.tokenizer import Tokenizer

SIDE, CLASSES, IMAGES = 64, 12, 96
TEMPLATES = ("a photo of a {c}.", "itap of my {c}.", "a {c} in a video game.")


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def pictures(tmp_path, tar):
    """A set of smooth random pictures of many shapes, in every format."""
    rng = np.random.default_rng(0)
    members = []
    for i in range(IMAGES):
        width, height = rng.integers(40, 200, 2).tolist()
        while SIDE * max(width, height) // min(width, height) % 2:
            width += 1  # transformers rounds an odd margin of the crop down, published code up
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        out, form = io.BytesIO(), ("PNG", "WEBP", "JPEG")[i % 3]
        image.save(out, form, quality=90)
        members += [(f"s{i:04d}.{form.lower()}", out.getvalue()),
                    (f"s{i:04d}.cls", str(i % CLASSES).encode())]  # fmt: skip
    root = tmp_path / "pictures"
    tar(root / "test" / "0.tar", members)
    (root / "test" / "nshards.txt").write_text("1")
    names = (f"{colour} {thing}" for colour in ("red", "dark blue", "grey") for thing in
             ("dog", "hot-air balloon", "traffic light", "sea"))  # fmt: skip
    (root / "classnames.txt").write_text("\n".join(names))
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    return root


def test_scores_equal_those_of_transformers(pictures, tmp_path):
    pytest.importorskip("transformers", reason="needs transformers (extra dev)")
    from transformers import CLIPImageProcessorPil

    parity = module("parity", Path(__file__).parents[2] / "bench" / "parity.py")
    open_clip = Path(importlib.util.find_spec("open_clip").submodule_search_locations[0])
    tokenize = module("open_clip_tokenizer", open_clip / "tokenizer.py").SimpleTokenizer()

    config = ModelConfig.model_validate({
        "name": "ViT-B/32", "layers": 2, "text_layers": 2, "width": 128, "text_width": 128,
        "heads": 2, "text_heads": 2, "image_size": SIDE})  # fmt: skip
    torch.manual_seed(0)
    tokenizer = Tokenizer.load("openai")
    clip = CLIP(config, tokenizer.vocab_size).eval()
    parity.make_random(clip)
    peer = parity.Peer(config, tokenizer.vocab_size).eval()
    peer.load_state_dict(dict(parity.renamed(clip.state_dict(), vit=True)))

    model = LoadedModel(clip, tokenizer, config, step=0, fingerprint="random")
    data = open_set(pictures)
    encoder = Encoder(model, tmp_path / "cache", 32, 10**6, 0)
    result = task.evaluate("zeroshot", data, encoder, EvalConfig(set=[pictures]), {})

    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE},
                                      crop_size={"height": SIDE, "width": SIDE})  # fmt: skip
    images = [Image.open(io.BytesIO(sample.read())) for sample in data.samples]
    pixels = torch.as_tensor(np.stack(processor(images)["pixel_values"]))
    weights = []
    with torch.no_grad():
        for name in data.classes:
            tokens_TL = tokenize([template.replace("{c}", name) for template in TEMPLATES])
            _, text_TE, _ = peer(pixels[:1], tokens_TL)
            mean_E = text_TE.mean(dim=0)
            weights.append(mean_E / mean_E.norm())
        image_NE, _, _ = peer(pixels, tokens_TL[:1])
    score_NC = (image_NE @ torch.stack(weights).T).numpy()

    table = result.predictions.to_pydict()
    label_N = np.array(table["label"])
    assert table["predicted"] == score_NC.argmax(axis=1).tolist()
    own_N = score_NC[np.arange(IMAGES), label_N]
    assert table["rank"] == (score_NC > own_N[:, None]).sum(axis=1).tolist()
    np.testing.assert_allclose(table["score"], own_N, atol=2e-6)
    assert len(set(table["predicted"])) > 3  # the answers are not all one class
    assert result.metrics[0].value == np.mean(score_NC.argmax(axis=1) == label_N)
