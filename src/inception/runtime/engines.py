"""The engines that need no PyTorch, as functions from pixels to logits: OpenVINO and ONNX Runtime."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import Any, Protocol

import numpy as np

from inception.errors import BundleError, InceptionError, UsageError, first_line
from inception.runtime.answering import Logits, Pixels
from inception.runtime.artefacts import check_onnx, check_openvino
from inception.runtime.plan import Plan

EXTRA = "pip install 'inception[runtime]'"
_TYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""What OpenVINO computes in where nothing is quantised; where bf16 is not native it takes f32 by itself."""


class Runner(Protocol):
    """Something that computes logits."""

    def __call__(self, pixels: Pixels) -> Logits:
        """uint8 N x C x H x W in, float32 N x num_classes out."""
        ...


class MissingEngineError(UsageError):
    """The engine of a plan is not installed here."""


def available_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require(module: str, what: str) -> None:
    """Raise MissingEngineError, naming the extra, when `module` cannot be imported."""
    if find_spec(module) is None:
        raise MissingEngineError(f"{what} needs the package {module}, which is not installed: {EXTRA}")


def in_batches(pixels: Pixels, size: int, run: Runner) -> Logits:
    """Run `pixels` in batches of `size`; the last one is filled up with its last image."""
    results = []
    for start in range(0, len(pixels), size):
        chunk = pixels[start : start + size]
        filled = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
        results.append(run(np.ascontiguousarray(filled))[: len(chunk)])
    return np.concatenate(results)


@contextmanager
def _speaking(engine: str) -> Iterator[None]:
    """Turn the errors of an engine, which have no type in common, into BundleErrors of one line."""
    try:
        yield
    except (InceptionError, MemoryError):
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from")]
        reason = lines[-1] if lines else first_line(error)
        raise BundleError(
            f"{engine} cannot run this bundle's network ({reason:.200}); optimise the bundle again"
        ) from error


class OpenVinoRunner:
    """An OpenVINO network; it compiles for one image and for the planned batch, each on first use."""

    def __init__(self, xml: bytes, weights: bytes, plan: Plan) -> None:
        require("openvino", "this bundle's plan")
        import openvino

        check_openvino(xml, len(weights))
        self._core = openvino.Core()
        self._weights = np.frombuffer(weights, dtype=np.uint8)
        with _speaking("OpenVINO"):
            self._model = self._core.read_model(model=xml, weights=openvino.Tensor(self._weights))
        self._batch = plan.batch
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _TYPES[plan.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": plan.threads,
        }
        self._requests: dict[int, Any] = {}
        self._lock = Lock()

    def __call__(self, pixels: Pixels) -> Logits:
        """See `Runner`."""
        size = 1 if len(pixels) == 1 else self._batch
        with self._lock, _speaking("OpenVINO"):
            return in_batches(pixels, size, self._infer)

    def _infer(self, pixels: Pixels) -> Logits:
        size = len(pixels)
        if size not in self._requests:
            model = self._model.clone()
            shape = model.inputs[0].get_partial_shape()
            shape[0] = size
            model.reshape(shape)
            compiled = self._core.compile_model(model, "CPU", self._settings)
            self._requests[size] = compiled.create_infer_request()
        request = self._requests[size]
        request.infer({0: pixels}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)


class OnnxRunner:
    """An ONNX network in ONNX Runtime."""

    def __init__(self, model: bytes, plan: Plan) -> None:
        require("onnxruntime", "this bundle's plan")
        import onnxruntime

        check_onnx(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = plan.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised as well
        options.add_session_config_entry("session.load_model_format", "ONNX")  # not by a guess
        with _speaking("ONNX Runtime"):
            self._session = onnxruntime.InferenceSession(
                model,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # trying again would print on standard output
            )
            self._name = self._session.get_inputs()[0].name

    def __call__(self, pixels: Pixels) -> Logits:
        """See `Runner`."""
        with _speaking("ONNX Runtime"):
            result: Logits = self._session.run(None, {self._name: pixels})[0]
        return result
