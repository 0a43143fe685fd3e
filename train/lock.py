"""Towers that are not trained (locked-image tuning: Zhai et al. 2022)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from train.model import CLIP


def lock(model: CLIP, which: Literal["none", "image", "text"]) -> list[nn.Module]:
    """Take a tower's weights, its projection included, out of training.

    Returns:
        Its modules, which are to stay in evaluation mode: no dropout, norms as they are.
    """
    if which == "none":
        return []
    if which == "image":
        modules: list[nn.Module] = [model.visual]
    else:
        modules = [model.token_embedding, model.transformer, model.ln_final]
        for weight in (model.positional_embedding, model.text_projection):
            weight.requires_grad_(False)
    for module in modules:
        module.requires_grad_(False)
    return modules
