"""uint8 pictures to what a tower takes, in one kernel: the Triton form of `pixels.py`.

A program makes BLOCK places of one picture, all channels of each; it reads the four pixels around
each place, so bytes go in once as uint8 and out once in the type of the tower.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from train.kernels.pixels import Layout, checked, positions

BLOCK = 256


@triton.jit
def _pixels(
    img, ys, xs, mean, std, out, H, W, S, P, stride_b, stride_y, stride_x, stride_c,
    C: tl.constexpr, PATCHES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < S * S
    row, column = at // S, at % S
    y = tl.load(ys + picture * S + row, mask=mask, other=0.0)
    x = tl.load(xs + picture * S + column, mask=mask, other=0.0)
    y = tl.minimum(tl.maximum(y, 0.0), (H - 1).to(tl.float32))
    x = tl.minimum(tl.maximum(x, 0.0), (W - 1).to(tl.float32))
    y0, x0 = tl.floor(y).to(tl.int32), tl.floor(x).to(tl.int32)
    y1, x1 = tl.minimum(y0 + 1, H - 1), tl.minimum(x0 + 1, W - 1)
    fy, fx = y - y0.to(tl.float32), x - x0.to(tl.float32)
    if PATCHES:
        n = S // P
        place = ((row // P) * n + column // P) * (P * P) + (row % P) * P + column % P
    else:
        place = at
    base = img + picture * stride_b
    for c in tl.static_range(C):
        from_c = base + c * stride_c
        a = tl.load(from_c + y0 * stride_y + x0 * stride_x, mask=mask, other=0).to(tl.float32)
        b = tl.load(from_c + y0 * stride_y + x1 * stride_x, mask=mask, other=0).to(tl.float32)
        upper = a + (b - a) * fx
        a = tl.load(from_c + y1 * stride_y + x0 * stride_x, mask=mask, other=0).to(tl.float32)
        b = tl.load(from_c + y1 * stride_y + x1 * stride_x, mask=mask, other=0).to(tl.float32)
        value = upper + (a + (b - a) * fx - upper) * fy
        value = (value / 255.0 - tl.load(mean + c)) / tl.load(std + c)
        to = out + picture * (S * S * C) + place * C + c
        tl.store(to, value.to(out.dtype.element_ty), mask=mask)


def pixels(
    img: Tensor,
    mean_C: Tensor,
    std_C: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "channels_last",
    patch: int = 0,
    size: int = 0,
    box_B4: Tensor | None = None,
    flip_B: Tensor | None = None,
) -> Tensor:
    """As the plain twin, `train.kernels.pixels.pixels`, which see."""
    img_BHWC, size = checked(img, layout, patch, size)
    B, H, W, C = img_BHWC.shape
    y_BS, x_BS = positions(img_BHWC, size, box_B4, flip_B)
    shape = (B, size, size, C) if layout == "channels_last" else (B, size * size * C)
    out = torch.empty(shape, dtype=dtype, device=img.device)
    if B:
        _pixels[(B, triton.cdiv(size * size, BLOCK))](
            img_BHWC, y_BS.contiguous(), x_BS.contiguous(), mean_C, std_C, out, H, W, size,
            patch or 1, *img_BHWC.stride(), C=C, PATCHES=layout == "patches", BLOCK=BLOCK,
        )  # fmt: skip
    if layout == "channels_last":
        return out.permute(0, 3, 1, 2)
    return out.view(B, (size // patch) ** 2, patch * patch * C)
