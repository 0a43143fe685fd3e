"""AdamW as the paper uses it, and its learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from train.config import OptimConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights with decay; gains, biases, the scale and the norms without.

    A tensor of two dimensions or more is a weight (projections, embeddings, kernels); all others
    are gains, biases, the class token or the temperature.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """The fused kernel: one pass over the parameters, on CPU and GPU."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


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
