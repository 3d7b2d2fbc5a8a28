"""int8 by NNCF: calibrated on the user's images, measured on others, layers given back where it must be.

Source of the procedure: NNCF's post-training quantisation with accuracy control.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.runtime.answering import Logits, Pixels
from inception.runtime.calibration import Examples, top1
from inception.runtime.engines import require
from inception.runtime.onnx_graph import RESPONSE_NORM_SUM

MAX_DROP = 0.005
"""Share of held-out images whose top-1 answer may be lost: half a point."""


@dataclass(frozen=True)
class Quantized:
    """A quantised network.

    Attributes:
        model: OpenVINO's network with its quantisation.
        drop: top-1 lost on the held-out images, in -1..1.
        float_layers: layers given back to floating point.
        note: one sentence for the plan.
    """

    model: Any
    drop: float
    float_layers: tuple[str, ...]
    note: str


def quantize(model: Any, examples: Examples, reference: Logits, threads: int) -> Quantized:
    """Quantise an OpenVINO network to int8.

    Args:
        model: float32, reads uint8 pixels.
        examples: what to calibrate and measure on.
        reference: the float32 network's logits of `examples.held_out`.
        threads: how many threads measure.

    First all layers; where that loses more than half a point of top-1, layers go back to floating point one
    after another, the most harmful first, until it does not.
    """
    answers = examples.correct_answers(reference)
    right = top1(reference, answers)
    result = quantize_all(model, examples.calibration)
    drop = right - top1(_logits(result, examples.held_out, threads), answers)
    if drop <= MAX_DROP:
        return Quantized(result, drop, (), f"all layers in int8, top-1 drop {100 * drop:.2f} points")

    import nncf

    # NNCF ranks layers on some of the images: each comes with its own answer.
    pairs = list(zip(examples.held_out, answers, strict=True))
    with _quiet():
        controlled = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset([image[None] for image in examples.calibration]),
            nncf.Dataset(pairs, lambda pair: pair[0][None]),
            _accuracy,
            max_drop=MAX_DROP,
            subset_size=len(examples.calibration),
            ignored_scope=_ignored(),
        )
    after = right - top1(_logits(controlled, examples.held_out, threads), answers)
    kept = tuple(sorted(_quantized_operators(result) - _quantized_operators(controlled)))
    note = (
        f"everything in int8 lost {100 * drop:.2f} points of top-1; {len(kept)} operators back in float: "
        f"drop {100 * after:.2f} points"
    )
    return Quantized(controlled, after, kept, note)


def _accuracy(compiled: Any, pairs: Any) -> tuple[float, list[float]]:
    """Top-1 of a compiled network on (image, answer) pairs, and whether each was right."""
    hits = [float(compiled(image[None])[0].argmax() == answer) for image, answer in pairs]
    return float(np.mean(hits)), hits


def quantize_all(model: Any, images: NDArray[Any]) -> Any:
    """An OpenVINO network with every layer in int8 but the response norms' sums, ranges taken from `images`.

    Args:
        model: float32; it is left as it is.
        images: N x C x H x W of the type that it reads.
    """
    require("nncf", "int8")
    import nncf

    with _quiet():
        calibration = nncf.Dataset([image[None] for image in images])
        mixed = nncf.QuantizationPreset.MIXED
        return nncf.quantize(
            model, calibration, preset=mixed, subset_size=len(images), ignored_scope=_ignored()
        )


def _ignored() -> Any:
    # Squares of activations have a far wider range than 8 bits: quantised, they cost a third of the accuracy.
    import nncf

    return nncf.IgnoredScope(patterns=[f".*_{RESPONSE_NORM_SUM}"], validate=False)


def _logits(model: Any, pixels: Pixels, threads: int) -> Logits:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return np.concatenate([compiled(image[None])[0].copy() for image in pixels])


def _quantized_operators(model: Any) -> set[str]:
    """Names of the operators that read a quantised input."""
    return {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() != "FakeQuantize"
        and any(value.get_node().get_type_name() == "FakeQuantize" for value in node.input_values())
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF reports its progress on standard output; results alone belong there."""
    import contextlib
    import io

    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
