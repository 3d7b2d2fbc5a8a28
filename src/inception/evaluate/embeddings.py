"""Features of images at any stage of a network, and what lies near what.

Nearness is cosine similarity. All pairs are compared, block by block: exact, and no index to build.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception.data.loader import ahead
from inception.errors import InceptionError, UsageError
from inception.nets.endpoints import resolve_endpoint
from inception.runtime.answering import Opener, opened
from inception.runtime.classifier import Classifier
from inception.runtime.device import autocast

Pool = Literal["average", "max", "none"]
POOLS: tuple[Pool, ...] = ("average", "max", "none")
FEATURES, LOGITS = "features", "logits"
"""Names beside the stages': what the classifier reads, and what it says."""

_BLOCK = 1024
_SMALLEST = 1e-12

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedding:
    """One image's features, float32 of one dimension, or why there are none."""

    path: str
    vector: Vectors | None
    error: str | None = None


def check_endpoint(classifier: Classifier, endpoint: str) -> None:
    """Raise UsageError, with near names, unless the network has such a stage."""
    if endpoint not in (FEATURES, LOGITS):
        resolve_endpoint(endpoint, classifier.model.endpoints, classifier.model.aliases)


def features(
    classifier: Classifier, batch: Tensor, endpoint: str = FEATURES, pool: Pool = "average"
) -> Vectors:
    """Features of a batch of pictures.

    Args:
        classifier: whose network they go through.
        batch: uint8 N x C x H x W of its preprocessing.
        endpoint: a stage by any tool's name; `features`: what the classifier reads; `logits`: what it says.
        pool: how a stage's map becomes one vector: its `average` or `max` over the positions, or `none`: all
            of it, channel after channel.

    Returns:
        float32 N x D.

    Raises:
        UsageError: there is no such stage.
        InceptionError: the network's numbers there are not finite.
    """
    model = classifier.model
    with torch.inference_mode(), autocast(classifier.device, classifier.network_precision):
        images = classifier.preprocess.normalize(batch.to(classifier.device))
        images = images.contiguous(memory_format=torch.channels_last)
        if endpoint in (FEATURES, LOGITS):
            found = model.forward_head(model.forward_features(images), pre_logits=endpoint == FEATURES)
        else:
            found = model.forward_endpoints(images, [endpoint])[endpoint]
    found = found.float()
    if found.dim() > 2 and pool != "none":
        found = found.mean((2, 3)) if pool == "average" else found.amax((2, 3))
    if not bool(found.isfinite().all()):
        raise InceptionError(
            f"the network's {endpoint} are not finite numbers: its weights are damaged, or too large for "
            f"{classifier.network_precision}; try another bundle or --precision float32"
        )
    vectors: Vectors = found.flatten(1).cpu().numpy()
    return vectors


def embed_stream(
    classifier: Classifier,
    items: Iterable[tuple[str, Opener]],
    *,
    endpoint: str = FEATURES,
    pool: Pool = "average",
    batch_size: int = 32,
    workers: int = 2,
) -> Iterator[Embedding]:
    """Features in order for (name, function that opens the image) pairs; a bad image gives its error.

    At most three batches are held in memory, however long `items` is.

    Raises:
        UsageError: there is no such stage.
    """
    check_endpoint(classifier, endpoint)

    def prepare(item: tuple[str, Opener]) -> tuple[str, Tensor | str]:
        try:
            return item[0], classifier.preprocess.apply(opened(item[1], classifier.preprocess))
        except InceptionError as error:
            return item[0], str(error)

    prepared = ahead(prepare, items, workers)
    while batch := list(islice(prepared, batch_size)):
        pictures = [picture for _, picture in batch if isinstance(picture, Tensor)]
        rows = iter(features(classifier, torch.stack(pictures), endpoint, pool) if pictures else ())
        for name, picture in batch:
            if isinstance(picture, str):
                yield Embedding(name, None, picture)
            else:
                yield Embedding(name, next(rows))


def _directions(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of length 1 (zero vectors stay)."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2:
        raise UsageError(f"vectors must be images x numbers, got shape {vectors.shape}")
    lengths = np.sqrt(np.square(vectors, dtype=np.float32).sum(axis=1, keepdims=True))
    directions: Vectors = (vectors / np.maximum(lengths, _SMALLEST)).astype(np.float32)
    return directions


def nearest(
    vectors: NDArray[np.floating], queries: NDArray[np.floating], count: int, *, same: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most similar rows of `vectors` for each query, the nearest first, equal ones by position.

    Args:
        vectors: N x D.
        queries: Q x D.
        count: how many to give; at most N (N - 1 when `same`).
        same: the queries are `vectors` themselves, and no row is its own neighbour.

    Returns:
        positions int64 Q x count, and cosine similarities float32 Q x count in [-1, 1].

    Raises:
        UsageError: fewer rows than asked for, or other dimensions.
    """
    known, asked = _directions(vectors), _directions(queries)
    if known.shape[1] != asked.shape[1]:
        raise UsageError(f"the queries have {asked.shape[1]} numbers each, the vectors {known.shape[1]}")
    if not 1 <= count <= len(known) - same:
        raise UsageError(f"there are {len(known) - same} images to be near to, and {count} were asked for")
    places = np.empty((len(asked), count), dtype=np.int64)
    found = np.empty((len(asked), count), dtype=np.float32)
    for start in range(0, len(asked), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(asked)))
        similarity = np.clip(asked[rows] @ known.T, -1.0, 1.0)
        if same:
            similarity[np.arange(len(similarity)), np.arange(rows.start, rows.stop)] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        places[rows], found[rows] = order, np.take_along_axis(similarity, order, axis=1)
    return places, found


def duplicate_groups(vectors: NDArray[np.floating], threshold: float) -> list[list[int]]:
    """Groups of positions whose vectors are alike: linked by pairs of cosine similarity >= `threshold`.

    Args:
        vectors: N x D.
        threshold: in (0, 1].

    Returns:
        groups of two or more, each in order, the groups by their first position.

    Raises:
        UsageError: an impossible threshold.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"a similarity threshold lies above 0 and at most at 1, got {threshold}")
    directions = _directions(vectors)
    leader = list(range(len(directions)))

    def root(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for start in range(0, len(directions), _BLOCK):
        # Equal vectors come out as 1 but for rounding.
        similarity = directions[start : start + _BLOCK] @ directions[start:].T + 1e-6
        for row, column in zip(*np.nonzero(np.triu(similarity >= threshold, k=1)), strict=True):
            low, high = sorted((root(start + int(row)), root(start + int(column))))
            leader[high] = low
    groups: dict[int, list[int]] = {}
    for index in range(len(directions)):
        groups.setdefault(root(index), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def stacked(embeddings: Sequence[Embedding]) -> Vectors:
    """The vectors of the readable images as one array N x D, float32.

    Raises:
        UsageError: no image could be read.
    """
    vectors = [item.vector for item in embeddings if item.vector is not None]
    if not vectors:
        raise UsageError("none of the images can be read")
    return np.stack(vectors)
