"""One process, or many under torchrun: who we are, and gathering features with exact gradients.

Start many with `torchrun --nproc-per-node 2 -m -- wit.cli train --run RUN ...`; without the `--`
torchrun takes `--run` for an option of its own.

n rows of this process, N = n * size rows of all, D features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor

from wit.errors import ConfigError


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            torch_dist.barrier()

    def largest(self, value: int) -> int:
        """The largest of the values of all processes: how they agree what to do next."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        torch_dist.all_reduce(shared, torch_dist.ReduceOp.MAX)
        return int(shared.item())

    def mean(self, value: Tensor) -> float:
        """The mean over processes of a 0-D tensor."""
        if self.size > 1:
            value = value.detach().clone()
            torch_dist.all_reduce(value)
            value /= self.size
        return value.item()

    def gather_objects(self, value: Any) -> list[Any]:
        """The value of every process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch_dist.all_gather_object(values, value)
        return values

    def gather_rows(self, local_nD: Tensor) -> Tensor:
        """Rows of all processes, (N, D), with the gradient of every process flowing back."""
        if self.size == 1:
            return local_nD
        gathered: Tensor = _Gather.apply(local_nD, self.rank, self.size)  # type: ignore[no-untyped-call]
        return gathered


class _Gather(torch.autograd.Function):
    """Backward: each process's gradient of these rows is summed, so none is lost."""

    @staticmethod
    def forward(ctx: Any, local_nD: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(local_nD)
        parts = [torch.empty_like(local_nD) for _ in range(size)]
        torch_dist.all_gather(parts, local_nD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        grad_ND = grad_ND.contiguous()
        torch_dist.all_reduce(grad_ND)  # gloo has no reduce-scatter
        start = ctx.rank * ctx.rows
        return grad_ND[start : start + ctx.rows], None, None


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Raises ConfigError where the device isn't there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device = {name!r} is not a device: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device = {name}: this machine has no CUDA device: use --device cpu")
    return torch.device("cuda", local_rank) if str(device) == "cuda" else device


@contextmanager
def world(device_name: str) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone; leave at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(device_name, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    torch_dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(torch_dist.get_rank(), size, device)
    finally:
        torch_dist.destroy_process_group()
