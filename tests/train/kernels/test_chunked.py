"""Tiles beside the plain form: never further from the truth than it, in any shape."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from train.kernels import chunked, contrastive, ops
from train.kernels.normalise import normalise
from train.loss import contrastive_loss

ULP = 2.0**-23


@pytest.fixture(params=["none kept", "some kept", "one tile"], autouse=True)
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, so that small batches have several."""
    if request.param != "one tile":
        monkeypatch.setattr(chunked, "KEEP", {"none kept": 0, "some kept": 5000}[request.param])
        monkeypatch.setattr(chunked, "ONE_TILE", 0)
        monkeypatch.setattr(chunked, "ROWS", 24)
        monkeypatch.setattr(chunked, "COLUMNS", 40)


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # empty tensors are filled with NaN
    yield
    torch.use_deterministic_algorithms(False)


def batch(kind: str, rows: int = 100, width: int = 48, seed: int = 0) -> tuple[Tensor, ...]:
    """Image features, text features and log-scale, fp32."""
    make = torch.Generator().manual_seed(seed)
    image, noise = (torch.randn(rows, width, generator=make) for _ in range(2))
    scale = {"random": 14.0, "trained": 100.0, "opposite": 100.0}.get(kind, 50.0)
    if kind == "trained":  # cosines near 1 and 0, and near-duplicates
        image[1::7] = image[::7][: len(image[1::7])] + 0.01 * noise[1::7]
        noise = image + 0.3 * noise
    if kind == "identical":
        image = image[:1].expand(rows, width).contiguous()
        noise = image.clone()
    if kind == "opposite":  # no row has a logit above -90
        image = image[:1] + 0.01 * noise
        noise = -image
    return image, noise, torch.tensor(math.log(scale))


def errors(
    loss: Tensor, exact: Tensor, inputs: list[Tensor], truth: list[Tensor]
) -> list[tuple[float, float]]:
    """Error and magnitude of the loss and of each gradient."""
    got = [loss, *torch.autograd.grad(loss, inputs)]
    true = [exact, *torch.autograd.grad(exact, truth, retain_graph=True)]
    return [
        ((a.double() - b).norm().item(), b.norm().item()) for a, b in zip(got, true, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["softmax", "groups", "smooth", "sigmoid"])
@pytest.mark.parametrize("kind", ["random", "trained", "identical", "opposite", "one"])
def test_no_further_from_the_truth_than_the_plain_form(kind: str, form: str, dtype) -> None:
    image, text, log_scale = batch(kind, rows=1 if kind == "one" else 100)
    group = torch.arange(len(image)) // 3 if form == "groups" else None
    bias = torch.tensor(-10.0) if form == "sigmoid" else None
    smoothing = 0.1 if form == "smooth" else 0.0
    options = {"group_n": group, "smoothing": smoothing}
    leaves = [image.to(dtype), text.to(dtype), log_scale]
    leaves = [t.detach().requires_grad_() for t in leaves]
    truth = [t.detach().double().requires_grad_() for t in leaves]
    exact = contrastive_loss(
        *truth, bias=None if bias is None else bias.double(), **options, impl="plain"
    )
    plain = contrastive_loss(*leaves, bias=bias, **options, impl="plain")
    ours = contrastive_loss(*leaves, bias=bias, **options, impl="chunked")
    scale = log_scale.exp().item()
    theirs = errors(plain, exact, leaves, truth)
    pairs = zip(errors(ours, exact, leaves, truth), theirs, strict=True)
    ulps = {"loss": 1.0, "da": scale, "db": scale, "dscale": scale}  # of what is added up
    for (name, unit), ((error, size), (eager, _)) in zip(ulps.items(), pairs, strict=True):
        floor = 2 * ULP * (size + unit * (len(image) ** -0.5 if name in ("da", "db") else 1))
        assert error <= 1.1 * eager + floor, name


@given(st.integers(1, 90), st.integers(1, 130), st.integers(1, 70), st.integers(0, 40))
def test_stripes_of_any_shape(n: int, more: int, width: int, start: int) -> None:
    make = torch.Generator().manual_seed(n + width)
    columns = max(n + start, more)
    a, _ = normalise(torch.randn(n, width, generator=make, dtype=torch.double))
    b, _ = normalise(torch.randn(columns, width, generator=make, dtype=torch.double))
    scale = torch.tensor(30.0, dtype=torch.double)
    x = scale * a @ b.T
    ones = torch.ones(())
    row, column, positive, kept = chunked.softmax_sweep(a, ones, b, ones, scale, start)
    torch.testing.assert_close(row, x.logsumexp(1))
    torch.testing.assert_close(column, x.logsumexp(0))
    torch.testing.assert_close(positive, x.diagonal(start))
    target = torch.full_like(row, 0.9)
    grad_a, grad_b = chunked.softmax_gradients(
        a, ones, b, ones, scale, start, row, column, target, kept
    )
    g = (x.softmax(1) + x.softmax(0)) / 2
    g.diagonal(start).sub_(target)
    torch.testing.assert_close(grad_a, g @ b)
    torch.testing.assert_close(grad_b, g.T @ a)


def test_the_same_twice_to_the_last_bit() -> None:
    results = []
    for _ in range(2):
        inputs = [t.requires_grad_() for t in batch("trained")]
        loss = contrastive_loss(*inputs, impl="chunked")
        results.append([loss, *torch.autograd.grad(loss, inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_groups_of_one_are_no_groups() -> None:
    inputs = batch("random")
    group = torch.randperm(len(inputs[0]))
    with_groups = contrastive_loss(*inputs, group_n=group, impl="chunked")
    torch.testing.assert_close(with_groups, contrastive_loss(*inputs, impl="chunked"))


def test_operators_are_sound() -> None:
    a, _ = normalise(torch.randn(30, 16))
    b, _ = normalise(torch.randn(50, 16))
    scale = torch.tensor(9.0)
    ones = torch.ones(30), torch.ones(50)
    rows = (a, ones[0], b, ones[1])
    args = (*rows, scale, 3, None, None)
    row, column, _, kept = ops.softmax_sweep(*args)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.normalise, (a,), test_utils=checks)
    torch.library.opcheck(ops.softmax_sweep, args, test_utils=checks)
    torch.library.opcheck(
        ops.softmax_gradients,
        (*rows, scale, 3, row, column, torch.ones(30), kept, None, None),
        test_utils=checks,
    )
    torch.library.opcheck(
        ops.sigmoid_pass, (*rows, scale, -scale, 3, None, None), test_utils=checks
    )
    factor = torch.tensor(2.0)
    torch.library.opcheck(
        ops.normalise_backward,
        (a, a, ones[0], a[:, 0].clone(), factor, torch.bfloat16),
        test_utils=checks,
    )


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's
def test_the_loss_compiles_to_one_graph() -> None:
    inputs = [t.requires_grad_() for t in batch("random", rows=150)]
    compiled = torch.compile(contrastive_loss, backend="aot_eager", fullgraph=True)
    results = []
    for function in (contrastive_loss, compiled):
        loss = function(*inputs)
        results.append([loss.detach(), *torch.autograd.grad(loss, inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_positives_are_the_diagonal_or_the_groups() -> None:
    same = contrastive.positives(3, torch.tensor([4, 9, 4]), torch.device("cpu"))
    assert same.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert torch.equal(contrastive.positives(2, None, torch.device("cpu")), torch.eye(2).bool())
