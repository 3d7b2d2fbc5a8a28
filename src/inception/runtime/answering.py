"""From images to answers, whatever computes the logits. Nothing here needs PyTorch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inception.data.decode import decode_image, upright_rgb
from inception.data.jpeg_data import MISSING, lacks_data
from inception.data.preprocess import Preprocess
from inception.errors import ImageError, InceptionError, UsageError

ImageSource = str | Path | bytes | Image.Image | NDArray[np.uint8]
Pixels = NDArray[np.uint8]
Opener = Callable[..., Image.Image]
"""Opens an image; takes the depth of 16-bit ones (see `decode_image`) where the preprocessing has one."""
Logits = NDArray[np.float32]
BATCH_SIZE = 32
UNKNOWN = "unknown"
WARNING = "warning"
NOT_FINITE = (
    "The network's answers are not all finite (NaN or infinity); its weights or its precision "
    "are at fault, not the images."
)


@dataclass(frozen=True)
class Score:
    """One candidate answer; `index` is the output's position (-1 for `unknown`), `probability` in 0..1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: `top`, best first, or `error` saying why there is none.

    `warning` says what is wrong with an image that was answered all the same (`jpeg_data.MISSING`).
    Where an image may have several labels, `labels` are those whose probability reaches their threshold, best
    first; else None.
    """

    path: str | None
    top: tuple[Score, ...] = ()
    error: str | None = None
    labels: tuple[Score, ...] | None = None
    warning: str | None = None

    @property
    def label(self) -> str | None:
        """The best label, or None for an unreadable image."""
        return self.top[0].label if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: `path`, and `top` (with `labels` where there may be several) or `error`; `warning`."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        top = [vars(score) for score in self.top]
        labels = {} if self.labels is None else {"labels": [vars(score) for score in self.labels]}
        warning = {} if self.warning is None else {"warning": self.warning}
        return {"path": self.path, **labels, "top": top, **warning}


class Answering(ABC):
    """What every classifier in memory can do, given how it computes logits.

    Attributes:
        labels: class names by output position.
        preprocess: how images become its input.
        temperature: divisor of the logits before the softmax.
        unknown_threshold: probability below which the answer is `unknown`; None when not calibrated.
        thresholds: where an image may have several labels, the probability from which it has each; else None.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    temperature: float
    unknown_threshold: float | None
    thresholds: tuple[float, ...] | None = None

    @abstractmethod
    def compute(self, pixels: Pixels) -> Logits:
        """uint8 N x C x H x W (of `preprocess.pixels`) in, float32 logits N x num_classes out."""

    def predict(
        self, images: ImageSource | Sequence[ImageSource], top: int = 5, unknown: bool = False
    ) -> list[Prediction]:
        """Answer for each image: a path, encoded bytes, a PIL image, or a uint8 array (H x W x 3 or H x W).

        A bad image gives a Prediction with `error`; the others are not disturbed. With `unknown`, an image
        whose best probability is below the bundle's calibrated threshold gets `unknown` as its first answer.
        """
        single = isinstance(images, str | Path | bytes | Image.Image | np.ndarray)
        sources: Sequence[ImageSource] = [images] if single else images  # type: ignore[list-item, assignment]
        items = [(source_name(source), _opener(source)) for source in sources]
        return list(self.predict_stream(items, top=top, unknown=unknown))

    def predict_stream(
        self,
        items: Iterable[tuple[str | None, Opener]],
        top: int = 5,
        unknown: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Prediction]:
        """Answers in order for (name, function that opens the image) pairs, decoding ahead in threads.

        Where `preprocess.bits` is not 0, the function is given it.

        At most three batches are held in memory, however long `items` is.

        Raises InceptionError when the network's answers are not finite.
        """
        if unknown and self.thresholds is not None:
            raise UsageError("'unknown' is of bundles with one label an image; here an image may have none")
        if unknown and self.unknown_threshold is None:
            raise UsageError(
                "this bundle has no calibrated threshold for 'unknown'; train it with a val split"
            )
        if top < 1:
            raise UsageError(f"top must be at least 1, not {top}")
        top = min(top, len(self.labels))
        source = iter(items)
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode") as pool:
            ahead = [pool.submit(self._prepare, item) for item in islice(source, 2 * batch_size)]
            while ahead:
                batch, ahead = ahead[:batch_size], ahead[batch_size:]
                results = [future.result() for future in batch]
                ahead += [pool.submit(self._prepare, item) for item in islice(source, len(batch))]
                yield from self._answer(results, top, unknown)

    def _prepare(self, item: tuple[str | None, Opener]) -> tuple[str | None, Pixels | str, str | None]:
        name, open_image = item
        try:
            image = opened(open_image, self.preprocess)
            return name, self.preprocess.pixels(image), image.info.get(WARNING)
        except InceptionError as error:
            return name, str(error), None

    def _answer(
        self, results: list[tuple[str | None, Pixels | str, str | None]], top: int, unknown: bool
    ) -> Iterator[Prediction]:
        arrays = [value for _, value, _ in results if not isinstance(value, str)]
        rows = iter(self._probabilities(np.stack(arrays)) if arrays else np.empty((0, 0), np.float32))
        for name, value, warning in results:
            if isinstance(value, str):
                yield Prediction(name, error=value)
                continue
            row = next(rows)
            threshold = (self.unknown_threshold or 0.0) if unknown else 0.0
            several = None if self.thresholds is None else reached(row, self.labels, self.thresholds)
            scores = best_scores(row, self.labels, top, threshold)
            yield Prediction(name, scores, labels=several, warning=warning)

    def _probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        logits = self.compute(pixels)
        if not np.isfinite(logits).all():
            raise InceptionError(NOT_FINITE)
        if self.thresholds is None:
            return softmax(logits, self.temperature)
        powers = np.exp(-np.abs(logits))
        probabilities: NDArray[np.float32] = np.where(logits >= 0, np.float32(1.0), powers) / (1 + powers)
        return probabilities.astype(np.float32)


def reached(
    row: NDArray[np.float32], labels: Sequence[str], thresholds: Sequence[float]
) -> tuple[Score, ...]:
    """The labels of one row of K probabilities that reach their thresholds, best first."""
    best = np.argsort(-row, kind="stable").tolist()
    return tuple(
        Score(labels[index], index, float(row[index])) for index in best if row[index] >= thresholds[index]
    )


def best_scores(
    row: NDArray[np.float32], labels: Sequence[str], top: int, threshold: float = 0.0
) -> tuple[Score, ...]:
    """The `top` best labels of one row of K probabilities, best first; equal ones in the labels' order.

    Where the best probability is below `threshold`, `unknown` stands before them.
    """
    best = np.argsort(-row, kind="stable")[:top].tolist()
    scores = tuple(Score(labels[index], index, float(row[index])) for index in best)
    if scores[0].probability < threshold:
        return (Score(UNKNOWN, -1, 1.0 - scores[0].probability), *scores)
    return scores


def softmax(logits: Logits, temperature: float) -> NDArray[np.float32]:
    """Logits float32 N x K in, probabilities float32 N x K out: softmax(logits / temperature) of each row."""
    # The largest is taken off first: however large they are, the quotients do not overflow.
    with np.errstate(over="ignore"):
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def source_name(source: ImageSource) -> str | None:
    """A path's text; None for what has no name."""
    return str(source) if isinstance(source, str | Path) else None


def _opener(source: ImageSource) -> Opener:
    return lambda bits=0: open_image(source, bits)


def opened(opener: Opener, preprocess: Preprocess) -> Image.Image:
    """What `opener` opens, decoded for `preprocess`."""
    return opener(preprocess.bits) if preprocess.bits else opener()


def open_image(source: ImageSource, bits: int = 0) -> Image.Image:
    """An RGB PIL image from a path, encoded bytes, a PIL image or a uint8 array.

    `bits` is as for `decode_image`. Raises ImageError when it cannot be read.
    """
    if isinstance(source, bytes):
        return decode_warned(source, bits, "the image")
    if isinstance(source, Image.Image):
        return upright_rgb(source, bits=bits)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not (source.ndim == 2 or source.shape[2:] == (3,)):
            raise ImageError(
                "format",
                f"an image array must be uint8, H x W or H x W x 3, not {source.dtype} {source.shape}",
            )
        return upright_rgb(Image.fromarray(source))
    if not isinstance(source, str | Path):
        raise ImageError(
            "format", f"an image is a path, bytes, a PIL image or an array, not {type(source).__name__}"
        )
    return decode_warned(read_file(source), bits, str(source))


def decode_warned(data: bytes, bits: int, name: str) -> Image.Image:
    """`decode_image`, with a `warning` in the picture's `info` where data was missing."""
    picture = decode_image(data, bits=bits, name=name)
    if lacks_data(data, picture):
        picture.info[WARNING] = MISSING
    return picture


def read_file(path: str | Path) -> bytes:
    """The bytes of a file. Raises ImageError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: OSError | ValueError) -> ImageError:
    """What to say of a path that the system refuses; a ValueError is a name with a null byte."""
    reason = error.strerror if isinstance(error, OSError) else error
    return ImageError("empty", f"{path} cannot be read: {reason}")
