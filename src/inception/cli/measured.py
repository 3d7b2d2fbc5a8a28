"""What every form of `inception evaluate` of one classifier does: measure with progress, describe, write."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from inception.cli.console import progress_bar, say
from inception.cli.evaluate_many import Request
from inception.cli.read_options import say_reading
from inception.errors import UsageError
from inception.evaluate.gallery import Images, thumbnail
from inception.evaluate.measure import Measurement
from inception.files import atomic_write_text
from inception.runtime.classifier import Classifier
from inception.runtime.loading import load

Measured = TypeVar("Measured")


def measure_shown(
    measure: Callable[..., Measurement[Measured]], request: Request, **more: Any
) -> tuple[Measurement[Measured], Classifier, float]:
    """The request's first bundle measured by `measure` under a progress bar, and the seconds it took."""
    classifier = load(request.bundles[0], request.device, request.precision)
    start = time.perf_counter()
    with progress_bar("evaluating", None) as bar:

        def progress(count: int, total: int) -> None:
            bar.set_total(total)
            bar.advance(count, "images")

        measurement = measure(
            classifier,
            request.data,
            request.split,
            options=request.options,
            data_root=request.data_root,
            workers=request.workers,
            strict=request.strict,
            progress=progress,
            **more,
        )
    say_reading(measurement.dataset)
    for path, reason in list(measurement.unreadable.items())[:5]:
        say(f"left out {path}: {reason}")
    return measurement, classifier, time.perf_counter() - start


def facts_of(measurement: Measurement[Any]) -> dict[str, Any]:
    """What was measured, for JSON."""
    return {
        "data": measurement.dataset.name,
        "data_fingerprint": measurement.dataset.fingerprint,
        "split": measurement.split,
        "unreadable": measurement.unreadable,
        "left_out": {why: len(paths) for why, paths in measurement.dataset.left_out.items()},
    }


def details_of(
    measurement: Measurement[Any], classifier: Classifier, model: str, **own: str
) -> dict[str, str]:
    """What was measured, for the page: by which `model`, and what else there is to say of it (`own`)."""
    preprocess = classifier.preprocess
    return {
        "Model": model,
        "Data": f"{measurement.dataset.name} ({measurement.dataset.fingerprint[:12]})",
        "Split": measurement.split,
        "Preprocessing": f"{preprocess.height}x{preprocess.width} {preprocess.color}, {preprocess.resize}, "
        f"{preprocess.interpolation}" + (f", {preprocess.bits} bits" if preprocess.bits else ""),
        **own,
        "Device": f"{classifier.device.type}, {classifier.precision}",
        "Skipped images": str(len(measurement.unreadable)),
    }


def model_name(classifier: Classifier) -> str:
    """Network and arguments of a bundle."""
    arguments = (f"{name}={value}" for name, value in classifier.bundle.arguments.items())
    return " ".join([classifier.bundle.network, *arguments])


def pictures_of(measurement: Measurement[Any], bits: int) -> Images:
    """A function that gives the small picture of the measured image with this index; `bits` as decoded."""
    from inception.data.decode import decode_image

    dataset = measurement.dataset
    samples = {sample.path: sample for sample in dataset.split(measurement.split)}

    def picture(index: int) -> bytes:
        return thumbnail(decode_image(dataset.read(samples[measurement.paths[index]]), bits=bits))

    return picture


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named. Raises UsageError."""
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UsageError:
    """What to raise where `path` cannot be written."""
    return UsageError(f"cannot write {path}: {error.strerror or error}")
