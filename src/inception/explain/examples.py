"""Which images of a collection excite a channel most: what stands beside a picture of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from inception.errors import DataError, InceptionError
from inception.explain.gallery import Channel
from inception.explain.layers import borrowed, find_layer, forward_taps
from inception.explain.pictures import seen
from inception.nets.network import Network
from inception.runtime.answering import opened
from inception.runtime.classifier import Classifier
from inception.runtime.inputs import Item

BATCH = 8
CROP_ENERGY = 0.9
"""An example shows the square that holds this share of what moves the channel's strongest place."""


@dataclass(frozen=True)
class Example:
    """One image that excites a channel.

    Attributes:
        name: its path.
        label: the classifier's answer for the whole image.
        value: the channel's largest value in it.
        picture: the part of the image around the strongest place.
    """

    name: str
    label: str
    value: float
    picture: Image.Image


@dataclass(frozen=True)
class _Peaks:
    values: Tensor  # N images x C channels
    places: Tensor  # N x C, position in the flattened map
    size: tuple[int, int]


def find_examples(
    classifier: Classifier,
    items: Iterable[Item],
    channels: Sequence[Channel],
    count: int = 4,
    limit: int = 2000,
    progress: Callable[[int], None] | None = None,
) -> dict[Channel, list[Example]]:
    """The `count` images that excite each channel most, best first.

    Args:
        classifier: whose network is asked; it is left as it was.
        items: images as of `expand_inputs`; unreadable ones are passed over.
        channels: which channels, of any layers.
        count: examples a channel.
        limit: most images looked at.
        progress: called with the number of images of each batch.

    Raises DataError when no image can be read.
    """
    network = classifier.model
    paths = {item.layer: find_layer(network, item.layer) for item in channels}
    found: dict[str, list[_Peaks]] = {layer: [] for layer in paths}
    batches: list[Tensor] = []
    names: list[str] = []
    answers: list[int] = []
    with borrowed(network), torch.no_grad():
        for some, batch in read_batches(classifier, islice(items, limit), progress):
            maps = forward_taps(network, network_input(classifier, batch), {*paths.values(), ""})
            for layer, path in paths.items():
                found[layer].append(_peaks(maps[path]))
            answers += maps[""].argmax(dim=1).tolist()
            names += some
            batches.append(batch)
    if not batches:
        raise DataError("none of the example images can be read")
    images = torch.cat(batches)
    peaks = {layer: _joined(parts) for layer, parts in found.items()}
    sides = {layer: receptive_side(network, path, images.shape[1:]) for layer, path in paths.items()}
    return {
        item: [
            Example(
                names[row],
                classifier.labels[answers[row]],
                float(peaks[item.layer].values[row, item.index]),
                crop_around(
                    images[row],
                    classifier,
                    int(peaks[item.layer].places[row, item.index]),
                    peaks[item.layer].size,
                    sides[item.layer],
                ),
            )
            for row in _best(peaks[item.layer].values[:, item.index], count)
        ]
        for item in channels
    }


def receptive_side(network: Network, path: str, shape: Sequence[int]) -> int:
    """Side of the square, in pixels, that holds most of what moves the centre of a layer's map.

    Measured: the gradient's energy over noise images. Theory's receptive field is larger, and nearly empty
    at its rim.
    """
    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    with borrowed(network), torch.enable_grad():
        images = torch.randn(4, *shape, generator=generator).to(device).requires_grad_()
        output = forward_taps(network, images, [path])[path]
        if output.dim() != 4:
            return min(int(shape[1]), int(shape[2]))
        centre = output[:, :, output.shape[2] // 2, output.shape[3] // 2].square().sum()
        [gradient] = torch.autograd.grad(centre, [images])
    energy = gradient.square().sum(dim=(0, 1))
    middle = (energy.shape[0] // 2, energy.shape[1] // 2)
    total, side = float(energy.sum()), 8
    while side < min(energy.shape):
        rows, columns = (slice(max(m - side // 2, 0), m + side // 2) for m in middle)
        if float(energy[rows, columns].sum()) >= CROP_ENERGY * total:
            break
        side += 4
    return min(side, *map(int, energy.shape))


def read_batches(
    classifier: Classifier, items: Iterable[Item], progress: Callable[[int], None] | None = None
) -> Iterator[tuple[list[str], Tensor]]:
    """Names and uint8 N x C x H x W of the readable images, a few at a time.

    `progress` is called with the number of images of each batch, unreadable ones included.
    """
    source = iter(items)
    while chunk := list(islice(source, BATCH)):
        ready = [(name, t) for name, t in (_open(classifier, one) for one in chunk) if t is not None]
        if ready:
            yield [name for name, _ in ready], torch.stack([tensor for _, tensor in ready])
        if progress:
            progress(len(chunk))


def network_input(classifier: Classifier, batch: Tensor) -> Tensor:
    """A batch of `read_batches` as the network takes it, on its device."""
    inputs = classifier.preprocess.normalize(batch.to(classifier.device))
    return inputs.contiguous(memory_format=torch.channels_last)


def _open(classifier: Classifier, item: Item) -> tuple[str, Tensor | None]:
    name, opener = item
    try:
        return name, classifier.preprocess.apply(opened(opener, classifier.preprocess))
    except InceptionError:
        return name, None


def _peaks(output: Tensor) -> _Peaks:
    if output.dim() == 2:
        output = output[:, :, None, None]
    values, places = output.float().flatten(2).max(dim=2)
    return _Peaks(values.cpu(), places.cpu(), (output.shape[2], output.shape[3]))


def _joined(parts: Sequence[_Peaks]) -> _Peaks:
    values, places = (
        torch.cat(tensors) for tensors in zip(*((p.values, p.places) for p in parts), strict=True)
    )
    return _Peaks(values, places, parts[0].size)


def _best(values: Tensor, count: int) -> list[int]:
    rows: list[int] = values.topk(min(count, len(values))).indices.tolist()
    return rows


def crop_around(
    image: Tensor, classifier: Classifier, place: int, size: tuple[int, int], side: int
) -> Image.Image:
    """The square of `side` pixels around a place of a map.

    Args:
        image: uint8 C x H x W of the classifier's preprocessing.
        classifier: whose image it is.
        place: position in the flattened map.
        size: height and width of the map.
        side: at most the image's shorter side.
    """
    height, width = image.shape[1:]
    row, column = divmod(place, size[1])
    y = round((row + 0.5) / size[0] * height - side / 2)
    x = round((column + 0.5) / size[1] * width - side / 2)
    top, left = min(max(y, 0), height - side), min(max(x, 0), width - side)
    return seen(image[:, top : top + side, left : left + side], classifier.preprocess)
