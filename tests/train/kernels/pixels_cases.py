"""The pixel kernel beside its plain twin, on the device given; run by test_triton.py."""

from __future__ import annotations

import sys
from itertools import product

import torch

from train.kernels import pixels as plain
from train.kernels import triton_pixels
from train.model.pixels import Tower


def main(on: str) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(on == "cpu")
    make = torch.Generator().manual_seed(0)
    mean, std = torch.tensor([0.5, 0.4, 0.3], device=on), torch.tensor([0.2, 0.3, 0.25], device=on)
    flip = torch.tensor([True, False], device=on)
    box = torch.tensor([[1.5, 2.25, 9.5, 8.0], [-1.0, 0.0, 16.0, 30.0]], device=on)
    img_BHWC = torch.randint(0, 256, (2, 16, 16, 3), generator=make, dtype=torch.uint8).to(on)
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    cases = list(product(dtypes, ("channels_last", "patches"), (0, 12), (None, box), (None, flip)))
    if on == "cpu":  # the interpreter is slow; 11 is prime to 48: each value of each option comes
        cases = cases[::11]
    for dtype, layout, size, boxes, mirrored in cases:
        options = {
            "dtype": dtype, "layout": layout, "patch": 4, "size": size, "box_B4": boxes,
            "flip_B": mirrored,
        }  # fmt: skip
        for img in (img_BHWC, img_BHWC.permute(0, 3, 1, 2).contiguous()):
            expected = plain.pixels(img, mean, std, **options)
            got = triton_pixels.pixels(img, mean, std, **options)
            assert got.dtype == dtype
            assert got.stride() == expected.stride()
            tolerance = torch.finfo(dtype).eps * 4
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    check_tower(on)
    print("all cases hold")


def check_tower(on: str) -> None:
    """What a tower makes of bytes is the same with the kernel and without."""
    tower = Tower().to(on)
    img = torch.arange(256, dtype=torch.uint8, device=on).repeat(3).view(1, 3, 16, 16)
    by_kernel = triton_pixels.pixels(img, tower.mean.flatten(), tower.std.flatten())
    plainly = (img.float() / 255 - tower.mean) / tower.std
    for got in (by_kernel, tower.normalised(img)):
        torch.testing.assert_close(got, plainly, rtol=5e-7, atol=5e-7)
    with torch.autocast(on, torch.bfloat16):
        assert tower.normalised(img).dtype == (torch.float32 if on == "cpu" else torch.bfloat16)


if __name__ == "__main__":
    main(sys.argv[1])
