"""DeepDream: what a network sees in a picture, drawn into the picture.

Source: Mordvintsev et al. 2015, "Inceptionism"; octaves, random shifts and gradients whose bands of
frequencies are made equally strong are those of the published notebooks. Gradients of large pictures are made
in tiles, so that memory stays small.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.errors import UsageError
from inception.explain.layers import activations, borrowed
from inception.explain.objectives import Objective
from inception.explain.render import in_precision, to_image, to_input
from inception.nets.heads import FullyConnectedHead
from inception.nets.network import Network


@dataclass(frozen=True)
class DreamSettings:
    """How a dream is made.

    Attributes:
        octaves: sizes at which it is painted, from small to the picture's own.
        octave_scale: ratio of one size to the next.
        steps: gradient steps at each size.
        strength: change of a pixel per step, in 255ths, where the gradient is average.
        tile: side of the pieces in which gradients are made, in pixels; None: four times the network's image,
            at most 512.
        bands: into how many bands of frequencies the gradient is split, each made equally strong: without it
            the finest detail, which shows as speckle, takes nearly all; 1: the gradient as it is.
        seed: of the random shifts.
        precision: as in `Settings`.
    """

    octaves: int = 4
    octave_scale: float = 1.4
    steps: int = 10
    strength: float = 1.5
    tile: int | None = None
    bands: int = 4
    seed: int = 0
    precision: str = "auto"


def guided(layers: Sequence[str], network: Network, preprocess: Preprocess, guide: Image.Image) -> Objective:
    """The objective of a guided dream: every place takes after the place of `guide` that it is most like.

    For every place of a layer the dot product with the best fitting feature vector of the guide, averaged.
    Raises UsageError for a guide that is smaller than the network sees.
    """
    pixels = _to_pixels(guide, preprocess)
    with borrowed(network), torch.no_grad():
        device = next(network.parameters()).device
        try:
            maps = activations(network, to_input(pixels.to(device), preprocess), layers)
        except ValueError as error:
            raise UsageError(f"the guide is too small: {error}") from error
    wanted = {layer: maps[layer][0].flatten(1).float() for layer in layers}  # C x places

    def value(found: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for layer, features in wanted.items():
            places = found[layer].float().flatten(2)  # N x C x places
            with torch.no_grad():
                best = torch.einsum("ncp,cq->npq", places, features).argmax(dim=2)
            chosen = features[:, best].permute(1, 0, 2)
            total = total + (places * chosen).sum(dim=1).mean(dim=1)
        return total

    return Objective(f"guided({', '.join(layers)})", frozenset(layers), value)


def dream(
    network: Network,
    preprocess: Preprocess,
    image: Image.Image,
    objective: Objective,
    settings: DreamSettings | None = None,
    progress: Callable[[], None] | None = None,
) -> Image.Image:
    """The picture, of its own size, with more of what makes `objective` large.

    Args:
        network: any network that takes images of any size; it is not changed.
        preprocess: how its inputs are normalised.
        image: RGB, at least as large as the network's smallest input.
        objective: see `inception.explain.objectives.parse`.
        settings: how it is made.
        progress: called after every gradient step; there are `octaves * steps`.

    Raises UsageError for a picture that is too small or a network of fixed input size.
    """
    settings = settings or DreamSettings()
    if isinstance(network.head, FullyConnectedHead):
        raise UsageError("this network takes images of one size only and cannot dream")
    if min(image.size) < max(network.min_size, 16):
        raise UsageError(f"the picture is {image.width} x {image.height} pixels: too small for a dream")
    device = next(network.parameters()).device
    original = _to_pixels(image, preprocess).to(device)
    generator = np.random.default_rng(settings.seed)
    details = torch.zeros_like(original)
    with borrowed(network), torch.enable_grad():
        network, dtype = in_precision(network, settings.precision, device)
        tile = _tile_side(network, settings)
        paint = _Painter(network, preprocess, objective, dtype, tile, settings.bands)
        for size in _octaves(original, settings, network.min_size):
            base = _resized(original, size)
            details = _resized(details, size)
            current = base + details
            for _ in range(settings.steps):
                current = paint.step(current, settings.strength / 255.0, generator)
                if progress:
                    progress()
            details = current - base
    return _to_picture(original + details, preprocess)


def zoom(
    network: Network,
    preprocess: Preprocess,
    image: Image.Image,
    objective: Objective,
    settings: DreamSettings,
    frames: int,
    factor: float = 1.04,
    progress: Callable[[], None] | None = None,
) -> Iterator[Image.Image]:
    """A fall into the dream: every frame is the last one, enlarged by `factor` and dreamt on.

    Yields `frames` pictures of the image's size; `progress` and errors as in `dream`.
    """
    for number in range(frames):
        image = dream(network, preprocess, image, objective, settings, progress)
        yield image
        if number + 1 < frames:
            width, height = image.width / factor, image.height / factor
            left, top = (image.width - width) / 2, (image.height - height) / 2
            box = (left, top, left + width, top + height)
            image = image.resize(image.size, Image.Resampling.BICUBIC, box=box)


class _Painter:
    """Gradient steps on pictures 1 x C x H x W in 0..1."""

    def __init__(
        self,
        network: Network,
        preprocess: Preprocess,
        objective: Objective,
        dtype: torch.dtype,
        tile: int,
        bands: int,
    ) -> None:
        self.network, self.preprocess, self.objective = network, preprocess, objective
        self.dtype, self.tile, self.bands = dtype, tile, bands

    def step(self, pixels: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
        """One step on the whole picture; it is rolled by a random shift, so that tiles leave no seams."""
        height, width = pixels.shape[2:]
        shift = (int(generator.integers(height)), int(generator.integers(width)))
        rolled = pixels.roll(shift, (2, 3))
        gradient = torch.zeros_like(rolled)
        for rows in _tiles(height, self.tile):
            for columns in _tiles(width, self.tile):
                gradient[:, :, rows, columns] = self._gradient(rolled[:, :, rows, columns])
        gradient = balanced(gradient.roll((-shift[0], -shift[1]), (2, 3)), self.bands)
        return (pixels + strength * gradient).clamp(0.0, 1.0)

    def _gradient(self, pixels: Tensor) -> Tensor:
        pixels = pixels.detach().clone().requires_grad_()
        inputs = (
            to_input(pixels, self.preprocess).to(self.dtype).contiguous(memory_format=torch.channels_last)
        )
        maps = activations(self.network, inputs, self.objective.layers)
        [gradient] = torch.autograd.grad(self.objective.value(maps).sum(), [pixels])
        return gradient / gradient.abs().mean().clamp(min=1e-12)


def balanced(gradient: Tensor, bands: int) -> Tensor:
    """A gradient N x C x H x W with equally strong bands of frequencies and a mean absolute value of 1.

    The bands are those of a Laplacian pyramid; small pictures have fewer than asked for.
    """
    fine: list[Tensor] = []
    while len(fine) < bands - 1 and min(gradient.shape[2:]) >= 8:
        coarse = F.avg_pool2d(gradient, 2, ceil_mode=True, count_include_pad=False)
        fine.append(_unit(gradient - _enlarged(coarse, gradient)))
        gradient = coarse
    total = _unit(gradient)
    for band in reversed(fine):
        total = _enlarged(total, band) + band
    return total / total.abs().mean().clamp(min=1e-12)


def _unit(values: Tensor) -> Tensor:
    return values / values.square().mean().sqrt().clamp(min=1e-12)


def _enlarged(values: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(values, like.shape[2:], mode="bilinear", align_corners=False)


def _tiles(length: int, side: int) -> list[slice]:
    """Slices of nearly equal length, at most `side`."""
    count = -(-length // side)
    edges = [round(index * length / count) for index in range(count + 1)]
    return [slice(edges[index], edges[index + 1]) for index in range(count)]


def _tile_side(network: Network, settings: DreamSettings) -> int:
    side = settings.tile or min(4 * network.image_size, 512)
    if side < 2 * max(network.min_size, 16):
        raise UsageError(f"a tile must have at least {2 * max(network.min_size, 16)} pixels, not {side}")
    return side


def _octaves(original: Tensor, settings: DreamSettings, least: int) -> list[tuple[int, int]]:
    height, width = original.shape[2:]
    sizes = []
    for octave in reversed(range(settings.octaves)):
        scale = settings.octave_scale**-octave
        size = (round(height * scale), round(width * scale))
        if min(size) >= max(least, 16):
            sizes.append(size)
    return sizes


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def _to_pixels(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """1 x C x H x W in 0..1, RGB or grey."""
    array = np.asarray(image.convert("L" if preprocess.color == "L" else "RGB"), dtype=np.float32) / 255.0
    tensor = torch.from_numpy(array)
    return tensor[None, None] if tensor.dim() == 2 else tensor.permute(2, 0, 1)[None].contiguous()


def _to_picture(pixels: Tensor, preprocess: Preprocess) -> Image.Image:
    return to_image(pixels[0].detach().cpu().expand(3, -1, -1))
