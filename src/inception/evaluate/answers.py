"""Several classifiers and several ways of cropping, asked about the same images, each decoded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception.data.loader import Loader, ahead
from inception.data.preprocess import Preprocess
from inception.data.sources import Dataset, Sample
from inception.errors import DataError
from inception.evaluate.crops import Crops, Seen, see
from inception.evaluate.dense import dense_input, dense_probabilities
from inception.evaluate.ensemble import label_order
from inception.evaluate.metrics import Evaluation, evaluate_logits
from inception.nets.dense import map_window
from inception.runtime.classifier import Classifier

_VIEWS_AT_ONCE = 64
_SMALLEST = 1e-38

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """What M classifiers said about N images.

    Attributes:
        probabilities: (index of the classifier, way of cropping) -> float32 N x K, rows summing to 1, in the
            order of the first classifier's labels.
        targets: true classes, int64 of length N.
        labels: names of the K classes.
        paths: of the N images.
        unreadable: images left out, and why.
    """

    probabilities: dict[tuple[int, Crops], Probabilities]
    targets: NDArray[np.int64]
    labels: tuple[str, ...]
    paths: tuple[str, ...]
    unreadable: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """One image, cut for every preprocessing that the classifiers have."""

    index: int
    seen: dict[Preprocess, Seen]
    dense: dict[Preprocess, Tensor]


def collect_answers(
    classifiers: Sequence[Classifier],
    crops: Sequence[Crops],
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    names: Sequence[str] | None = None,
    workers: int = 2,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Answers:
    """Ask every classifier about every image in every way of cropping.

    Views that two ways share are computed once (`144` holds all of `1`, `10` and `12`), and so are pictures
    for classifiers with the same preprocessing.

    Args:
        classifiers: at least one; their classes must be the same but for the order.
        crops: at least one of `CROPS`.
        dataset, samples: the images; targets are indices into the first classifier's labels.
        names: what errors call the classifiers.
        workers: decoding threads.
        strict: raise on an unreadable image instead of leaving it out.
        progress: told the number of images after each batch.

    Raises:
        UsageError: the classes differ, or the input is not square and crops are asked for.
        DataError: no image can be read.
    """
    called = names or [f"classifier {index + 1}" for index in range(len(classifiers))]
    reference = classifiers[0].labels
    orders = [
        label_order(reference, classifier.labels, name)
        for classifier, name in zip(classifiers, called, strict=True)
    ]
    loader = Loader(dataset, samples, workers, strict, cache_bytes=0)
    found: dict[tuple[int, Crops], list[Probabilities]] = {
        (number, name): [] for number in range(len(classifiers)) for name in crops
    }
    windows = [
        map_window(item.model, item.preprocess.height, item.preprocess.width) if "dense" in crops else (0, 0)
        for item in classifiers
    ]
    kept: list[int] = []
    for group in _groups(loader, list(dict.fromkeys(item.preprocess for item in classifiers)), crops):
        for number, (classifier, order) in enumerate(zip(classifiers, orders, strict=True)):
            for name, rows in _ask(classifier, group, crops, windows[number]).items():
                found[number, name].append(rows if order is None else rows[:, order])
        kept += [item.index for item in group]
        if progress is not None:
            progress(len(group))
    if not kept:
        raise DataError(f"{dataset.name}: none of its {len(samples)} images can be read")
    return Answers(
        {key: np.concatenate(parts) for key, parts in found.items()},
        np.array([samples[index].label for index in kept], dtype=np.int64),
        tuple(reference),
        tuple(samples[index].path for index in kept),
        dict(loader.unreadable),
    )


def _groups(
    loader: Loader, preprocesses: Sequence[Preprocess], crops: Sequence[Crops]
) -> Iterator[list[_Prepared]]:
    """Prepared images in order, grouped so that a network gets about 64 views at once."""
    cropped = [name for name in crops if name != "dense"]

    def prepare(index: int) -> _Prepared | None:
        try:
            images = {item.bits: loader.image(index, item) for item in preprocesses}
        except DataError as error:
            if loader.strict:
                raise DataError(f"{error}; without --strict unreadable images are skipped") from error
            loader.unreadable[loader.samples[index].path] = str(error)
            return None
        seen = {item: see(images[item.bits], cropped, item) for item in preprocesses if cropped}
        dense = {item: dense_input(images[item.bits], item) for item in preprocesses if "dense" in crops}
        return _Prepared(index, seen, dense)

    group: list[_Prepared] = []
    views = 0
    for item in ahead(prepare, range(len(loader)), loader.workers):
        if item is None:
            continue
        group.append(item)
        views += max([1, *(len(seen.pixels) for seen in item.seen.values())])
        if views >= _VIEWS_AT_ONCE:
            yield group
            group, views = [], 0
    if group:
        yield group


def _ask(
    classifier: Classifier, group: Sequence[_Prepared], crops: Sequence[Crops], window: tuple[int, int]
) -> dict[Crops, Probabilities]:
    """The classifier's answers for a group of G images: G x K for each way of cropping."""
    answers: dict[Crops, list[Probabilities]] = {name: [] for name in crops}
    cropped = [name for name in crops if name != "dense"]
    if cropped:
        seen = [item.seen[classifier.preprocess] for item in group]
        pixels = torch.cat([one.pixels for one in seen])
        parts = [classifier.probabilities(part) for part in torch.split(pixels, _VIEWS_AT_ONCE)]
        rows = torch.split(torch.cat(parts), [len(one.pixels) for one in seen])
        for one, part in zip(seen, rows, strict=True):
            for name, mean in zip(cropped, one.weights @ part.numpy(), strict=True):
                answers[name].append(mean)
    if "dense" in crops:
        for item in group:
            pixels = item.dense[classifier.preprocess]
            answers["dense"].append(dense_probabilities(classifier, pixels, window).numpy())
    return {name: np.stack(means) for name, means in answers.items()}


def evaluate_probabilities(
    probabilities: NDArray[np.floating], targets: NDArray[np.integer], labels: Sequence[str]
) -> Evaluation:
    """All metrics of averaged probabilities (N x K): their logarithms are logits of temperature 1.

    Raises:
        InceptionError: what `evaluate_logits` raises.
    """
    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST))
    return evaluate_logits(logits, targets, labels)
