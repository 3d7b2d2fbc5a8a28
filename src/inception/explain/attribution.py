"""Where an answer comes from: five methods behind one function.

Every method answers a `Question` (which class, against which other, by which head) for normalised images
N x C x H x W and returns one map for each image, float32 N x H x W. Call them through `attribute`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inception.errors import UsageError
from inception.explain.layers import LOGITS, activations, borrowed, find_layer, forward_taps
from inception.nets.network import Network

BATCH = 16
"""Most images in one pass of the methods that need many."""


@dataclass(frozen=True)
class Question:
    """What is to be explained.

    Attributes:
        target: position of the class.
        against: position of another class: what speaks for `target` rather than for it;
            None: the class alone.
        head: `logits`, or an auxiliary head (`aux1`, `aux4a`).
    """

    target: int
    against: int | None = None
    head: str = LOGITS


@dataclass(frozen=True)
class Options:
    """What the methods can be told; None lets them choose.

    Attributes:
        layer: of the two Grad-CAMs; None: the last stage before the head whose map has more than one place.
        steps: points on the path of integrated gradients.
        samples: noisy copies of SmoothGrad.
        noise: their standard deviation, as a share of the image's range.
        window: side of the occluding square in pixels; None: a seventh of the image.
        seed: of the noise.
    """

    layer: str | None = None
    steps: int = 48
    samples: int = 32
    noise: float = 0.15
    window: int | None = None
    seed: int = 0


def score(network: Network, images: Tensor, question: Question) -> Tensor:
    """The head's logit of the target (minus that of `against`), N values."""
    logits = activations(network, images, [question.head])[question.head].float()
    for index in (question.target, question.against or 0):
        if not 0 <= index < logits.shape[1]:
            raise UsageError(f"the bundle has {logits.shape[1]} classes: there is no class {index}")
    values = logits[:, question.target]
    return values if question.against is None else values - logits[:, question.against]


def attribute(
    network: Network, images: Tensor, question: Question, method: str, options: Options | None = None
) -> Tensor:
    """One map for each image by `method`, a key of `METHODS`: float32 N x H x W.

    Grad-CAM's maps are >= 0, as are SmoothGrad's; the others are signed: positive speaks for the target.
    The network is left as it was, also after an exception. Raises UsageError for an unknown method, layer,
    head or class.
    """
    if method not in METHODS:
        raise UsageError(f"no method is called '{method}'; there are {', '.join(METHODS)}")
    with borrowed(network), torch.enable_grad():
        return METHODS[method](network, images.detach(), question, options or Options()).detach().float()


def grad_cam(network: Network, images: Tensor, question: Question, options: Options) -> Tensor:
    """Channels of a layer, weighted by their mean gradient. Source: Selvaraju et al. 2017, eq. 1 and 2."""
    features, gradients = _features_and_gradients(network, images, question, options)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return _enlarged(F.relu((weights * features).sum(dim=1, keepdim=True)), images)


def grad_cam_plus_plus(network: Network, images: Tensor, question: Question, options: Options) -> Tensor:
    """Channels weighted by positive gradients, each place by what it adds.

    Source: Chattopadhay et al. 2018, eq. 10 and 19: for exp(score) the second and third derivatives are
    powers of the first. The factor exp(score) itself, equal for all places, is left out.
    """
    features, gradients = _features_and_gradients(network, images, question, options)
    square = gradients.square()
    total = features.sum(dim=(2, 3), keepdim=True)
    below = 2 * square + total * square * gradients
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1.0), 0.0)
    weights = (alpha * F.relu(gradients)).sum(dim=(2, 3), keepdim=True)
    return _enlarged(F.relu((weights * features).sum(dim=1, keepdim=True)), images)


def integrated_gradients_channels(
    network: Network, images: Tensor, question: Question, options: Options
) -> Tensor:
    """Image times the mean gradient on the straight path from the mean colour to it: N x C x H x W.

    The mean colour is zero after normalisation. The integral is a Gauss-Legendre sum. The sum over an image
    is the score minus that of the plain mean colour (completeness), up to the sum's error.
    Source: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks".
    """
    points, weights = np.polynomial.legendre.leggauss(options.steps)
    total = torch.zeros_like(images)
    for row in range(len(images)):
        image = images[row : row + 1]
        for part in _parts(options.steps):
            shares = torch.tensor((points[part] + 1) / 2, dtype=image.dtype, device=image.device)
            factors = torch.tensor(weights[part] / 2, dtype=image.dtype, device=image.device)
            gradients = _input_gradients(network, image * shares.view(-1, 1, 1, 1), question)
            total[row] += (gradients * factors.view(-1, 1, 1, 1)).sum(dim=0)
    return total * images


def integrated_gradients(network: Network, images: Tensor, question: Question, options: Options) -> Tensor:
    """`integrated_gradients_channels`, summed over the channels."""
    return integrated_gradients_channels(network, images, question, options).sum(dim=1)


def smoothgrad_channels(network: Network, images: Tensor, question: Question, options: Options) -> Tensor:
    """Mean gradient over noisy copies of the image: N x C x H x W, signed.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".
    """
    generator = torch.Generator().manual_seed(options.seed)
    total = torch.zeros_like(images)
    for row in range(len(images)):
        image = images[row : row + 1]
        deviation = options.noise * (image.max() - image.min())
        shape = (options.samples, *image.shape[1:])
        noise = torch.randn(shape, generator=generator).to(image.device) * deviation
        for part in _parts(options.samples):
            total[row] += _input_gradients(network, image + noise[part], question).sum(dim=0)
    return total / options.samples


def smoothgrad(network: Network, images: Tensor, question: Question, options: Options) -> Tensor:
    """`smoothgrad_channels`, absolute and summed over the channels."""
    return smoothgrad_channels(network, images, question, options).abs().sum(dim=1)


def occlusion(network: Network, images: Tensor, question: Question, options: Options) -> Tensor:
    """How much the score falls when a square of mean colour covers the place, averaged over the squares.

    Squares lie half a side apart. Source: Zeiler and Fergus 2014, section 4.
    """
    height, width = images.shape[2:]
    side = options.window or max(min(height, width) // 7, 1)
    if not 1 <= side <= min(height, width):
        raise UsageError(f"the occluding window must have 1 to {min(height, width)} pixels, not {side}")
    stride = max(side // 2, 1)
    places = [
        (row, column) for row in _starts(height, side, stride) for column in _starts(width, side, stride)
    ]
    cover = torch.zeros(height, width, device=images.device)
    for row, column in places:
        cover[row : row + side, column : column + side] += 1
    result = torch.zeros(len(images), height, width, device=images.device)
    with torch.no_grad():
        for number, image in enumerate(images):
            whole = score(network, image[None], question)
            for part in _parts(len(places)):
                chosen = places[part]
                covered = image.expand(len(chosen), *image.shape).clone()
                for index, (row, column) in enumerate(chosen):
                    covered[index, :, row : row + side, column : column + side] = 0.0
                falls = whole - score(network, covered, question)
                for (row, column), fall in zip(chosen, falls, strict=True):
                    result[number, row : row + side, column : column + side] += fall
    return result / cover


METHODS: dict[str, Callable[[Network, Tensor, Question, Options], Tensor]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "integrated-gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "occlusion": occlusion,
}
SIGNED = ("integrated-gradients", "occlusion")


def cam_layer(network: Network, images: Tensor, question: Question, layer: str | None) -> str:
    """Name of the layer that the Grad-CAMs read.

    Raises UsageError when the layer asked for is not before the head, or has no map.
    """
    head = find_layer(network, question.head)
    if layer is not None:
        return layer
    if head in network.aux_taps:
        return network.aux_taps[head]
    with torch.no_grad():
        maps = forward_taps(network, images[:1], network.endpoints)
    for name in reversed(network.endpoints):
        if maps[name].dim() == 4 and min(maps[name].shape[2:]) > 1:
            return name
    raise UsageError("no stage of this network has a map of more than one place; use another method")


def _features_and_gradients(
    network: Network, images: Tensor, question: Question, options: Options
) -> tuple[Tensor, Tensor]:
    layer = cam_layer(network, images, question, options.layer)
    images = images.clone().requires_grad_()
    names = [layer, question.head]
    maps = activations(network, images, names)
    features, logits = maps[layer], maps[question.head].float()
    if features.dim() != 4:
        raise UsageError(f"Grad-CAM needs a layer with a map; {layer} has none")
    values = logits[:, question.target]
    if question.against is not None:
        values = values - logits[:, question.against]
    [gradients] = torch.autograd.grad(values.sum(), [features], allow_unused=True)
    if gradients is None:
        raise UsageError(f"the head {question.head} does not depend on layer {layer}; choose one before it")
    return features.detach().float(), gradients.float()


def _input_gradients(network: Network, images: Tensor, question: Question) -> Tensor:
    images = images.clone(memory_format=torch.channels_last).requires_grad_()
    [gradients] = torch.autograd.grad(score(network, images, question).sum(), [images])
    return gradients


def _enlarged(maps: Tensor, images: Tensor) -> Tensor:
    size = (images.shape[2], images.shape[3])
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))


def _starts(length: int, side: int, stride: int) -> range:
    return range(0, length - side + stride, stride)
