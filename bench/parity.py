"""The nine models beside independent implementations: the same random weights, the same numbers?

    python bench/parity.py [--models NAME ... | --all] [--fp64] [--json]

Peers: transformers' CLIPModel for the ViTs; for the ResNets open_clip's modified_resnet.py, with
transformers' text tower. Nothing is downloaded: our initialisation, with all gains, biases and
running statistics made random, is mapped to the peer's names by the map that `wit export` uses.

A difference is the largest one, as a share of the peer's largest value; for logits as a share of
their scale, so of cosines. That of the gradient is of all tensors as one vector, by length;
`tensor` is the worst one of them, by its largest difference. Features (at length 1) and logits are
compared in evaluation mode; gradients in training mode, where batch norms use the batch, of a
weighted sum of the logits' magnitudes: in the loss of so small a batch most gradients of biases
cancel. bf16 is autocast on both sides; transformers rounds logits to it too. fp64 tells what is
left of a difference without rounding.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection

from train.config import MODELS, ModelConfig
from train.interchange import hugging_face
from train.model.clip import CLIP

VOCAB = 49_408
KINDS = ("fp32", "bf16")
PUBLISHED = [name for name in MODELS if name.startswith(("RN", "ViT"))]


def renamed(tensors: dict[str, Tensor], vit: bool) -> Iterator[tuple[str, Tensor]]:
    """Our tensors (weights or their gradients) under the names and in the shapes of a `Peer`."""
    for name, tensor in tensors.items():
        if not vit and name.startswith(("logit_scale", "visual.")):
            yield name, tensor
        else:
            for theirs, part in hugging_face.renamed([(name, tensor)]):
                yield f"clip.{theirs}", part


def open_clip_resnet() -> Any:
    """The class in open_clip's modified_resnet.py, loaded alone: its package needs torchvision.

    Raises:
        ModuleNotFoundError: open_clip_torch is not installed.
    """
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("open_clip is not installed", name="open_clip")
    package, utils = types.ModuleType("lone_open_clip"), types.ModuleType("lone_open_clip.utils")
    package.__path__ = []
    for helper in ("freeze_batch_norm_2d", "feature_take_indices"):  # of paths not taken here
        setattr(utils, helper, None)
    sys.modules |= {"lone_open_clip": package, "lone_open_clip.utils": utils}
    path = Path(found.origin).with_name("modified_resnet.py")
    spec = importlib.util.spec_from_file_location("lone_open_clip.modified_resnet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModifiedResNet


class Peer(nn.Module):
    """The other implementation; `forward` gives features at length 1 (B, E) and logits (B, B)."""

    def __init__(self, config: ModelConfig, vocab: int) -> None:
        super().__init__()
        common = {"projection_dim": config.embed_dim, "hidden_act": config.activation}
        text = common | {
            "vocab_size": vocab,
            "eos_token_id": vocab - 1,
            "hidden_size": config.text_width,
            "intermediate_size": 4 * config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "max_position_embeddings": config.context_length,
        }
        self.visual = None
        if config.tower == "resnet":
            resnet = open_clip_resnet()
            self.visual = resnet(
                config.blocks, config.embed_dim, config.heads, config.image_size, config.width
            )
            self.logit_scale = nn.Parameter(torch.zeros(()))
            self.clip: nn.Module = CLIPTextModelWithProjection(CLIPTextConfig(**text))
            return
        image = common | {
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "image_size": config.image_size,
            "patch_size": config.patch,
        }
        self.clip = CLIPModel(
            CLIPConfig(text_config=text, vision_config=image, projection_dim=config.embed_dim)
        )

    def forward(self, img_BCSS: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.visual is None:
            out = self.clip(pixel_values=img_BCSS, input_ids=tokens_BL)
            return out.image_embeds, out.text_embeds, out.logits_per_image
        image_BE, text_BE = self.visual(img_BCSS), self.clip(input_ids=tokens_BL).text_embeds
        return cosines(image_BE, text_BE, self.logit_scale)


def cosines(image_BE: Tensor, text_BE: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features at length 1 and the logits, in fp32 as the loss has them, or fp64."""
    wide = torch.promote_types(image_BE.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        image_BE, text_BE = F.normalize(image_BE.to(wide)), F.normalize(text_BE.to(wide))
        return image_BE, text_BE, log_scale.exp() * image_BE @ text_BE.T


def make_random(model: nn.Module) -> None:
    """Gains around 1, also of norms that begin at 0, biases and running means around 0."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("num_batches_tracked", "logit_scale")) or tensor.ndim != 1:
                continue
            if name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(std=0.1)


def share(ours: Tensor, peer: Tensor, whole: Tensor | None = None) -> float:
    """Largest difference as a share of the largest of `whole`, by default the peer's."""
    whole = peer if whole is None else whole
    value = ((ours.double() - peer.double()).abs().max() / whole.double().abs().max()).item()
    return math.inf if math.isnan(value) else value  # a maximum would pass over NaN


def forward_differences(
    model: CLIP, peer: Peer, img_BCSS: Tensor, tokens_BL: Tensor, bf16: bool
) -> dict[str, float]:
    model.eval(), peer.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours = cosines(*model(img_BCSS, tokens_BL))
        theirs = peer(img_BCSS, tokens_BL)
    scale = model.logit_scale.detach().exp()
    return {
        "image": share(ours[0], theirs[0]),
        "text": share(ours[1], theirs[1]),
        "logits": share(ours[2], theirs[2], whole=scale),
    }


def gradient_difference(
    model: CLIP, peer: Peer, img_BCSS: Tensor, tokens_BL: Tensor, bf16: bool
) -> tuple[float, str, float]:
    """The worst tensor's, its name in the peer, and that of all tensors as one vector, by length.

    Biases of keys are left out: softmax knows no shift, so theirs is 0 but for rounding.
    """
    weight_BB = torch.rand(len(img_BCSS), len(img_BCSS)) + 0.5
    for net in (model, peer):
        net.train().zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(img_BCSS, tokens_BL)
        *_, logits_BB = cosines(*out) if net is model else out
        torch.autograd.backward((logits_BB.abs() * weight_BB).sum())
    theirs = {n: p.grad for n, p in peer.named_parameters() if not n.endswith("k_proj.bias")}
    ours = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    mapped = dict(renamed(ours, vit=peer.visual is None))
    pairs = [(n, mapped[n].double(), g.double()) for n, g in theirs.items() if g is not None]
    worst, name = max((share(mine, g), n) for n, mine, g in pairs)
    apart = sum((mine - g).square().sum().item() for _, mine, g in pairs)
    whole = math.sqrt(apart / sum(g.square().sum().item() for _, _, g in pairs))
    return worst, name, whole


def measure(
    config: ModelConfig, kinds: Sequence[str] = KINDS, batch: int = 2, vocab: int = VOCAB
) -> dict[str, Any]:
    """Differences of one model with random weights, in each kind of arithmetic."""
    torch.manual_seed(0)
    vit = config.tower == "vit"
    model = CLIP(config, vocab)
    make_random(model)
    peer = Peer(config, vocab)
    peer.load_state_dict(dict(renamed(model.state_dict(), vit)), assign=True)
    size, context = config.image_size, config.context_length
    img_BCSS = torch.randn(batch, 3, size, size)
    tokens_BL = torch.zeros(batch, context, dtype=torch.long)
    for row, length in zip(tokens_BL, range(context, 0, -5), strict=False):
        row[: length - 1] = torch.randint(1, vocab - 2, (length - 1,))
        row[length - 1] = vocab - 1
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    for kind in kinds:
        wide = torch.float64 if kind == "fp64" else torch.float32
        inputs = (model.to(wide), peer.to(wide), img_BCSS.to(wide), tokens_BL, kind == "bf16")
        found[kind] = forward_differences(*inputs)
        worst, name, whole = gradient_difference(*inputs)
        found[kind] |= {"gradient": whole, "tensor": worst, "worst": name}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["RN50", "ViT-B/32"], choices=PUBLISHED)
    parser.add_argument("--all", action="store_true", help="all nine: many minutes")
    parser.add_argument("--fp64", action="store_true", help="in fp64 instead of fp32 and bf16")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    kinds = ("fp64",) if options.fp64 else KINDS
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("\nmodel", no_wrap=True)
    names = ("image", "text", "logits", "gradient", "tensor")
    columns = [(kind, name) for kind in kinds for name in names]
    for kind, name in columns:
        table.add_column(f"{kind}\n{name}", justify="right", no_wrap=True)
    results = {}
    for name in PUBLISHED if options.all else options.models:
        found = results[name] = measure(ModelConfig.model_validate({"name": name}), kinds)
        table.add_row(name, *(f"{found[kind][key]:.1e}" for kind, key in columns))
        print(f"{name}: measured", file=sys.stderr)
    Console().print(table)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
