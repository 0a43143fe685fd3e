"""The losses beside their definition in double precision, and their rules on precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from train.loss import Impl, batch_accuracy, contrastive_loss

IMPLS: list[Impl] = ["plain", "chunked"]


def definition(image_ND: Tensor, text_ND: Tensor, log_scale: Tensor) -> Tensor:
    """Figure 3 of the paper, term by term."""
    total = torch.zeros((), dtype=image_ND.dtype)
    cosine = torch.stack(
        [torch.stack([(a @ b) / (a.norm() * b.norm()) for b in text_ND]) for a in image_ND]
    )
    logits_NN = log_scale.exp() * cosine
    for i in range(len(logits_NN)):
        total += logits_NN[i].logsumexp(0) - logits_NN[i, i]
        total += logits_NN[:, i].logsumexp(0) - logits_NN[i, i]
    return total / (2 * len(logits_NN))


def features(rows: int = 6, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image, text = (
        torch.randn(rows, width, generator=generator, dtype=torch.double) for _ in range(2)
    )
    return image, text + image / 2, torch.tensor(math.log(20.0), dtype=torch.double)


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
def test_value_and_gradients_equal_the_definition(impl: Impl) -> None:
    exact = [t.clone().requires_grad_() for t in features()]
    ours = [t.float().requires_grad_() for t in features()]
    expected, loss = definition(*exact), contrastive_loss(*ours, impl=impl)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(
        torch.autograd.grad(loss, ours), torch.autograd.grad(expected, exact), strict=True
    ):
        torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("form", ["softmax", "groups", "smooth", "sigmoid", "sigmoid groups"])
def test_gradients_in_double_precision_equal_differences(impl: Impl, form: str) -> None:
    bias = torch.tensor(-2.0, dtype=torch.double, requires_grad=True)
    group_n = torch.tensor([5, 1, 5, 2, 2, 5]) if "groups" in form else None
    smoothing = 0.1 if form == "smooth" else 0.0

    def loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return contrastive_loss(
            image, text, scale, bias=bias if "sigmoid" in form else None, group_n=group_n,
            smoothing=smoothing, impl=impl,
        )  # fmt: skip

    inputs = [t.requires_grad_() for t in features()]
    assert torch.autograd.gradcheck(loss, (*inputs, bias), atol=1e-7)
    plain = contrastive_loss(
        *inputs, bias=bias if "sigmoid" in form else None, group_n=group_n, smoothing=smoothing,
        impl="plain",
    )  # fmt: skip
    torch.testing.assert_close(loss(*inputs, bias), plain)


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
def test_features_of_any_length_give_the_same_loss(impl: Impl) -> None:
    image, text, scale = (t.float() for t in features())
    expected = contrastive_loss(image, text, scale)
    for a, b in ((100, 1 / 50), (1e30, 1e-25)):
        torch.testing.assert_close(
            contrastive_loss(a * image, text * b, scale, impl=impl), expected
        )


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
def test_a_row_of_zeros_has_no_direction_and_no_gradient(impl: Impl) -> None:
    image, text, scale = (t.float() for t in features())
    image[2] = 0
    image.requires_grad_()
    loss = contrastive_loss(image, text, scale, impl=impl)
    (grad,) = torch.autograd.grad(loss, image)
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()
    assert not grad[2].any()
    assert grad[3].any()
    image.data[2, 1] = math.nan
    assert torch.isnan(contrastive_loss(image, text, scale, impl=impl))


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
def test_logits_stay_fp32_under_autocast(impl: Impl) -> None:
    image, text, scale = (t.float() for t in features(64, 32))
    scale = torch.tensor(math.log(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_loss(image, text, scale, impl=impl)
    assert inside.dtype == torch.float32
    assert inside.item() == contrastive_loss(image, text, scale, impl=impl).item()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_nD": torch.ones(5, 8)}, "don't match"),
        ({"bias": torch.zeros(()), "smoothing": 0.1}, "sigmoid"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words: str) -> None:
    args = {"image_nD": torch.ones(6, 8), "text_nD": torch.ones(6, 8), "log_scale": torch.ones(())}
    with pytest.raises(ValueError, match=words):
        contrastive_loss(**{**args, **changes})


def test_accuracy_counts_pictures_that_find_their_caption() -> None:
    eye = torch.eye(4)
    assert batch_accuracy(eye, eye).item() == 1.0
    assert batch_accuracy(eye, eye[[0, 1, 3, 2]]).item() == 0.5
