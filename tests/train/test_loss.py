"""The loss beside its definition in double precision, and its rules on precision and processes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from train.loss import batch_accuracy, contrastive_loss


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


def test_value_and_gradients_equal_the_definition() -> None:
    exact = [t.clone().requires_grad_() for t in features()]
    ours = [t.float().requires_grad_() for t in features()]
    expected, loss = definition(*exact), contrastive_loss(*ours)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(
        torch.autograd.grad(loss, ours), torch.autograd.grad(expected, exact), strict=True
    ):
        torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-6)


def test_features_of_any_length_give_the_same_loss() -> None:
    image, text, scale = (t.float() for t in features())
    torch.testing.assert_close(
        contrastive_loss(100 * image, text / 50, scale), contrastive_loss(image, text, scale)
    )


def test_logits_stay_fp32_under_autocast() -> None:
    image, text, scale = (t.float() for t in features(64, 32))
    scale = torch.tensor(math.log(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_loss(image, text, scale)
    assert inside.dtype == torch.float32
    assert inside.item() == contrastive_loss(image, text, scale).item()


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch() -> None:
    image, text, scale = (t.float() for t in features(8))
    image_ND = torch.nn.functional.normalize(image, dim=1)
    text_ND = torch.nn.functional.normalize(text, dim=1)
    parts = []
    for rank in range(4):
        rows = slice(2 * rank, 2 * rank + 2)
        gathered = iter((image_ND, text_ND))
        parts.append(
            contrastive_loss(image[rows], text[rows], scale, lambda _, g=gathered: next(g), rank)
        )
    torch.testing.assert_close(sum(parts) / 4, contrastive_loss(image, text, scale))


def test_accuracy_counts_pictures_that_find_their_caption() -> None:
    eye = torch.eye(4)
    assert batch_accuracy(eye, eye).item() == 1.0
    assert batch_accuracy(eye, eye[[0, 1, 3, 2]]).item() == 0.5
