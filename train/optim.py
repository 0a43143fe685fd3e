"""AdamW as the paper uses it, and its learning rate as a pure function of the step."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from train import low_bit
from train.config import OptimConfig

# of both towers and of other objectives: what the blocks' output goes through
AFTER_BLOCKS = (
    *("ln_post", "proj", "attnpool", "ln_final", "text_projection", "logit_", "words"),
    "image_projection",
)


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Weights with decay; gains, biases, the scale and the norms without.

    A tensor of two dimensions or more is a weight (projections, embeddings, kernels); all others
    are gains, biases, the class token or the temperature. With a `layer_decay` below 1 each depth
    of the towers has two groups of its own, whose `factor` multiplies the learning rate.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    if layer_decay == 1.0:
        groups = {(1.0, True): [], (1.0, False): []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            factor = layer_decay ** _below_top(name, model) if layer_decay < 1 else 1.0
            groups.setdefault((factor, p.ndim >= 2), []).append(p)
    return [
        {"params": params, "weight_decay": weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), params in groups.items()
        if params or factor == 1.0
    ]


def _below_top(name: str, model: nn.Module) -> int:
    """How many blocks of its tower lie above a parameter; 0 of what comes after the last one.

    Blocks of a ResNet are its four stages. What comes before the first block counts as one.
    """
    tower: Any = model.visual if name.startswith("visual.") else model
    own = name.removeprefix("visual.")
    if own.startswith(AFTER_BLOCKS):
        return 0
    if hasattr(tower, "layer1"):
        blocks, found = 4, re.match(r"layer(\d)\.", own)
        at = int(found[1]) - 1 if found else -1
    else:
        blocks, found = tower.transformer.layers, re.match(r"transformer\.resblocks\.(\d+)\.", own)
        at = int(found[1]) if found else -1
    if found:
        return blocks - at
    return blocks + 1


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The fused kernel: one pass over the parameters, on CPU and GPU; or one with fewer bits."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    if config.states != "fp32":
        return low_bit.adamw(groups, config)
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step, times the factor of each group."""
    for group in optimizer.param_groups:
        own = rate * group.get("factor", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warm-up, then a half cosine that ends at `final_lr` times the peak.

    Args:
        step: steps done, 0 to `steps` - 1.
        steps: of the whole run. A short run warms up for a tenth of it at most.
    """
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)


@torch.no_grad()
def clip_scale(log_scale: torch.Tensor, max_scale: float) -> None:
    """Keep the scale of the logits at or below `max_scale` (100 in the paper), in place."""
    log_scale.clamp_(max=math.log(max_scale))
