"""What both kinds of image tower begin with: pixels of 0 to 255 become normalised ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the paper's pictures, per channel, 0 to 1
STD = (0.26862954, 0.26130258, 0.27577711)


class Tower(nn.Module):
    """An image tower: uint8 or normalised float pictures (B, 3, S, S) to features (B, E)."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.reset_buffers(None)

    def reset_buffers(self, device: torch.device | str | None) -> None:
        """Mean and standard deviation of pictures: constants, so not in the state dict."""
        for name, values in (("mean", MEAN), ("std", STD)):
            buffer = torch.tensor(values, device=device).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def pooled(self, img_BCSS: Tensor) -> Tensor:
        """What is projected into the shared space, (B, D): the features of linear probes."""
        raise NotImplementedError

    def project(self, pooled_BD: Tensor) -> Tensor:
        """Features (B, E)."""
        raise NotImplementedError

    def forward(self, img_BCSS: Tensor) -> Tensor:
        return self.project(self.pooled(img_BCSS))

    def normalised(self, img_BCSS: Tensor) -> Tensor:
        """Float pictures as they are; uint8 ones, a quarter of the bytes to the device, scaled."""
        if img_BCSS.dtype != torch.uint8:
            return img_BCSS
        return img_BCSS.float().div_(255).sub_(self.mean).div_(self.std)
