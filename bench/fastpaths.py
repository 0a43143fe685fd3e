"""The exact short cuts of the towers beside the plain path: how much faster, and is it the same?

    python bench/fastpaths.py [--model ViT-B/32] [--batch 16] [--layers 3] [--device cpu] [--json]

Forward and backward of the text tower (and, for pooling, of the image tower): CPU seconds of one
thread in fp32, or seconds on a GPU with bf16 autocast. Caption lengths are drawn with a long tail,
none over 50 of 77. Ours and the plain form are timed in turn; the ratio is the median of the turns.
`difference` is the largest one in outputs and gradients, in fp32, as a share of the largest value.

  causal     the kernel's causal flag, beside a mask tensor
  pooled     the last block works out the pooled token alone, beside all of them; both towers
  truncated  captions cut at the longest of the batch, beside the whole context
  packed     no padding at all, beside truncated
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from train.config import MODELS, ModelConfig
from train.model.clip import CLIP
from train.model.transformer import Attention, Transformer, take

VOCAB, LONGEST = 1000, 50
Pair = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def captions(config: ModelConfig, rows: int) -> Tensor:
    """Ids (rows, context) with a long tail of lengths; the longest is in every batch."""
    make = torch.Generator().manual_seed(0)
    most = min(LONGEST, config.context_length)
    draw_B = torch.empty(rows).log_normal_(2.5, 0.5, generator=make)
    length_B = draw_B.long().clamp(4, most)
    length_B[0] = most
    out_BL = torch.randint(1, VOCAB - 2, (rows, config.context_length), generator=make)
    index_L = torch.arange(config.context_length)
    out_BL[index_L >= length_B[:, None]] = 0
    out_BL[:, 0] = VOCAB - 2
    return out_BL.scatter(1, length_B[:, None] - 1, VOCAB - 1)


def masked(attn: Attention, x_BND: Tensor, causal: bool, packing: None = None) -> Tensor:
    """`Attention.forward` with a mask tensor in place of the flag."""
    qkv = F.linear(x_BND, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = (attn._split(part) for part in qkv.chunk(3, dim=-1))
    tokens = x_BND.shape[1]
    mask_NN = None
    if causal:
        mask_NN = torch.full((tokens, tokens), -torch.inf, device=x_BND.device).triu(1)
        mask_NN = mask_NN.to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_NN)
    return attn.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def everything(tower: Transformer, x_BND: Tensor, at_B: Tensor, causal: bool) -> Tensor:
    """`Transformer.pooled` without its short cuts."""
    return take(tower(x_BND, causal), at_B).squeeze(1)


class Replaced:
    """A method of a class is another function while this is open."""

    def __init__(self, owner: type, name: str, value: Any) -> None:
        self._owner, self._name, self._value = owner, name, value

    def __call__(self, run: Callable[[], Tensor]) -> Tensor:
        before = getattr(self._owner, self._name)
        setattr(self._owner, self._name, self._value)
        try:
            return run()
        finally:
            setattr(self._owner, self._name, before)


def short_cuts(model: CLIP, tokens_BL: Tensor, img_BCSS: Tensor) -> dict[str, Pair]:
    """Name to (ours, plain): features with a graph."""
    longest = int(tokens_BL.argmax(dim=1).max()) + 1
    cut_BL = tokens_BL[:, :longest].contiguous()
    plain_pool = Replaced(Transformer, "pooled", everything)
    plain_mask = Replaced(Attention, "forward", masked)

    def text(ids_BL: Tensor = cut_BL, packing: bool = False) -> Tensor:
        model.transformer.packing = packing
        return model.encode_text(ids_BL)

    def image() -> Tensor:
        return model.encode_image(img_BCSS)

    def flag() -> Tensor:
        return plain_pool(lambda: text(tokens_BL))

    return {
        "causal": (flag, lambda: plain_mask(flag)),
        "pooled_text": (text, lambda: plain_pool(text)),
        "pooled_image": (image, lambda: plain_pool(image)),
        "truncated": (text, lambda: text(tokens_BL)),
        "packed": (lambda: text(packing=True), text),
    }


def once(model: CLIP, run: Callable[[], Tensor], bf16: bool) -> list[Tensor]:
    """Features and gradients of a forward and a backward pass."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(model.logit_scale.device.type, torch.bfloat16, enabled=bf16):
        out = run()
    out.float().square().mean().backward()
    return [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def timed(run: Callable[[], object], cuda: bool) -> float:
    clock = time.perf_counter if cuda else time.process_time
    started = clock()
    run()
    if cuda:
        torch.cuda.synchronize()
    return clock() - started


def measure(config: ModelConfig, batch: int, device: str, turns: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = CLIP(config, VOCAB).to(device)
    tokens_BL = captions(config, batch).to(device)
    img_BCSS = torch.zeros(batch, 3, config.image_size, config.image_size, device=device)
    img_BCSS.normal_()
    cuda = model.logit_scale.is_cuda
    found: dict[str, Any] = {}
    for name, (ours, plain) in short_cuts(model, tokens_BL, img_BCSS).items():
        pairs = zip(once(model, ours, False), once(model, plain, False), strict=True)
        found[f"difference_{name}"] = max(
            ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item() for a, b in pairs
        )
        times = []
        for turn in range(turns + 1):
            both = [timed(lambda f=f: once(model, f, cuda), cuda) for f in (plain, ours)]  # type: ignore[misc]
            times += [both] if turn else []  # the first warms up
        found[f"seconds_{name}"] = min(own for _, own in times)
        found[f"ratio_{name}"] = statistics.median(slow / own for slow, own in times)
    lengths_B = tokens_BL.argmax(dim=1) + 1
    found["mean_length"], found["longest"] = lengths_B.float().mean().item(), int(lengths_B.max())
    found["ratio_pooled"] = found["ratio_pooled_text"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=[n for n in MODELS if "RN" not in n], default="ViT-B/32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=3, help="of each tower; 0: as many as it has")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    layers = {"layers": options.layers, "text_layers": options.layers} if options.layers else {}
    config = ModelConfig.model_validate({"name": options.model, **layers})
    found = measure(config, options.batch, options.device, options.turns)
    lengths = f"captions of {found['mean_length']:.0f} tokens, the longest {found['longest']}"
    table = Table(title=f"{options.model}, batch {options.batch}, {lengths}", title_justify="left")
    table.add_column("short cut")
    for column in ("seconds", "plain takes", "largest difference"):
        table.add_column(column, justify="right")
    for name in ("causal", "pooled_text", "pooled_image", "truncated", "packed"):
        table.add_row(
            name.replace("_", ", "),
            f"{found[f'seconds_{name}']:.3f}",
            f"{found[f'ratio_{name}']:.2f} x",
            f"{found[f'difference_{name}']:.1e}",
        )
    Console().print(table)
    if options.json:
        print(json.dumps({"model": options.model, "batch": options.batch, **found}))


if __name__ == "__main__":
    main()
