"""One model on many processes: replicated (DDP), or in shards (FSDP2).

Sharded, each process keeps its part of every weight, gradient and moment, and gathers a block's
weights when that block is due. What is computed is the same. Checkpoints know nothing of it: their
tensors are whole, under the same names, so a run may change the strategy and the number of
processes whenever it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from train.config import Parallel, TrainConfig
from train.dist import World
from train.model import CLIP
from train.model.resnet import Bottleneck
from train.model.transformer import Block
from wit.errors import ConfigError


def refuse_what_needs_whole_weights(config: TrainConfig, here: World) -> None:
    """Raise a ConfigError for settings that a sharded model doesn't serve."""
    if config.parallel == "ddp" or here.size == 1:
        return
    asked = {
        f"compile = {config.compile}": config.compile != "off",
        f"precision = {config.precision}": config.precision in ("fp16", "fp8"),
        f"optim.states = {config.optim.states}": config.optim.states != "fp32",
        f"optim.ema = {config.optim.ema}": bool(config.optim.ema),
        f"optim.layer_decay = {config.optim.layer_decay}": config.optim.layer_decay != 1,
        f"lock = {config.lock}": config.lock != "none",
        "validation": bool(config.validation.corpus or config.validation.sets),
    }
    for setting, is_asked in asked.items():
        if is_asked:
            raise ConfigError(f"{setting} needs whole weights, which parallel = fsdp cuts: use ddp")


def spread(model: CLIP, how: Parallel, here: World) -> nn.Module:
    """The model as all processes together call it; sharded, that is `model` itself, changed.

    Every process comes with the same weights. The optimiser is to be made afterwards.
    """
    if here.size == 1:
        return model
    if how == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh(here.device.type, (here.size,))
    for part in list(model.modules()):
        if isinstance(part, (Block, Bottleneck)):
            fully_shard(part, mesh=mesh)
        if isinstance(part, Block):
            register_fsdp_forward_method(part, "one")
    scalars = {p for p in model.parameters() if p.ndim == 0}  # can't be cut
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    return model


def average_scalars(model: nn.Module, here: World) -> None:
    """What a sharded model leaves to us of the mean of gradients over processes."""
    if isinstance(model, FSDPModule):
        for p in model.parameters():
            if p.grad is not None and not isinstance(p, DTensor):
                p.grad = here.sum(p.grad) / here.size


def gradient_norm(model: nn.Module, here: World) -> Tensor:
    """Length of the gradient of all weights as one vector, 0-D, the same for all processes."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if not isinstance(model, FSDPModule):
        return nn.utils.get_total_norm(grads)
    squares = [_local(grad).square().sum() for grad in grads]
    sharded = torch.tensor([isinstance(grad, DTensor) for grad in grads], device=here.device)
    squares_P = torch.stack(squares)
    return (here.sum((squares_P * sharded).sum()) + (squares_P * ~sharded).sum()).sqrt()


@torch.no_grad()
def clip_gradients(model: nn.Module, most: float, norm: Tensor) -> None:
    """Scale the gradient of all weights, of length `norm`, down to `most`, where it is longer."""
    if not isinstance(model, FSDPModule):
        nn.utils.clip_grads_with_norm_(model.parameters(), most, norm)
        return
    factor = (most / (norm + 1e-6)).clamp(max=1.0)  # as torch has it
    for p in model.parameters():
        if p.grad is not None:
            _local(p.grad).mul_(factor)


def _local(grad: Tensor) -> Tensor:
    out: Tensor = grad.to_local() if isinstance(grad, DTensor) else grad
    return out


def whole(state: Any, here: World) -> Any:
    """The same tree with every shard made a whole tensor; all processes take part.

    Only the main process keeps them, in main memory, one after the other.
    """
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if here.main else None
    if isinstance(state, Mapping):
        return {key: whole(value, here) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value, here) for value in state)
    return state


def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Whole tensors into a model, sharded or not."""
    own = model.state_dict()
    model.load_state_dict({key: _as(own.get(key), value) for key, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Whole moments into an optimiser of a model that is sharded or not."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        number: {name: _as(weights[number], value) for name, value in of_one.items()}
        for number, of_one in state["state"].items()
        if number < len(weights)  # of another model: torch says so
    }
    optimizer.load_state_dict({**state, "state": moments})


def _as(like: Tensor | None, value: Any) -> Any:
    """`value` cut as `like` is, where that is cut and as large."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    on_device = value.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
