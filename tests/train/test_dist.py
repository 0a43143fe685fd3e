"""The losses over real processes beside one process in double precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from train.dist import World
from train.kernels import chunked
from train.loss import contrastive_loss

from . import ranks

COUNTS = {
    "one": [11],
    "two": [6, 6],
    "two uneven": [9, 4],
    "three": [4, 4, 4],
    "three, one empty": [7, 0, 6],
    "four": [3, 3, 3, 3],
    "four uneven": [1, 5, 3, 4],
}
FORMS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "groups": {"groups": True},
    "smooth groups": {"groups": True, "smoothing": 0.1},
    "sigmoid": {"bias": -8.0},
    "sigmoid groups": {"bias": -8.0, "groups": True},
}


def whole_batch(rows: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    make = torch.Generator().manual_seed(rows)
    image = torch.randn(rows, 16, generator=make, dtype=torch.double)
    text = torch.randn(rows, 16, generator=make, dtype=torch.double) + image / 2
    features = [3 * image.to(dtype), text.to(dtype)]
    return features, torch.randint(0, rows - 2, (rows,), generator=make)


def part(features: list[Tensor], group: Tensor, rows: slice, form: dict[str, Any], **more: Any):
    """Loss and gradients (image, text, log-scale, bias) of some rows."""
    dtype = features[0].dtype
    leaves = [x[rows].clone().requires_grad_() for x in features]
    leaves.append(torch.tensor(math.log(40.0), dtype=dtype, requires_grad=True))
    options = dict(more, smoothing=form.get("smoothing", 0.0))
    if "groups" in form:
        options["group_n"] = group[rows]
    if "bias" in form:
        leaves.append(torch.tensor(form["bias"], dtype=dtype, requires_grad=True))
        options["bias"] = leaves[-1]
    loss = contrastive_loss(*leaves[:3], **options)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def early_part(features: list[Tensor], group: Tensor, rows: slice, world: World) -> list[Tensor]:
    """The softmax form of some rows, whose images are on their way before there are texts."""
    image, text = nn.Identity(), nn.Identity()
    with world.gathering(image, len(features[0][rows])) as sent:
        image(features[0][rows])
        assert len(sent) == (world.size > 1)
        text(features[1][rows])
    gathered = sent[0] if sent else None
    return part(features, group, rows, {}, world=world, impl="chunked", gathered=gathered)


def process(rank: int, folder: Path) -> None:
    """All cases that this rank has a share in."""
    torch.set_num_threads(1)
    chunked.ONE_TILE, chunked.KEEP, chunked.ROWS, chunked.COLUMNS = 0, 40, 2, 5
    for case, counts in COUNTS.items():
        size = len(counts)
        if rank >= size:
            continue
        store = torch_dist.FileStore(str(folder / f"{case}.store"), size)
        torch_dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        world = World(rank, size, torch.device("cpu"))
        rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        norm = nn.BatchNorm1d(2)
        norm.running_mean.fill_(rank + 1)
        world.share_buffers(norm)
        assert norm.running_mean.tolist() == [1, 1]
        results = {}
        for dtype in (torch.double, torch.float32):
            features, group = whole_batch(sum(counts), dtype)
            for name, form in FORMS.items():
                options = {"world": world, "impl": "chunked"}
                results[name, dtype] = part(features, group, rows, form, **options)
            results["early", dtype] = early_part(features, group, rows, world)
        torch.save(results, folder / f"{case}.{rank}")
        torch_dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four processes, in worlds of one to four of them, wrote."""
    folder = tmp_path_factory.mktemp("worlds")
    server = ranks.server()
    processes = [server.Process(target=process, args=(rank, folder)) for rank in range(4)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0] * 4
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", COUNTS)
def test_processes_together_equal_one(results: Path, case: str, form: str) -> None:
    counts = COUNTS[case]
    for dtype, tolerance in ((torch.double, 1e-12), (torch.float32, 3e-6)):
        features, group = whole_batch(sum(counts), dtype)
        exact = part([x.double() for x in features], group, slice(None), FORMS[form], impl="plain")
        loaded = [torch.load(results / f"{case}.{rank}") for rank in range(len(counts))]
        parts = [ranks[form, dtype] for ranks in loaded]
        for i, expected in enumerate(exact):  # the mean over processes, as DDP takes it
            one = [ranks[i].double() / len(counts) for ranks in parts]
            got = torch.cat(one) if i in (1, 2) else torch.stack(one).sum()
            assert (got - expected).abs().max() <= tolerance * (1 + expected.abs().max()), i


@pytest.mark.parametrize("case", COUNTS)
def test_a_gathering_begun_early_changes_no_bit(results: Path, case: str) -> None:
    for rank in range(len(COUNTS[case])):
        loaded = torch.load(results / f"{case}.{rank}")
        for dtype in (torch.double, torch.float32):
            pairs = zip(loaded["early", dtype], loaded["softmax", dtype], strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
