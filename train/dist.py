"""One process, or many under torchrun: who we are, and what processes tell each other.

Start many with `torchrun --nproc-per-node 2 -m -- wit.cli train --run RUN ...`; without the `--`
torchrun takes `--run` for an option of its own.

n rows of this process, N rows of all, D features; n may differ between processes, and be 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from wit.errors import ConfigError


class Gathering:
    """Rows (or numbers) of all processes, on their way while this process goes on."""

    def __init__(self, x_nD: Tensor, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        own, most = x_nD.contiguous(), max(counts)
        if len(x_nD) < most:
            own = x_nD.new_zeros(most, *x_nD.shape[1:])
            own[: len(x_nD)] = x_nD
        self.own = own  # to stay in memory until it has been sent
        self.x_ND = own.new_empty(len(counts) * most, *own.shape[1:])
        parts = list(self.x_ND.view(len(counts), most, *own.shape[1:]))
        self.work = torch_dist.all_gather(parts, own, async_op=True)

    def rows(self) -> Tensor:
        """Waits for them: in the order of ranks, without gradient."""
        self.work.wait()
        if len(set(self.counts)) == 1:
            return self.x_ND
        parts = torch.split(self.x_ND, max(self.counts))
        return torch.cat([part[:n] for part, n in zip(parts, self.counts, strict=True)])


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

    def counts(self, rows: int, device: torch.device) -> list[int]:
        """Rows of every process, in the order of ranks."""
        if self.size == 1:
            return [rows]
        mine = torch.tensor([rows], device=device)
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        torch_dist.all_gather(parts, mine)
        return [int(part) for part in parts]

    def gather_rows(self, x_nD: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows (or numbers) of all processes, in the order of ranks; without gradient."""
        return x_nD if self.size == 1 else Gathering(x_nD, counts).rows()

    @contextmanager
    def gathering(self, module: nn.Module | None, rows: int) -> Iterator[list[Gathering]]:
        """Sends what `module` gives to all processes as soon as it is there.

        The list holds one gathering for each time that `module` was called with `rows` rows; with
        one process, or no module, it stays empty.
        """
        started: list[Gathering] = []
        if self.size == 1 or module is None:
            yield started
            return
        counts = self.counts(rows, self.device)

        def send(module: nn.Module, inputs: Any, x_nD: Tensor) -> None:
            started.append(Gathering(x_nD.detach(), counts))

        hook = module.register_forward_hook(send)
        try:
            yield started
        finally:
            hook.remove()

    def sum_to_owners(self, x_ND: Tensor, counts: Sequence[int]) -> Tensor:
        """The sum over processes of this process's own rows (n, D)."""
        if self.size == 1:
            return x_ND
        parts = list(torch.split(x_ND, list(counts)))
        if len(set(counts)) > 1:
            rows = max(counts)
            parts = [torch.cat([p, p.new_zeros(rows - len(p), *p.shape[1:])]) for p in parts]
        own = torch.empty_like(parts[self.rank])
        torch_dist.reduce_scatter(own, parts)
        return own[: counts[self.rank]]

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes, the same everywhere."""
        if self.size > 1:
            x = x.clone()
            torch_dist.all_reduce(x)
        return x

    def share_buffers(self, module: nn.Module) -> None:
        """All processes take the main one's buffers (running statistics), in place."""
        if self.size > 1:
            for buffer in module.buffers():
                torch_dist.broadcast(buffer, 0)

    def logsumexp(self, x_N: Tensor) -> Tensor:
        """log of the sum over processes of exp(x)."""
        if self.size == 1:
            return x_N
        top_N = x_N.clone()
        torch_dist.all_reduce(top_N, torch_dist.ReduceOp.MAX)
        return self.sum((x_N - top_N).exp_()).log_().add_(top_N)


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
