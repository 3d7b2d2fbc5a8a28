"""Which method computes each convolution, and how many images at once: what this machine does fastest."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from inception.runtime.answering import Pixels
from inception.runtime.native.from_onnx import Network
from inception.runtime.native.layers import Layer, Method, shapes_of
from inception.runtime.native.program import Program
from inception.runtime.native.runner import NativeRunner, described, native_files
from inception.runtime.plan import Plan
from inception.runtime.timing import interleaved, ratio

METHODS: tuple[Method, ...] = ("direct", "winograd2", "winograd4")
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 3.0, 5, 40
"""The methods are measured for about so long, within these numbers of rounds."""
TOGETHER = (1, 2, 4, 8)
"""Images that a thread may take together: fewer stay in its cache, more use the weights longer."""


def fastest_network(network: Network, plan: Plan, pixels: Pixels) -> tuple[dict[str, bytes], str]:
    """The files of `network` as this machine computes it fastest, and what was chosen.

    Every layer is timed within whole runs, with its inputs and weights where such a run leaves them; runs of
    the different methods take turns. Raises UnsupportedLayerError for what the engine does not have.
    """
    shapes = shapes_of(network.layers, network.pixels)
    half = plan.precision == "bfloat16"
    # What the engine does not have is said before anything is packed.
    Program(network.layers, shapes, images=1, threads=plan.threads, half=half, centered=False)
    chosen = _with_fastest_methods(network, plan, pixels[:1])
    together, files = _fastest_together(chosen, plan, pixels)
    methods = [layer.method for layer in chosen.layers if layer.kind == "convolution"]
    counts = ", ".join(f"{method} {methods.count(method)}" for method in METHODS if method in methods)
    return files, f"convolutions: {counts}; {together} image{'s' if together > 1 else ''} at once"


def _with_fastest_methods(network: Network, plan: Plan, pixels: Pixels) -> Network:
    variants = {method: _with_method(network, method) for method in METHODS}
    half = plan.precision == "bfloat16"
    runners = {method: _opened(native_files(variant, half), plan) for method, variant in variants.items()}
    times: dict[Method, list[Mapping[str, float]]] = {method: [] for method in METHODS}
    for runner in runners.values():
        runner(pixels)
    started = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if done >= LEAST_ROUNDS and time.perf_counter() - started > SECONDS:
            break
        for method, runner in runners.items():
            times[method].append(runner.seconds(pixels))

    def fastest(layer: Layer) -> Layer:
        if layer.kind == "concat":
            return layer
        medians = {
            method: statistics.median(seconds[layer.output] for seconds in times[method])
            for method in layer.methods()
        }
        return replace(layer, method=min(medians, key=lambda method: medians[method]))

    return network._replace(layers=tuple(map(fastest, network.layers)))


def _with_method(network: Network, method: Method) -> Network:
    return network._replace(
        layers=tuple(
            replace(layer, method=method) if method in layer.methods() else layer for layer in network.layers
        )
    )


def _opened(files: dict[str, bytes], plan: Plan) -> NativeRunner:
    return NativeRunner(files["network.json"], files["network.weights"], plan)


def _fastest_together(network: Network, plan: Plan, pixels: Pixels) -> tuple[int, dict[str, bytes]]:
    best, files = 1, native_files(network, plan.precision == "bfloat16")
    for together in TOGETHER[1:]:
        if together * plan.threads <= plan.batch:
            candidate = files | {"network.json": described(network, together)}
            runners = {"best": _opened(files, plan), "candidate": _opened(candidate, plan)}
            works = {name: partial(runner, pixels) for name, runner in runners.items()}
            times = interleaved(works, LEAST_ROUNDS)
            if ratio(times["candidate"], times["best"]) < 1.0:
                best, files = together, candidate
    return best, files
