"""Small random shifts, turns and sizes: what is optimised must survive them, so that noise does not pay."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Robustness:
    """How far a picture is moved at every step; the values are Lucid's for 128 pixels.

    Attributes:
        pad: grey border, as a share of the side.
        jitter: largest shift in each direction, as a share of the side.
        scale: largest change of size, as a fraction.
        degrees: largest rotation.
    """

    pad: float = 12 / 128
    jitter: float = 6 / 128
    scale: float = 0.1
    degrees: float = 10.0


NONE = Robustness(0.0, 0.0, 0.0, 0.0)


def moved(images: Tensor, robustness: Robustness, generator: torch.Generator, fixed_size: bool) -> Tensor:
    """Images N x C x H x W (0..1) moved together by one random shift, size and rotation.

    One bilinear lookup does all of it. The result has a grey border of `pad` on every side, so that shapes
    never change (which libraries of fast convolutions like), or with `fixed_size` the input's own size.
    """
    if robustness == NONE:
        return images
    height, width = images.shape[2:]
    pad = 0 if fixed_size else round(robustness.pad * min(height, width))
    out_height, out_width = height + 2 * pad, width + 2 * pad
    draws = torch.rand(5, generator=generator).tolist()
    shift = [(2 * draw - 1) * robustness.jitter for draw in draws[:2]]
    size = 1 + (2 * draws[2] - 1) * robustness.scale
    # A fifth of the steps does not rotate: upright detail is seen sharp.
    angle = 0.0 if draws[3] < 0.2 else math.radians((2 * draws[4] - 1) * robustness.degrees)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    wide, high = out_width / width, out_height / height
    theta = torch.tensor(
        [
            [cos * wide, -sin * out_height / width, 2 * shift[0]],
            [sin * out_width / height, cos * high, 2 * shift[1]],
        ],
        device=images.device,
    )
    grid = F.affine_grid(
        theta[None].expand(len(images), 2, 3),
        [len(images), images.shape[1], out_height, out_width],
        align_corners=False,
    )
    # grid_sample fills with zeros: grey is zero in shifted values.
    return F.grid_sample(images - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
