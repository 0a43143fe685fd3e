"""What one step asks of the model, by `model.objective`; each adds the gradient of the batch.

b rows of this process, E features.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.accumulate import accumulate
from train.config import Objective
from train.data import Batch
from train.dist import Gathering, World
from train.loss import batch_accuracy, contrastive_loss


@dataclass(frozen=True)
class Outcome:
    """Of this process's part of a step.

    Attributes:
        loss: 0-D; the mean over processes is that of the batch.
        accuracy: 0-D, computed when asked for: of pictures that find their caption, of captions
            one of whose tokens is named, of next tokens.
    """

    loss: Tensor
    accuracy: Callable[[], Tensor]


class Step(Protocol):
    """Adds the gradient of the batch's loss to `.grad` of the parameters of `net`.

    Args:
        net: the model, perhaps data-parallel.
        batch: this process's.
        parts: micro-batches to work it off in.
        autocast: for the towers.
        world: processes whose batches make one.
        scaled: the loss to what backward begins with.
        early: the image tower of `net`, whose features may travel while the text tower works.
    """

    def __call__(
        self,
        net: nn.Module,
        batch: Batch,
        parts: int,
        autocast: torch.autocast,
        world: World,
        scaled: Callable[[Tensor], Tensor],
        early: nn.Module | None,
    ) -> Outcome: ...


def contrast(
    net: nn.Module,
    batch: Batch,
    parts: int,
    autocast: torch.autocast,
    world: World,
    scaled: Callable[[Tensor], Tensor],
    early: nn.Module | None,
) -> Outcome:
    """Pairs beside all other pairs, by softmax or, where the model has a bias, by sigmoid."""
    loss_of = partial(_contrastive, world=world)
    if parts > 1:
        image_bE, text_bE, loss = accumulate(
            net, batch.img_bCSS, batch.tokens_bL, parts, autocast, loss_of, scaled
        )
    else:
        with autocast, world.gathering(early, len(batch.img_bCSS)) as sent:
            image_bE, text_bE, numbers = net(batch.img_bCSS, batch.tokens_bL)
        loss = loss_of(image_bE, text_bE, numbers, gathered=sent[-1] if sent else None)
        torch.autograd.backward(scaled(loss))
    accuracy = partial(batch_accuracy, image_bE.detach(), text_bE.detach())
    return Outcome(loss.detach(), accuracy)


def predict(
    net: nn.Module,
    batch: Batch,
    parts: int,
    autocast: torch.autocast,
    world: World,
    scaled: Callable[[Tensor], Tensor],
    early: nn.Module | None,
) -> Outcome:
    """Each caption from its picture; pairs don't know each other, so micro-batches add up."""
    rows = len(batch.tokens_bL)
    images, captions = batch.img_bCSS.tensor_split(parts), batch.tokens_bL.tensor_split(parts)
    total, hits = torch.zeros((), device=batch.tokens_bL.device), []
    for i, (img, tokens) in enumerate(zip(images, captions, strict=True)):
        quiet = isinstance(net, DistributedDataParallel) and i < parts - 1
        with net.no_sync() if quiet else nullcontext():  # type: ignore[operator]
            with autocast:
                loss, hit = net(img, tokens)
            part = loss.sum() / rows
            total = total + part.detach()
            torch.autograd.backward(scaled(part))
        hits.append(hit.detach())
    return Outcome(total, torch.cat(hits).mean)


def _contrastive(
    image_bE: Tensor,
    text_bE: Tensor,
    numbers: Tensor,
    *,
    world: World,
    gathered: Gathering | None = None,
) -> Tensor:
    """`numbers`: log of the scale, or (2,) that and the bias of the sigmoid form."""
    log_scale, bias = numbers.unbind() if numbers.ndim else (numbers, None)
    return contrastive_loss(image_bE, text_bE, log_scale, bias=bias, world=world, gathered=gathered)


STEPS: dict[Objective, Step] = {
    "contrastive": contrast,
    "sigmoid": contrast,
    "bag_of_words": predict,
    "caption": predict,
}
