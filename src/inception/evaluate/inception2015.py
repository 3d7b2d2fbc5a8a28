"""The Inception-v3 that FID, KID and Inception Score are defined on: Google's graph of 5 December 2015.

It differs from other published Inception-v3 networks: average pools leave the zeros of the border out, the
last module pools by maximum, and it has 1008 outputs, of which 1000 are classes. How a picture becomes its
299 x 299 input moves the scores as well, so the three ways in use are named and none is silent.

Source: the converted weights and their users, torch-fidelity (feature_extractor_inceptionv3.py), pytorch-fid
(inception.py), and for the anti-aliased input clean-fid (Parmar et al., "On Aliased Resizing and Surprising
Subtleties in GAN Evaluation", 2022).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inception.data.loader import ahead
from inception.errors import DataError, InceptionError, UsageError, WeightsError
from inception.nets.architecture import Architecture, build, changed
from inception.nets.blocks import Mixed
from inception.nets.inception_v3 import INCEPTION_V3
from inception.nets.network import Network
from inception.nets.rows import Pool
from inception.runtime.device import choose_device, place
from inception.weights.formats.recognize import read_foreign
from inception.weights.matching import describe, match_tensors
from inception.weights.sources.choose import choose_source, sources_of
from inception.weights.sources.inception_v3 import GRAPH_299

SIDE, OUTPUTS, NUM_FEATURES = 299, 1008, 2048

Resize = Literal["tensorflow", "torch", "antialias"]
"""`tensorflow`: bilinear as TensorFlow 1 had it, corners aligned at the top left, no smoothing, values
(x - 128) / 128: the original FID and torch-fidelity. `torch`: bilinear between pixel centres, no smoothing,
values x / 127.5 - 1: pytorch-fid. `antialias`: Pillow's bicubic, (x - 128) / 128: clean-fid."""


def _architecture() -> Architecture:
    last = INCEPTION_V3.rows[-1]
    if not isinstance(last, Mixed):
        raise TypeError("Inception-v3 no longer ends in a module")
    *others, pooled = last.branches
    by_maximum = replace(last, branches=(*others, (Pool("pool", 3), *pooled[1:])))
    return replace(INCEPTION_V3, rows=changed(INCEPTION_V3.rows, {last.name: by_maximum}))


def build_network_2015() -> Network:
    """The network with fresh weights: 1008 outputs, 2048 features, no auxiliary head."""
    return build(_architecture(), num_classes=OUTPUTS, aux_logits=False, count_include_pad=False)


def load_network_2015(path: Path) -> Network:
    """The network with the weights at `path`, in evaluation mode.

    Args:
        path: Google's `classify_image_graph_def.pb`, the `.pth` of pytorch-fid or torch-fidelity
            (`pt_inception-2015-12-05-6726825d.pth`), or a safetensors file with our names.

    Raises:
        UsageError: there is no such file.
        WeightsError: it does not fill the network.
    """
    with torch.device("meta"):
        described = build_network_2015()
    foreign = read_foreign(path)
    names = list(described.state_dict())
    source = choose_source("inception_v3", sources_of("inception_v3", GRAPH_299), foreign, names)
    tensors, report = match_tensors(described, foreign, source)
    if not report.complete:
        raise WeightsError(
            f"{path} does not hold the Inception-v3 of 2015 ({OUTPUTS} outputs): {describe(report)}"
        )
    network = build_network_2015()
    network.load_state_dict(tensors)
    return network.eval()


def resize_tensorflow(pixels: Tensor) -> Tensor:
    """N x C x H x W float32 to N x C x 299 x 299, bilinear as `tf.image.resize_bilinear` of TensorFlow 1."""
    for dim in (3, 2):
        length = pixels.shape[dim]
        place = torch.arange(SIDE, dtype=torch.float32) * torch.tensor(length / SIDE, dtype=torch.float32)
        low = place.long()
        high = (low + 1).clamp_max(length - 1)
        share = (place - low).view((-1, 1) if dim == 2 else (-1,))
        before = pixels.index_select(dim, low)
        pixels = before + (pixels.index_select(dim, high) - before) * share
    return pixels


def network_input(image: Image.Image, resize: Resize) -> Tensor:
    """An RGB picture of any size as the network sees it: float32 3 x 299 x 299, about -1 to 1.

    Raises:
        UsageError: an unknown way of resizing.
    """
    values = np.array(image, dtype=np.float32)
    if resize == "antialias":
        channels = [
            np.asarray(Image.fromarray(values[:, :, index]).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for index in range(3)
        ]
        return (torch.from_numpy(np.stack(channels)).clamp(0, 255) - 128) / 128
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None]
    if resize == "tensorflow":
        return ((resize_tensorflow(pixels) - 128) / 128)[0]
    if resize == "torch":
        scaled = F.interpolate(pixels / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return (2 * scaled - 1)[0]
    raise UsageError(f"resize must be tensorflow, torch or antialias, not {resize!r}")


@dataclass(frozen=True, eq=False)
class Activations:
    """What the network computed for N images.

    Attributes:
        features: float32 N x 2048, the pooled last map.
        logits: float32 N x 1008, without the classifier's bias (as the Inception Score takes them).
        unreadable: images left out, and why.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    unreadable: Mapping[str, str]


class Extractor:
    """The network on a device, ready to be shown pictures."""

    def __init__(self, network: Network, resize: Resize = "tensorflow", device: str = "auto") -> None:
        self.resize = resize
        self.device = choose_device(device)
        self.network = place(network.eval(), self.device)

    def batch(self, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """float32 N x 3 x 299 x 299 (`network_input`) in, features N x 2048 and logits N x 1008 out."""
        with torch.inference_mode():
            images = pixels.to(self.device).contiguous(memory_format=torch.channels_last)
            maps = self.network.forward_features(images)
            features = self.network.forward_head(maps, pre_logits=True)
            logits = features @ self.network.get_submodule("fc").weight.T  # type: ignore[operator]
        return features.cpu().numpy(), logits.cpu().numpy()

    def activations(
        self,
        items: Iterable[tuple[str, Callable[..., Image.Image]]],
        *,
        batch_size: int = 32,
        workers: int = 2,
        progress: Callable[[int], None] | None = None,
    ) -> Activations:
        """What the network computes for (name, function that opens the image) pairs, in order.

        Raises:
            DataError: fewer than two images can be read.
        """
        unreadable: dict[str, str] = {}

        def prepare(item: tuple[str, Callable[..., Image.Image]]) -> Tensor | None:
            try:
                return network_input(item[1](), self.resize)
            except InceptionError as error:
                unreadable[item[0]] = str(error)
                return None

        parts = []
        for pictures in _batches(ahead(prepare, items, workers), batch_size):
            parts.append(self.batch(torch.stack(pictures)))
            if progress is not None:
                progress(len(pictures))
        if sum(len(features) for features, _ in parts) < 2:
            reasons = next(iter(unreadable.values()), "there is only one")
            raise DataError(f"generative metrics need at least two images on each side: {reasons}")
        features, logits = zip(*parts, strict=True)
        return Activations(np.concatenate(features), np.concatenate(logits), unreadable)


def _batches(pictures: Iterator[Tensor | None], size: int) -> Iterator[list[Tensor]]:
    readable = (picture for picture in pictures if picture is not None)
    while batch := list(islice(readable, size)):
        yield batch
