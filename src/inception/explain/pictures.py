"""Pictures of maps: colours, overlays, and sheets of labelled cells."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inception.data.preprocess import Preprocess

GAP, TEXT_HEIGHT = 8, 15
INK, SOFT, PAPER = (30, 34, 40), (110, 116, 124), (255, 255, 255)
SERIES = ((43, 108, 176), (214, 110, 30), (70, 140, 90), (150, 90, 160), (200, 70, 90), (120, 120, 60))
# From nothing to much, and from against to for: evenly spaced colours, interpolated linearly.
_HEAT = ((20, 11, 52), (101, 21, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
_SIGNED = (
    (120, 200, 255),
    (20, 90, 200),
    (20, 90, 200),
    (0, 0, 0),
    (215, 40, 30),
    (215, 40, 30),
    (255, 190, 60),
)
Cell = tuple[Image.Image, str]


def coloured(attribution: Tensor, signed: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A map H x W as colours (uint8 H x W x 3) and strength (float32 H x W in 0..1).

    Scaled by the 99.5th percentile of the absolute values, so that single pixels do not hide the rest.
    """
    values = attribution.detach().float().cpu().numpy()
    top = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    scaled = np.clip(values / top, -1.0, 1.0)
    if signed:
        return _palette((scaled + 1) / 2, _SIGNED), np.abs(scaled).astype(np.float32)
    positive = np.clip(scaled, 0.0, 1.0)
    return _palette(positive, _HEAT), positive.astype(np.float32)


def _palette(shares: NDArray[np.floating], colours: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    stops = np.linspace(0.0, 1.0, len(colours))
    table = np.asarray(colours, dtype=np.float64)
    channels = [np.interp(shares, stops, table[:, channel]) for channel in range(3)]
    palette: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return palette


def overlay(image: Image.Image, attribution: Tensor, signed: bool) -> Image.Image:
    """The map over a darkened grey image of the same size; stronger places are more opaque.

    It is smoothed by a hundredth of the side: single pixels could not be seen. A signed map shows how strong
    its values are around a place, red where they sum to more than zero, blue where to less.
    """
    maps = torch.stack([attribution.abs(), attribution])[:, None].float()
    strong, mean = blur(maps, 1 / 100)[:, 0]
    colours, strength = coloured(torch.where(mean < 0, -strong, strong), signed)
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2) * 0.75
    share = 0.85 * (strength if signed else np.sqrt(strength))[..., None]
    return Image.fromarray(np.rint(grey * (1 - share) + colours * share).astype(np.uint8))


def seen(batch: Tensor, preprocess: Preprocess) -> Image.Image:
    """What the network sees of an image: uint8 C x H x W of `Preprocess.apply` as an RGB picture."""
    array = batch.cpu()
    if preprocess.color == "BGR":
        array = array.flip(0)
    return Image.fromarray(array.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


def enlarged(image: Image.Image, least: int = 128) -> Image.Image:
    """A small picture by a whole factor, its pixels kept sharp."""
    factor = max(1, least // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def blur(images: Tensor, share: float) -> Tensor:
    """N x C x H x W, each convolved with a Gaussian whose deviation is a share of the shorter side."""
    side = min(images.shape[2:])
    sigma = max(side * share, 0.5)
    radius = min(round(3 * sigma), side - 1)
    places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (places / sigma).square())
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that also has Chinese where the system has one, else Pillow's own."""
    for name in ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "PingFang.ttc", "msyh.ttc"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def shorten(text: str, width: int, size: int = 12) -> str:
    """`text`, cut with an ellipsis to fit `width` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def sheet(rows: Sequence[Sequence[Cell]], heads: Sequence[str] = ()) -> Image.Image:
    """Rows of pictures with texts (of one or more lines) below them and heads above the columns."""
    columns = max(len(row) for row in rows)
    widths = [max((row[c][0].width for row in rows if c < len(row)), default=0) for c in range(columns)]
    heights = [max(picture.height for picture, _ in row) for row in rows]
    lines = [max(text.count("\n") + 1 if text else 0 for _, text in row) for row in rows]
    top = GAP + (TEXT_HEIGHT + 4 if heads else 0)
    height = top + sum(heights) + sum(TEXT_HEIGHT * count + 4 for count in lines) + GAP * len(rows)
    canvas = Image.new("RGB", (sum(widths) + GAP * (columns + 1), height), PAPER)
    pen = ImageDraw.Draw(canvas)
    lefts = [GAP + sum(widths[:c]) + GAP * c for c in range(columns)]
    for c, head in enumerate(heads):
        pen.text((lefts[c], GAP - 2), shorten(head, widths[c], 13), INK, font(13))
    y = top
    for row, row_height, count in zip(rows, heights, lines, strict=True):
        for c, (picture, text) in enumerate(row):
            canvas.paste(picture, (lefts[c], y))
            for number, line in enumerate(text.split("\n")):
                place = (lefts[c], y + row_height + 2 + TEXT_HEIGHT * number)
                pen.text(place, shorten(line, widths[c]), INK if number == 0 else SOFT, font(12))
        y += row_height + TEXT_HEIGHT * count + 4 + GAP
    return canvas


def line_chart(series: Sequence[tuple[str, Sequence[float]]], width: int, height: int) -> Image.Image:
    """Curves of values in 0..1 over equal steps, with a legend."""
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    left, bottom, right, top = 26, height - 8, width - 6, 8
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        pen.line((left, y, right, y), (225, 228, 232))
        pen.text((4, y - 6), f"{share:g}", SOFT, font(10))
    for number, (name, values) in enumerate(series):
        colour = SERIES[number % len(SERIES)]
        points = [
            (left + index / max(len(values) - 1, 1) * (right - left), bottom - value * (bottom - top))
            for index, value in enumerate(values)
        ]
        for start, end in pairwise(points):
            pen.line((*start, *end), colour, 2)
        pen.text((left + 6, top + 2 + 13 * number), name, colour, font(11))
    return canvas


def grey_map(values: Tensor) -> Image.Image:
    """One feature map H x W, scaled to its own largest value, in heat colours."""
    colours, _ = coloured(torch.relu(values), signed=False)
    return Image.fromarray(colours)
