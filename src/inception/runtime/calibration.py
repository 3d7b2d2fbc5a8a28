"""Images that judge a reduced precision: some to calibrate on, others, never used for that, to measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inception.data.dataset import Dataset, Sample
from inception.data.loader import Loader
from inception.data.sources import align_labels, open_dataset
from inception.errors import DataError, UsageError
from inception.runtime.answering import Logits, Pixels, opened
from inception.runtime.engines import Runner
from inception.runtime.inputs import ARCHIVE_SUFFIXES, expand_inputs
from inception.weights.bundle import Bundle

CALIBRATION_LIMIT, HELD_OUT_LIMIT = 300, 1000
MINIMUM = 10
BATCH = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Examples:
    """Images as the network reads them.

    Attributes:
        calibration: uint8 N x C x H x W, for the ranges of activations.
        held_out: uint8 M x C x H x W, for accuracy.
        targets: int64 M, positions among the labels; None where the images have no labels that the bundle
            knows: then the float32 network's own answers take their place.
        source: what they are, for the plan.
    """

    calibration: Pixels
    held_out: Pixels
    targets: NDArray[np.int64] | None
    source: str

    def correct_answers(self, reference: Logits) -> NDArray[np.int64]:
        """The labels, or the float32 network's answers: int64 M."""
        return reference.argmax(axis=1) if self.targets is None else self.targets


def gather_examples(bundle: Bundle, calibrate: str, validate: str | None, data_root: Path | None) -> Examples:
    """Read the images of `calibrate`, and those of `validate` to measure on.

    Without `validate`, a set with splits of its own is calibrated on `train` and measured on the rest; any
    other is halved, every second image in the order of names. `calibrate` needs no labels.

    Raises DataError when fewer than ten images of either kind can be read, or `validate` is no data set.
    """
    chosen = _open(calibrate, data_root)
    if validate is not None:
        measured = open_dataset(validate, data_root=data_root)
        first, second = chosen.samples if chosen else (), measured.samples
    elif chosen is not None:
        measured, (first, second) = chosen, _halves(chosen)
    else:
        return _unlabelled(bundle, calibrate)
    if chosen is None:
        calibration = _pictures(bundle, calibrate, CALIBRATION_LIMIT)
    else:
        calibration, _ = _read(bundle, chosen, spread(first, CALIBRATION_LIMIT))
    known = True
    try:
        measured = align_labels(measured, bundle.labels)
        wanted = {sample.path for sample in second}
        second = tuple(sample for sample in measured.samples if sample.path in wanted)
    except DataError:
        known = False
    held_out, targets = _read(bundle, measured, spread(second, HELD_OUT_LIMIT))
    _check(calibration, held_out, calibrate)
    source = f"calibrated on {len(calibration)} images of {chosen.name if chosen else calibrate}, "
    source += f"measured on {len(held_out)} others of {measured.name}"
    return Examples(calibration, held_out, targets if known else None, source)


def _open(source: str, data_root: Path | None) -> Dataset | None:
    """The data set, or None for a folder or archive that is none: its images have no labels."""
    try:
        return open_dataset(source, data_root=data_root)
    except DataError:
        if not (Path(source).is_dir() or source.lower().endswith(ARCHIVE_SUFFIXES)):
            raise
        return None


def _unlabelled(bundle: Bundle, name: str) -> Examples:
    pixels = _pictures(bundle, name, 2 * CALIBRATION_LIMIT)
    if len(pixels) < 2 * MINIMUM:
        raise DataError(f"{name} has {len(pixels)} readable images; calibration needs {2 * MINIMUM}")
    source = f"calibrated on {len(pixels[::2])} images of {name}, measured on the {len(pixels[1::2])} others"
    return Examples(pixels[::2], pixels[1::2], None, source)


def _pictures(bundle: Bundle, name: str, limit: int) -> Pixels:
    """Those of at most `limit` images, spread over all of a folder or archive, that can be read."""
    pictures, wrong = [], ""
    for _, image in spread(tuple(expand_inputs([name], ())), limit):
        try:
            pictures.append(bundle.preprocess.pixels(opened(image, bundle.preprocess)))
        except DataError as error:
            wrong = str(error)
    if not pictures:
        raise DataError(f"{name} has no image that can be read: {wrong}")
    return np.stack(pictures)


def _halves(dataset: Dataset) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    if not dataset.automatic_split and len(dataset.splits) > 1 and "train" in dataset.splits:
        return dataset.split("train"), dataset.split(dataset.evaluation_split())
    return dataset.samples[::2], dataset.samples[1::2]


def spread(samples: tuple[T, ...], limit: int) -> tuple[T, ...]:
    """At most `limit` of the samples, evenly spaced, so that every class has its share."""
    if len(samples) <= limit:
        return samples
    return tuple(samples[index * len(samples) // limit] for index in range(limit))


def _read(bundle: Bundle, dataset: Dataset, samples: tuple[Sample, ...]) -> tuple[Pixels, NDArray[np.int64]]:
    loader = Loader(dataset, samples, cache_bytes=0)
    batches = list(loader.evaluation_batches(bundle.preprocess, BATCH))
    if not batches:
        raise DataError(f"{dataset.name}: none of its {len(samples)} images can be read")
    pixels = np.concatenate([batch.images.numpy() for batch in batches])
    return pixels, np.concatenate([batch.targets.numpy() for batch in batches])


def _check(calibration: Pixels, held_out: Pixels, source: str) -> None:
    if min(len(calibration), len(held_out)) < MINIMUM:
        raise UsageError(
            f"{source} leaves {len(calibration)} images to calibrate on and {len(held_out)} to measure on; "
            f"at least {MINIMUM} of each are needed"
        )


def top1(logits: Logits, answers: NDArray[np.int64]) -> float:
    """Share of the rows whose largest logit is the right answer, in 0..1."""
    return float((logits.argmax(axis=1) == answers).mean())


def run_all(runner: Runner, pixels: Pixels, size: int = BATCH) -> Logits:
    """Logits of many images, `size` at a time."""
    return np.concatenate([runner(pixels[start : start + size]) for start in range(0, len(pixels), size)])
