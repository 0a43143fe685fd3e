"""The plain form of the pixel kernel beside torch's own operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.kernels.pixels import pixels
from train.model.pixels import MEAN, STD

MEAN_C, STD_C = torch.tensor(MEAN), torch.tensor(STD)


def pictures(height: int = 16, width: int = 16) -> Tensor:
    make = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, height, width), generator=make, dtype=torch.uint8)


def normalised(img_BCHW: Tensor) -> Tensor:
    return (img_BCHW / 255 - MEAN_C[:, None, None]) / STD_C[:, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_layouts_in_and_channels_last_out(dtype: torch.dtype) -> None:
    img = pictures()
    for given in (img, img.permute(0, 2, 3, 1).contiguous()):
        out = pixels(given, MEAN_C, STD_C, dtype=dtype)
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, normalised(img).to(dtype))


def test_patches_are_what_a_convolution_sees() -> None:
    img = pictures()
    weight = torch.randn(5, 3, 4, 4)
    expected = F.conv2d(normalised(img), weight, stride=4).flatten(2).transpose(1, 2)
    patches = pixels(img, MEAN_C, STD_C, layout="patches", patch=4)
    torch.testing.assert_close(patches @ weight.permute(0, 2, 3, 1).flatten(1).T, expected)


def test_flip_mirrors_only_those_chosen() -> None:
    img, flip = pictures(), torch.tensor([True, False, True])
    out = pixels(img, MEAN_C, STD_C, flip_B=flip)
    whole = torch.tensor([0.0, 0.0, 16.0, 16.0]).expand(3, 4)
    expected = torch.where(flip[:, None, None, None], normalised(img).flip(3), normalised(img))
    torch.testing.assert_close(out, expected)
    boxed = pixels(img, MEAN_C, STD_C, flip_B=flip, box_B4=whole)
    torch.testing.assert_close(boxed, expected)


def test_a_crop_is_a_bilinear_resize_of_its_box() -> None:
    img = pictures(20, 14)
    box = torch.tensor([[2.0, 3.0, 12.0, 8.0]] * 3)
    out = pixels(img, MEAN_C, STD_C, size=12, box_B4=box)
    torch.testing.assert_close(out[:, :, :, 1:-1], _resized(img)[:, :, :, 1:-1])


def _resized(img: Tensor) -> Tensor:
    crop = normalised(img)[:, :, 2:14, 3:11]
    return F.interpolate(crop, (12, 12), mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    ("img", "options", "words"),
    [
        (torch.zeros(1, 3, 4, 4), {}, "uint8"),
        (torch.zeros(1, 5, 4, 4, dtype=torch.uint8), {}, "channels"),
        (torch.zeros(1, 3, 4, 6, dtype=torch.uint8), {}, "need a size"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), {"layout": "patches", "patch": 3}, "patches"),
    ],
)
def test_what_does_not_fit_is_refused(img: Tensor, options, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pixels(img, MEAN_C, STD_C, **options)
