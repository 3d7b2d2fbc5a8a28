"""What the inference process computes: encoded images or pixels in, answers and rows of numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception.data.decode import decode_image
from inception.errors import BundleError, ImageError
from inception.nets.network import Network
from inception.runtime.answering import NOT_FINITE, best_scores, softmax
from inception.runtime.classifier import Classifier
from inception.runtime.device import autocast
from inception.serve.costs import scanned_pixels
from inception.serve.explanations import explain, usable_methods
from inception.serve.settings import LIGHT_PIXELS, MAX_SCANS

WARM_UP_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Ask:
    """What is wanted of one image.

    Attributes:
        form: `file` (an encoded image) or `pixels` (uint8 C x H x W of the network's input size).
        top: how many labels; 0 for none.
        auxiliary: whether the auxiliary heads answer as well.
        unknown: whether the answer may be `unknown`.
        tensors: which rows to return raw: `logits`, `probabilities`.
        explain: the method of the explanation wanted, one of the facts' `explain`; none when empty.
        target: position of the class to explain; None: the best one.
        pictures: which pictures of the explanation to return, see `explanations.PICTURES`.
        weighed: decode the image although it has many pixels; else their number is the answer.
    """

    form: str
    top: int = 0
    auxiliary: bool = False
    unknown: bool = False
    tensors: tuple[str, ...] = ()
    explain: str = ""
    target: int | None = None
    pictures: tuple[str, ...] = ()
    weighed: bool = False

    @classmethod
    def from_message(cls, values: dict[str, Any]) -> "Ask":
        """Inverse of `vars`, after a journey through JSON."""
        lists = {name: tuple(values.get(name, ())) for name in ("tensors", "pictures")}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Answer:
    """The answer for one image: JSON-safe `values`; raw float32 rows, or pictures, in the order asked for."""

    values: dict[str, Any]
    rows: bytes = b""


class Answerer:
    """A classifier as the server uses it."""

    def __init__(self, classifier: Classifier, max_pixels: int, explained: bool = True) -> None:
        self.classifier = classifier
        self.max_pixels = max_pixels
        self.shape = (
            classifier.preprocess.in_chans,
            classifier.preprocess.height,
            classifier.preprocess.width,
        )
        model = classifier.model
        self.heads: dict[str, str] = dict(model.aux_taps) if isinstance(model, Network) else {}
        self.methods = usable_methods(classifier) if explained else ()

    def facts(self) -> dict[str, Any]:
        """What clients may know of the model, JSON-safe."""
        bundle = self.classifier.bundle
        return {
            "network": bundle.network,
            "labels": list(self.classifier.labels),
            "shape": list(self.shape),
            "heads": self.heads,
            "unknown": bundle.unknown_threshold is not None,
            "explain": list(self.methods),
        }

    def warm_up(self, max_batch: int) -> None:
        """Run every batch size that matters once. Raises BundleError when the answers are no numbers."""
        for size in {1, max_batch, *(n for n in WARM_UP_BATCHES if n < max_batch)}:
            batch = torch.full((size, *self.shape), 127, dtype=torch.uint8)
            logits, heads = self._run(batch, auxiliary=bool(self.heads) and size == 1)
            for values in (logits, *heads.values()):
                if not bool(torch.isfinite(values).all()):
                    raise BundleError("the network answers with numbers that are not finite")

    def open(self, ask: Ask, payload: bytes) -> Tensor | Answer:
        """One image as uint8 C x H x W, or the answer that says what is wrong with it."""
        if ask.form == "pixels":
            return torch.from_numpy(np.frombuffer(payload, np.uint8).copy()).view(self.shape)
        pixels, scans = scanned_pixels(payload)
        if pixels <= scans * self.max_pixels:  # else it is refused below, as too large
            if pixels > (most := MAX_SCANS * self.max_pixels):
                text = f"the image is a JPEG of {scans} scans, which have {pixels:,} pixels to read in all"
                return Answer(
                    {"error": f"{text}, over the limit of {most:,}; save it anew.", "kind": "too_large"}
                )
            if pixels > LIGHT_PIXELS and not ask.weighed:
                return Answer({"pixels": pixels})
        try:
            preprocess = self.classifier.preprocess
            return preprocess.apply(decode_image(payload, max_pixels=self.max_pixels, bits=preprocess.bits))
        except ImageError as error:
            return Answer({"error": str(error), "kind": error.kind})
        except Exception as error:  # whatever one image does, the others of its batch are answered
            reason = f"the image cannot be resized ({type(error).__name__}); change its size or delete it."
            return Answer({"error": reason, "kind": "corrupt"})

    def answer(self, asks: Sequence[Ask], opened: Sequence[Tensor | Answer]) -> list[Answer]:
        """The answers, in order, computed as one batch."""
        images = [image for image in opened if isinstance(image, Tensor)]
        if not images:
            return [image for image in opened if isinstance(image, Answer)]
        logits, heads = self._run(torch.stack(images), any(ask.auxiliary for ask in asks))
        with np.errstate(invalid="ignore"):  # what is not finite is looked for below
            probabilities = softmax(logits.numpy(), self.classifier.temperature)
            auxiliary = {head: softmax(rows.numpy(), 1.0) for head, rows in heads.items()}
        finite = np.logical_and.reduce(
            [np.isfinite(rows).all(axis=1) for rows in (probabilities, logits.numpy(), *auxiliary.values())]
        )
        answers, row = [], 0
        for ask, image in zip(asks, opened, strict=True):
            if isinstance(image, Answer):
                answers.append(image)
                continue
            if not finite[row]:
                answers.append(Answer({"error": NOT_FINITE, "kind": "network"}))
                row += 1
                continue
            values: dict[str, Any] = {}
            if ask.top:
                values["top"] = self._top(probabilities[row], ask.top, ask.unknown)
            if ask.auxiliary:
                values["auxiliary"] = [
                    {"head": head, "stage": self.heads[head], "top": self._top(rows[row], ask.top)}
                    for head, rows in auxiliary.items()
                ]
            found = {"logits": logits[row].numpy(), "probabilities": probabilities[row]}
            raw = b"".join(found[name].tobytes() for name in ask.tensors)
            if ask.explain:
                more, raw = self._explain(ask, image, probabilities[row])
                values |= more
            answers.append(Answer(values, raw))
            row += 1
        return answers

    def _explain(
        self, ask: Ask, pixels: Tensor, probabilities: NDArray[np.float32]
    ) -> tuple[dict[str, Any], bytes]:
        index = int(probabilities.argmax()) if ask.target is None else ask.target
        values, pictures = explain(self.classifier, pixels, index, ask.explain, ask.pictures)
        label, probability = self.classifier.labels[index], float(probabilities[index])
        return {"target": {"label": label, "index": index, "probability": probability}, **values}, pictures

    def _run(self, batch: Tensor, auxiliary: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits N x K of the network, and of each auxiliary head."""
        model = self.classifier.model
        if not (auxiliary and self.heads and isinstance(model, Network)):
            return self.classifier.logits(batch), {}
        # The engine of an optimised bundle answers; the network beside it is asked for its heads alone.
        planned = not isinstance(self.classifier, Classifier)
        stages = list(dict.fromkeys(self.heads.values()))
        if not planned:
            stages.append(model.endpoints[-1])
        device = self.classifier.device
        with torch.inference_mode(), autocast(device, self.classifier.network_precision):
            images = self.classifier.preprocess.normalize(batch.to(device))
            maps = model.forward_endpoints(images.contiguous(memory_format=torch.channels_last), stages)
            logits = self.classifier.logits(batch) if planned else model.forward_head(maps[stages[-1]])
            heads = {head: getattr(model, head)(maps[stage]) for head, stage in self.heads.items()}
        return logits.float().cpu(), {head: values.float().cpu() for head, values in heads.items()}

    def _top(self, row: NDArray[np.float32], count: int, unknown: bool = False) -> list[dict[str, Any]]:
        """The best labels of one row of probabilities, as `inception predict` gives them."""
        threshold = (self.classifier.unknown_threshold or 0.0) if unknown else 0.0
        return [vars(score) for score in best_scores(row, self.classifier.labels, count, threshold)]
