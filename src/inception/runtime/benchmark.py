"""How fast a bundle answers on this machine, beside the same network given to each engine unmodified."""

import copy
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from inception.errors import UsageError
from inception.nets.complexity import profile
from inception.nets.layers import LocalResponseNorm
from inception.nets.network import Network
from inception.runtime.engines import available_cores, require
from inception.runtime.loading import load
from inception.runtime.onnx_graph import to_onnx
from inception.runtime.timing import Work, gemm_peak, interleaved, probe_images, ratio, summary

OURS = "inception"
_TYPES = {"float32": "f32", "bfloat16": "bf16"}


def benchmark_bundle(
    path: Path, batches: tuple[int, ...] = (1, 16), rounds: int = 20, threads: int = 0
) -> dict[str, Any]:
    """Measure the bundle at `path` as `inception.load` opens it, and its network unmodified in each engine.

    Returns `rows` (see `measure`), `gflop_per_image`, and `peak_gflops`, the measured matrix-product peak by
    precision. Engines that are not installed are left out and named in `skipped`.
    """
    classifier = load(path)
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    preprocess = classifier.preprocess
    shape = (preprocess.in_chans, preprocess.height, preprocess.width)
    network = classifier.bundle.build()
    network.remove_auxiliary_heads()
    gflop = gflop_per_image(network, (preprocess.height, preprocess.width))
    precision = str(classifier.precision)
    peaks = {kind: gemm_peak(kind, threads) for kind in dict.fromkeys(("float32", _measurable(precision)))}
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for batch in batches:
        pixels = probe_images(shape, batch)
        images = preprocess.normalize(torch.from_numpy(pixels))
        works: dict[tuple[str, str], Work] = {(OURS, precision): partial(classifier.compute, pixels)}
        works |= unmodified_works(network, images, ("float32", precision), threads, skipped)
        rows += measure(classifier.bundle.network, batch, works, rounds)
    for row in rows:
        row["gflops"] = gflop * row["images_per_s"]
        row["share_of_peak"] = row["gflops"] / peaks[_measurable(row["precision"])]
    return {"rows": rows, "gflop_per_image": gflop, "peak_gflops": peaks, "skipped": skipped}


def _measurable(precision: str) -> str:
    """int8 is set beside the bfloat16 peak: PyTorch has no int8 product of two matrices on a CPU."""
    return "bfloat16" if precision == "int8" else precision


def gflop_per_image(network: Network, size: tuple[int, int]) -> float:
    """Billions of floating-point operations: two for each multiply-add of convolutions and linear layers."""
    return 2 * sum(layer.multiply_adds for layer in profile(network, size) if not layer.auxiliary) / 1e9


def measure(
    model: str, batch: int, works: Mapping[tuple[str, str], Work], rounds: int
) -> list[dict[str, Any]]:
    """Time works that take turns: one row each with `model`, `batch`, `precision`, `engine`, `median_ms`,
    quartiles, `images_per_s`, and `ratio`: the median over the rounds of our time divided by its time.

    Args:
        model: name for the rows.
        batch: images in one run.
        works: (engine, precision) -> one run. Rows are compared with `inception` at the same precision, or
            with its first row where it has no such one.
        rounds: how often each runs.
    """
    times = interleaved(
        {f"{engine}\0{precision}": work for (engine, precision), work in works.items()}, rounds
    )
    ours = {key[1]: times[f"{key[0]}\0{key[1]}"] for key in works if key[0] == OURS}
    if not ours:
        raise UsageError("nothing of our own is measured")
    rows = []
    for engine, precision in works:
        seconds = times[f"{engine}\0{precision}"]
        against = ours.get(precision, next(iter(ours.values())))
        rows.append(
            {
                "model": model,
                "batch": batch,
                "precision": precision,
                "engine": engine,
                **summary(seconds, batch),
                "ratio": ratio(against, seconds),
            }
        )
    return rows


def unmodified_works(
    network: Network,
    images: torch.Tensor,
    precisions: tuple[str, ...],
    threads: int,
    skipped: dict[str, str],
) -> dict[tuple[str, str], Work]:
    """The network as a user would write it, on normalised images, in each engine that is installed."""
    works: dict[tuple[str, str], Work] = {
        ("PyTorch eager", "float32"): eager_work(with_torch_response_norm(network), images)
    }
    float_precisions = [precision for precision in dict.fromkeys(precisions) if precision in _TYPES]
    try:
        for engine, model in openvino_models(network, images).items():
            for precision in float_precisions:
                works[engine, precision] = openvino_work(model, images, precision, threads)
    except UsageError as error:
        skipped["OpenVINO"] = str(error)
    try:
        if "float32" in float_precisions:
            works["ONNX Runtime", "float32"] = onnxruntime_work(_operators(network, images), images, threads)
    except UsageError as error:
        skipped["ONNX Runtime"] = str(error)
    return works


def openvino_models(network: Network, images: torch.Tensor) -> dict[str, Any]:
    """The unmodified network in OpenVINO: by its own PyTorch front end, and for LRN also as a graph.

    The front end takes torch's LRN apart; the graph gives OpenVINO its own operator for it.
    """
    require("openvino", "OpenVINO's row")
    import openvino

    module = with_torch_response_norm(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the checks of the input's size become constants
        models = {"OpenVINO": openvino.convert_model(module, example_input=images)}
    if _has_response_norm(network):
        models["OpenVINO, LRN operator"] = openvino.Core().read_model(_operators(network, images))
    return models


def _operators(network: Network, images: torch.Tensor) -> bytes:
    _, channels, height, width = images.shape
    return to_onnx(network, (channels, height, width), "float32", response_norm="operator")


def _has_response_norm(network: Network) -> bool:
    return any(isinstance(module, LocalResponseNorm) for module in network.modules())


def with_torch_response_norm(network: Network) -> Network:
    """A copy in which response norms are torch's own, as the network is usually written."""
    result = copy.deepcopy(network)
    for name in network.endpoints:
        norm = getattr(result, name)
        if isinstance(norm, LocalResponseNorm):
            setattr(result, name, nn.LocalResponseNorm(norm.size, norm.alpha, norm.beta, norm.k))
    return result


def eager_work(module: torch.nn.Module, images: torch.Tensor, precision: str = "float32") -> Work:
    """One run of a PyTorch module as users write it: evaluation mode, no gradients, autocast for bfloat16."""
    module.eval()

    def work() -> object:
        low = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
        with torch.inference_mode(), low:
            return module(images)

    return work


def openvino_work(model: Any, images: torch.Tensor, precision: str, threads: int) -> Work:
    """One run of an OpenVINO model, for this number of images."""
    require("openvino", "OpenVINO's row")
    import openvino

    network = model.clone()
    network.reshape(openvino.PartialShape(list(images.shape)))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _TYPES.get(precision, "bf16"),
    }
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    array = np.ascontiguousarray(images.numpy())
    return lambda: request.infer({0: array}, share_inputs=True, share_outputs=True)


def onnxruntime_work(model: bytes, images: torch.Tensor, threads: int) -> Work:
    """One run of an ONNX graph in ONNX Runtime."""
    require("onnxruntime", "ONNX Runtime's row")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    array, name = images.numpy(), session.get_inputs()[0].name
    return lambda: session.run(None, {name: array})
