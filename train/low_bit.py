"""Fewer bits for what a GPU has no room or time for, by torchao: the optimiser's states, fp8.

`optim.states`:
- 8bit: AdamW's moments in blocks of 256 values of 8 bits with a scale (Dettmers et al. 2022);
  tensors of fewer than 4,096 values keep fp32. A parameter takes 10 bytes instead of 16.
- bf16: weights and moments in bf16 alone, each step rounded up or down at random so that small
  steps count on average, as the paper's text encoder and Adam statistics are (section 2.5). A
  parameter takes 8 bytes.

`precision = fp8`: products of the blocks' linear layers in fp8 with one scale a tensor
(Micikevicius et al. 2022); all else as with bf16.
"""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from train.config import OptimConfig
from train.model import CLIP
from train.model.transformer import Block
from wit.errors import ConfigError, MissingExtra

FP8_CAPABILITY = (8, 9)  # of the first cards with products in fp8: Ada; Hopper is 9.0
_STATE, _PARTS = "OptimState8bit", ("codes", "scale", "qmap", "signed")  # torchao's
_MARK = "8bit"
_MULTIPLE = 16  # of both sides of a matrix, for a product in fp8


def _torchao(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how it was written, and libraries of other cards
        logging.disable(logging.WARNING)
        try:
            return importlib.import_module(f"torchao.{module}")
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "torchao":
                raise
            raise MissingExtra("torchao", "lowbit") from None
        finally:
            logging.disable(logging.NOTSET)


def adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW of torchao over groups of parameters; see `OptimConfig.states`."""
    optim = _torchao("optim")
    given = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.states == "8bit":
        made: torch.optim.Optimizer = optim.AdamW8bit(groups, **given)
    else:
        made = optim._AdamW(groups, **given, bf16_stochastic_round=True)
    return made


def plain(state: Any) -> Any:
    """A tree with the parts of every 8-bit tensor in place of it, so that files of it hold nothing
    but plain tensors, and copies are copies."""
    if type(state).__name__ == _STATE:
        parts = {name: getattr(state, name) for name in _PARTS}
        return {_MARK: True, "dtype": str(state.dtype).removeprefix("torch."), **parts}
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(plain(value) for value in state)
    return state


def restored(state: Any) -> Any:
    """What `plain` was given."""
    if isinstance(state, dict) and state.get(_MARK):
        made = getattr(_torchao("optim.subclass_8bit"), _STATE)
        dtype = getattr(torch, state["dtype"])
        return made(*(state[name] for name in _PARTS), dtype)
    if isinstance(state, dict):
        return {key: restored(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(restored(value) for value in state)
    return state


@contextmanager
def rounding(states: str, seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Random numbers of a step of the optimiser that are the same in all processes, so that
    weights which are rounded at random stay the same too."""
    if states != "bf16":
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


def in_fp32(model: CLIP) -> CLIP:
    """The model, or a copy with all weights in fp32 where some are not."""
    if all(p.dtype == torch.float32 for p in model.parameters()):
        return model
    return copy.deepcopy(model).float()


def prepare(model: nn.Module, states: str, precision: str, device: torch.device) -> None:
    """What the two settings change of a new model, in place; `precision` is the one in use.

    Raises:
        ConfigError: the device, or the precision, has no part in it.
    """
    if precision == "fp8":
        use_fp8(model, device)
    if states == "bf16":
        if precision not in ("bf16", "fp8"):
            raise ConfigError(
                f"optim.states = bf16 makes weights bf16, and precision = {precision} can't compute"
                " with them: use precision = bf16"
            )
        round_weights(model)


def round_weights(model: nn.Module) -> None:
    """Matrices, embeddings and kernels to bf16, in place; gains, biases and the scale stay."""
    for p in model.parameters():
        if p.ndim >= 2:
            p.data = p.data.to(torch.bfloat16)


def use_fp8(model: nn.Module, device: torch.device, emulate: bool = False) -> None:
    """Let the linear layers of the blocks compute in fp8, in place; names of weights stay.

    Args:
        emulate: with the same rounding, but in fp32, on any device; for tests.

    Raises:
        ConfigError: the device has no such products.
    """
    if not emulate:
        able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
        if not able:
            raise ConfigError(
                "precision = fp8 needs a GPU of compute capability 8.9 or more: use bf16"
            )
    float8 = _torchao("float8")

    def fits(layer: nn.Module, name: str) -> bool:
        weight: Tensor | None = getattr(layer, "weight", None)
        return weight is not None and all(side % _MULTIPLE == 0 for side in weight.shape)

    for block in model.modules():
        if isinstance(block, Block):
            float8.convert_to_float8_training(
                block,
                # packed captions have any number of tokens, the inner side of weight gradients
                config=float8.Float8LinearConfig(emulate=emulate, pad_inner_dim=True),
                module_filter_fn=fits,
            )
