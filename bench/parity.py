"""The nine models beside independent implementations: the same random weights, the same numbers?

    python bench/parity.py [--models NAME ... | --all] [--fp64] [--json]

Peers: transformers' CLIPModel for the ViTs; for the ResNets open_clip's modified_resnet.py, with
transformers' text tower. Nothing is downloaded: our initialisation, with all gains, biases and
running statistics made random, is mapped to the peer's names by the map that `wit export` uses.

A difference is the largest one, as a share of the peer's largest value; for logits as a share of
their scale, so of cosines. That of the gradient is of all tensors as one vector, by length;
`tensor` is the worst one of them, by its largest difference. Features (at length 1) and logits are
compared in evaluation mode; gradients in training mode, where batch norms use the batch, of a
weighted sum of logits, the weights having the signs that logits have in fp32: in the loss of so
small a batch most gradients of biases cancel. bf16 is autocast on both sides, with weights and
running statistics in fp32; transformers rounds logits to bf16 too. Beside the difference of the two
stands how far each is from the gradient in fp32, which is what rounding costs; and all three again
with batch norms that use their running statistics (frozen). fp64 tells what is left of a difference
without rounding.
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
COLUMNS = {
    "image": "image", "text": "text", "logits": "logits", "gradient": "gradient",
    "tensor": "tensor", "ours_from_fp32": "ours–\nfp32", "peer_from_fp32": "peer–\nfp32",
    "gradient_frozen": "frozen\ngradient", "ours_from_fp32_frozen": "ours–\nfp32",
    "peer_from_fp32_frozen": "peer–\nfp32",
}  # fmt: skip
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
    """Gains around 1, biases and running means around 0.

    Norms that end a residual branch begin at 0 and get gains of 0.1 to 0.3. With gains of 1 on
    50 layers the gradient is chaotic: in bf16 it is then nowhere near that in fp32, in any
    implementation, and two of them differ by as much as two roundings are ever apart.
    """
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("num_batches_tracked", "logit_scale")) or tensor.ndim != 1:
                continue
            if name.startswith("visual.layer") and name.endswith("bn3.weight"):
                tensor.uniform_(0.1, 0.3)
            elif name.endswith(("weight", "running_var")):
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


def gradients(
    net: CLIP | Peer,
    img_BCSS: Tensor,
    tokens_BL: Tensor,
    weight_BB: Tensor,
    bf16: bool,
    frozen: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Of a weighted sum of logits, under the peer's names; and the logits.

    Biases of keys are left out: softmax knows no shift, so theirs is 0 but for rounding.

    Args:
        frozen: batch norms use their running statistics in place of the batch's.
    """
    net.train(not frozen).zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = net(img_BCSS, tokens_BL)
    *_, logits_BB = cosines(*out) if isinstance(net, CLIP) else out
    torch.autograd.backward((logits_BB * weight_BB).sum())
    found = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    if isinstance(net, CLIP):
        found = dict(renamed(found, vit="visual.class_embedding" in found))
    net.zero_grad()
    return (
        {n: g for n, g in found.items() if not n.endswith("k_proj.bias")},
        logits_BB.detach(),
    )


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of all tensors as one vector: the length of the difference as a share of theirs."""
    total = sum((ours[n].double() - g.double()).square().sum().item() for n, g in theirs.items())
    return math.sqrt(total / sum(g.double().square().sum().item() for g in theirs.values()))


def gradient_differences(
    model: CLIP, peer: Peer, img_BCSS: Tensor, tokens_BL: Tensor, weight_BB: Tensor, bf16: bool
) -> dict[str, Any]:
    """Of the batch's statistics, and in bf16 of running ones too, beside gradients in fp32."""
    found: dict[str, Any] = {}
    for frozen in (False, True) if bf16 else (False,):
        inputs = (img_BCSS, tokens_BL, weight_BB)
        ours, _ = gradients(model, *inputs, bf16, frozen)
        theirs, _ = gradients(peer, *inputs, bf16, frozen)
        end = "_frozen" if frozen else ""
        found["gradient" + end] = apart(ours, theirs)
        if not frozen:
            worst, name = max((share(ours[n], g), n) for n, g in theirs.items())
            found |= {"tensor": worst, "worst": name}
        if bf16:
            truth, _ = gradients(peer, *inputs, bf16=False, frozen=frozen)
            found["ours_from_fp32" + end] = apart(ours, truth)
            found["peer_from_fp32" + end] = apart(theirs, truth)
    return found


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
    weight_BB = torch.rand(batch, batch) + 0.5
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    signed = False
    for kind in kinds:
        wide = torch.float64 if kind == "fp64" else torch.float32
        inputs = (model.to(wide), peer.to(wide), img_BCSS.to(wide), tokens_BL)
        found[kind] = forward_differences(*inputs, bf16=kind == "bf16")
        if not signed:
            weight_BB *= gradients(*inputs[1:], weight_BB, bf16=False)[1].sign()
            signed = True
        found[kind] |= gradient_differences(*inputs, weight_BB, kind == "bf16")
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
    for head in ("model", "", *COLUMNS.values()):
        table.add_column(head, justify="left" if head in ("model", "") else "right", no_wrap=True)
    results = {}
    for name in PUBLISHED if options.all else options.models:
        found = results[name] = measure(ModelConfig.model_validate({"name": name}), kinds)
        for kind in kinds:
            cells = (f"{found[kind][key]:.1e}" if key in found[kind] else "" for key in COLUMNS)
            table.add_row(name, kind, *cells)
        print(f"{name}: measured", file=sys.stderr)
    Console(width=120).print(table)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
