"""uint8 pictures to what a tower takes, on the device: the plain twin of `triton_pixels.py`.

B pictures of H by W pixels in C channels, S the side that comes out, P the side of a patch.
A crop box is (top, left, height, width) in pixels, fractions allowed; its area is sampled
bilinearly at the centres of S by S equal cells, without a low-pass filter: sizes of boxes are to
be near S. Pixels beyond an edge repeat it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Layout = Literal["channels_last", "patches"]


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
    """Cropped, mirrored, scaled to 0..1, mean taken off, divided by std.

    Args:
        img: uint8 (B, H, W, C) or (B, C, H, W); whichever has C of 3 or 1 in that place.
        mean_C, std_C: fp32, of values from 0 to 1.
        dtype: fp32, bf16 or fp16; arithmetic is fp32.
        layout: "channels_last": (B, C, S, S) in that memory format; "patches": (B, (S / P)^2,
            P P C) with channels fastest.
        patch: P, for "patches".
        size: S; 0: as the pictures, which then are square.
        box_B4: fp32 crop boxes; None: the whole picture.
        flip_B: bool, which to mirror left to right; None: none.

    Raises:
        ValueError: shapes that don't fit.
    """
    img_BHWC, size = checked(img, layout, patch, size)
    y_BS, x_BS = positions(img_BHWC, size, box_B4, flip_B)
    if box_B4 is None and size == img_BHWC.shape[1] == img_BHWC.shape[2]:
        out_BSSC = img_BHWC.float()
        if flip_B is not None:
            out_BSSC = torch.where(flip_B[:, None, None, None], out_BSSC.flip(2), out_BSSC)
    else:
        out_BSSC = _sampled(img_BHWC, y_BS, x_BS)
    out_BSSC = (out_BSSC / 255 - mean_C) / std_C
    if layout == "channels_last":
        return out_BSSC.to(dtype).contiguous().permute(0, 3, 1, 2)
    B, _, _, C = out_BSSC.shape
    n = size // patch
    out = out_BSSC.view(B, n, patch, n, patch, C).transpose(2, 3)
    return out.reshape(B, n * n, patch * patch * C).to(dtype)


def checked(img: Tensor, layout: Layout, patch: int, size: int) -> tuple[Tensor, int]:
    """Pictures as (B, H, W, C), a view, and the side that comes out."""
    if img.dtype != torch.uint8 or img.ndim != 4:
        raise ValueError(f"pictures are uint8 of 4 dimensions, not {img.dtype} {[*img.shape]}")
    img_BHWC = img if img.shape[3] in (1, 3) else img.permute(0, 2, 3, 1)
    _, H, W, C = img_BHWC.shape
    if C not in (1, 3):
        raise ValueError(f"pictures of {[*img.shape]} have no 1 or 3 channels")
    if not size and H != W:
        raise ValueError(f"pictures of {H} by {W} pixels need a size")
    size = size or H
    if layout == "patches" and (patch < 1 or size % patch):
        raise ValueError(f"pictures of {size} pixels can't be cut into patches of {patch}")
    return img_BHWC, size


def positions(
    img_BHWC: Tensor, size: int, box_B4: Tensor | None, flip_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Where in a picture each row and column of the result lies, (B, S) each, in pixels."""
    B, H, W, _ = img_BHWC.shape
    if box_B4 is None:
        box_B4 = torch.tensor([0.0, 0.0, H, W], device=img_BHWC.device).expand(B, 4)
    cell_S = torch.arange(size, device=img_BHWC.device) + 0.5
    top_B1, left_B1, height_B1, width_B1 = torch.split(box_B4.float(), 1, dim=1)
    y_BS = top_B1 + cell_S * (height_B1 / size) - 0.5
    if flip_B is not None:
        cell_BS = torch.where(flip_B[:, None], size - cell_S, cell_S)
    else:
        cell_BS = cell_S.expand(B, size)
    return y_BS, left_B1 + cell_BS * (width_B1 / size) - 0.5


def _sampled(img_BHWC: Tensor, y_BS: Tensor, x_BS: Tensor) -> Tensor:
    """Bilinear samples, fp32 (B, S, S, C)."""
    batch_B11 = torch.arange(len(img_BHWC), device=img_BHWC.device)[:, None, None]
    ends = []
    for at_BS, most in ((y_BS, img_BHWC.shape[1] - 1), (x_BS, img_BHWC.shape[2] - 1)):
        at_BS = at_BS.clamp(0, most)
        low_BS = at_BS.floor()
        ends.append((low_BS.long(), (low_BS.long() + 1).clamp(max=most), at_BS - low_BS))
    (y0, y1, fy), (x0, x1, fx) = ends
    rows = []
    for y in (y0, y1):
        left = img_BHWC[batch_B11, y[:, :, None], x0[:, None, :]].float()
        right = img_BHWC[batch_B11, y[:, :, None], x1[:, None, :]].float()
        rows.append(left + (right - left) * fx[:, None, :, None])
    return rows[0] + (rows[1] - rows[0]) * fy[:, :, None, None]
