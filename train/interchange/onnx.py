"""Both towers as ONNX graphs: image.onnx and text.onnx, any batch.

    image.onnx  pictures uint8 (B, 3, S, S), as the evaluation transform leaves them -> features
    text.onnx   tokens int64 (B, context length) -> features

Features (B, E) are those of `encode_image` and `encode_text`. Normalisation of the pixels is part
of the graph. onnx.json holds the scale of the logits and what else an application needs to know.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from train.loaded import LoadedModel
from wit.config import write_json
from wit.errors import MissingExtra
from wit.progress import Progress

OPSET = 18
EXAMPLES = 2  # pictures or texts that are traced; a batch of 1 would be taken for a constant


class Tower(nn.Module):
    """One of the model's two functions as a module of its own."""

    def __init__(self, model: LoadedModel, image: bool) -> None:
        super().__init__()
        self.clip, self.image = model.clip, image

    def forward(self, x: Tensor) -> Tensor:
        return self.clip.encode_image(x) if self.image else self.clip.encode_text(x)


def write(model: LoadedModel, folder: Path) -> None:
    """Write both graphs, onnx.json and the vocabulary.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "onnx")
    size = model.image_size
    img_BCSS = torch.zeros(EXAMPLES, 3, size, size, dtype=torch.uint8, device=model.device)
    tokens_BL = model.tokenize(["a"] * EXAMPLES).to(model.device)
    progress = Progress("export")
    _graph(Tower(model, image=True), img_BCSS, "pictures", folder / "image.onnx")
    progress(1, 2, "graphs")  # each of a large model takes minutes
    _graph(Tower(model, image=False), tokens_BL, "tokens", folder / "text.onnx")
    progress.clear()
    model.tokenizer.save(folder / "tokenizer.json")
    about = {
        "image_size": size,
        "context_length": model.context_length,
        "embed_dim": model.embed_dim,
        "logit_scale": model.logit_scale,
        "logit_bias": model.logit_bias,
        "start_id": model.tokenizer.sot,
        "end_id": model.tokenizer.eot,
        "fingerprint": model.fingerprint,
    }
    write_json(about, folder / "onnx.json")


def _graph(tower: Tower, example: Tensor, name: str, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it remarks on absent torchvision
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own internals
        torch.onnx.export(
            tower.eval(),
            (example,),
            path,
            input_names=[name],
            output_names=["features"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: batch},),
            external_data=True,
            verbose=False,
        )
