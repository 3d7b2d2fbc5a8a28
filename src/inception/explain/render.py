"""Feature visualisation: a picture is changed until it excites what it should.

Source: Olah et al. 2017, "Feature Visualization" (Distill).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.errors import UsageError
from inception.explain.canvas import Canvas
from inception.explain.layers import activations, borrowed
from inception.explain.objectives import Objective
from inception.explain.redirect import RedirectedRelu
from inception.explain.robust import Robustness, moved
from inception.nets.heads import FullyConnectedHead
from inception.nets.network import Network
from inception.runtime.device import choose_precision

REDIRECTED_STEPS = 16
SMALL_INPUT = 96
"""Networks for smaller images are drawn at their own size."""


@dataclass(frozen=True)
class Settings:
    """How a picture is made.

    Attributes:
        size: side in pixels; None: 128, or the network's own side where that is below 96. A network of
            one size only is drawn at that size.
        steps: steps of Adam.
        rate: Adam's learning rate.
        seed: of the first picture's noise (the next ones count on) and of the movements.
        precision: `float32`, `bfloat16`, or `auto` (bfloat16 where the machine gains from it).
        fourier, decorrelate: see `Canvas`.
        robustness: how far pictures are moved at every step.
        shared: pictures have a common part, so that they stay alike.
    """

    size: int | None = None
    steps: int = 256
    rate: float = 0.05
    seed: int = 0
    precision: str = "auto"
    fourier: bool = True
    decorrelate: bool = True
    robustness: Robustness = Robustness()
    shared: bool = False


def picture_size(network: Network, preprocess: Preprocess, settings: Settings) -> tuple[int, bool]:
    """Side of the pictures, and whether the network takes that size alone."""
    fixed = isinstance(network.head, FullyConnectedHead)
    own = min(preprocess.height, preprocess.width)
    if fixed:
        return network.image_size, True
    size = settings.size or (own if own < SMALL_INPUT else 128)
    if size < network.min_size:
        raise UsageError(f"the network needs pictures of at least {network.min_size} pixels, not {size}")
    return size, False


def render(
    network: Network,
    preprocess: Preprocess,
    objective: Objective,
    settings: Settings | None = None,
    seeds: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Pictures that make `objective` large.

    Args:
        network: any network, on any device; it is not changed.
        preprocess: how its inputs are normalised.
        objective: gives one value for each picture.
        settings: how they are made.
        seeds: one for each picture; None: one picture, from the settings' seed.
        progress: called after every step with the number of steps done.

    Returns:
        float32 N x 3 x S x S in 0..1 on the CPU, RGB. Equal seeds give equal pictures on one machine.

    Raises UsageError for an unknown layer or channel, or a size that the network cannot take.
    """
    settings = settings or Settings()
    seeds = [settings.seed] if seeds is None else seeds
    size, fixed = picture_size(network, preprocess, settings)
    device = next(network.parameters()).device
    canvas = Canvas(
        seeds,
        preprocess.in_chans,
        size,
        size,
        fourier=settings.fourier,
        decorrelate=settings.decorrelate,
        shared=settings.shared,
        device=device,
    )
    optimizer = torch.optim.Adam(canvas.parameters, lr=settings.rate)
    generator = torch.Generator().manual_seed(settings.seed)
    with borrowed(network), torch.enable_grad():
        network, dtype = in_precision(network, settings.precision, device)
        for step in range(settings.steps):
            images = moved(canvas.pixels(), settings.robustness, generator, fixed)
            inputs = to_input(images, preprocess).to(dtype).contiguous(memory_format=torch.channels_last)
            if step < REDIRECTED_STEPS:
                with RedirectedRelu():
                    gradients = _gradients(network, inputs, objective, canvas)
            else:
                gradients = _gradients(network, inputs, objective, canvas)
            for parameter, gradient in zip(canvas.parameters, gradients, strict=True):
                parameter.grad = -gradient
            optimizer.step()
            if progress:
                progress(step + 1)
    with torch.no_grad():
        pixels = canvas.pixels().cpu()
    return pixels.expand(-1, 3, -1, -1) if preprocess.color == "L" else pixels


def _gradients(network: Network, inputs: Tensor, objective: Objective, canvas: Canvas) -> tuple[Tensor, ...]:
    maps = activations(network, inputs, objective.layers)
    return torch.autograd.grad(objective.value(maps).sum(), canvas.parameters)


def in_precision(network: Network, precision: str, device: torch.device) -> tuple[Network, torch.dtype]:
    """The network itself in float32, or a copy of it in bfloat16, and the type of its inputs."""
    if choose_precision(precision, device) == "float32":
        return network, torch.float32
    # Casting a copy once is cheaper than casting the weights at every step, as autocast would.
    copied = copy.deepcopy(network).to(torch.bfloat16)
    return copied.to(memory_format=torch.channels_last), torch.bfloat16


def to_input(images: Tensor, preprocess: Preprocess) -> Tensor:
    """RGB (or grey) N x C x H x W in 0..1 in, the network's normalised input out; differentiable."""
    if preprocess.color == "BGR":
        images = images.flip(1)
    return preprocess.normalize(images * 255.0)


def to_image(pixels: Tensor) -> Image.Image:
    """float 3 x H x W in 0..1 in, a PIL image out."""
    values = (pixels.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
