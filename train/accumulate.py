"""One step of a batch too large for memory, in micro-batches, with the gradient of the whole batch.

Each pair's loss depends on every other pair, so losses of micro-batches don't add up to it. Instead
(Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup"):
features of all micro-batches without graphs; the loss and its gradient by those features; then
each micro-batch again, with a graph, from its features' gradient back to the weights. The second
time sees the random numbers, and so the dropout, of the first.

b rows of this process, E features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Features = tuple[Tensor, Tensor, Tensor]


def accumulate(
    net: nn.Module,
    img_bCSS: Tensor,
    tokens_bL: Tensor,
    parts: int,
    autocast: torch.autocast,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    scaled: Callable[[Tensor], Tensor],
) -> Features:
    """Adds the gradient of the batch's loss to `.grad` of the parameters of `net`.

    Args:
        net: pictures and tokens to image features, text features (b, E) and log-scale.
        img_bCSS, tokens_bL: this process's batch.
        parts: micro-batches; batch norm takes its statistics over one of them.
        autocast: for the towers.
        loss_of: image features, text features, log-scale to the loss.
        scaled: the loss to what backward begins with.

    Returns:
        Image features, text features and loss, without graphs.
    """
    micro = list(zip(img_bCSS.tensor_split(parts), tokens_bL.tensor_split(parts), strict=True))
    states = []
    cached: list[Features] = []
    with torch.no_grad(), _buffers_kept(net):
        for img, tokens in micro:
            states.append(_random_state(img.device))
            with autocast:
                cached.append(net(img, tokens))
    image_bE = torch.cat([image for image, _, _ in cached]).requires_grad_()
    text_bE = torch.cat([text for _, text, _ in cached]).requires_grad_()
    log_scale = cached[-1][2].detach().clone().requires_grad_()
    loss = loss_of(image_bE, text_bE, log_scale)
    grads = torch.autograd.grad(scaled(loss), (image_bE, text_bE, log_scale))

    after = _random_state(img_bCSS.device)
    split = [grad.tensor_split(parts) for grad in grads[:2]]
    for i, ((img, tokens), state) in enumerate(zip(micro, states, strict=True)):
        last = i == len(micro) - 1
        quiet = isinstance(net, DistributedDataParallel) and not last
        with net.no_sync() if quiet else nullcontext():  # type: ignore[operator]
            _set_random_state(state, img.device)
            with autocast:
                image, text, scale = net(img, tokens)
            found = [(image, split[0][i]), (text, split[1][i])]
            if last:  # the scale is one number of the whole batch
                found.append((scale, grads[2]))
            found = [pair for pair in found if pair[0].requires_grad]  # else its tower is locked
            outputs, by = zip(*found, strict=True)
            torch.autograd.backward(outputs, by)
    _set_random_state(after, img_bCSS.device)
    return image_bE.detach(), text_bE.detach(), loss.detach()


@contextmanager
def _buffers_kept(net: nn.Module) -> Iterator[None]:
    """Running statistics are to see each micro-batch once."""
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
