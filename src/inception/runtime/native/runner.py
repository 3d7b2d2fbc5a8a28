"""The native engine as a function from pixels to logits. It needs no PyTorch."""

import ctypes
import json
import weakref
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inception.native.compiler import KernelError, Sources, compiled
from inception.runtime.answering import Logits, Pixels
from inception.runtime.engines import MissingEngineError, in_batches
from inception.runtime.native.from_onnx import Network, packed_weights
from inception.runtime.native.layers import LANES, Layer, Shape, layer_from_json, shapes_of
from inception.runtime.native.places import ALIGNMENT, slots_of, weight_spans
from inception.runtime.native.program import Program
from inception.runtime.plan import Plan

SCHEMA = 1
LIMIT_BYTES = 8 << 20
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64
_HERE = Path(__file__).parent
SOURCES = Sources(
    name="engine",
    files=tuple(_HERE / name for name in ("engine.c", "convolution.c", "winograd.c", "maps.c")),
    headers=(_HERE / "engine.h",),
    flags=("-pthread",),
    signatures={
        "engine_open": (_POINTER, [_LONG]),
        "engine_close": (None, [_POINTER]),
        "engine_run": (None, [_POINTER, _POINTER, _LONG, *[_POINTER] * 4]),
        "engine_has_wide_vectors": (ctypes.c_int, []),
        "engine_has_bfloat16": (ctypes.c_int, []),
    },
)


@cache
def library() -> ctypes.CDLL:
    """The compiled engine. Raises KernelError with the reason it cannot be had."""
    return compiled(SOURCES)


def native_files(network: Network, half: bool) -> dict[str, bytes]:
    """The two files of a plan: the layers, and the weights in the engine's order."""
    description = {
        "schema": SCHEMA,
        "pixels": list(network.pixels),
        "centered": network.center is not None,
        "layers": [layer.to_json() for layer in network.layers],
    }
    return {
        "network.json": json.dumps(description).encode(),
        "network.weights": packed_weights(network, half),
    }


class _Ready(NamedTuple):
    program: Program
    arena: NDArray[np.uint8]


class NativeRunner:
    """A network in the native engine; memory for one image and for the planned batch, each on first use.

    Raises ValueError, TypeError or LookupError for files that are damaged, MissingEngineError where the
    engine cannot be compiled.
    """

    def __init__(self, description: bytes, weights: bytes, plan: Plan) -> None:
        self._half = plan.precision == "bfloat16"
        self._layers, pixels, self._centered = _parsed(description)
        self._shapes = shapes_of(self._layers, pixels)
        slots = slots_of(self._layers, self._shapes)
        _, expected = weight_spans(self._layers, self._shapes, slots, self._half)
        if len(weights) != expected:
            raise ValueError(f"network.weights has {len(weights)} bytes, its layers need {expected}")
        try:
            self._library = library()
        except KernelError as error:
            raise MissingEngineError(f"this bundle's plan needs the native engine: {error}") from error
        if self._half and not self._library.engine_has_bfloat16():
            raise MissingEngineError("this processor has no products of bfloat16 for the native engine")
        self._weights = _aligned(len(weights))
        self._weights[:] = np.frombuffer(weights, dtype=np.uint8)
        self._batch, self._programs, self._lock = plan.batch, dict[int, _Ready](), Lock()
        self._pool = self._library.engine_open(plan.threads)
        if not self._pool:
            raise MissingEngineError(f"the native engine cannot start {plan.threads} threads")
        weakref.finalize(self, self._library.engine_close, self._pool)

    def __call__(self, pixels: Pixels) -> Logits:
        """See `Runner`."""
        size = 1 if len(pixels) == 1 else self._batch
        with self._lock:
            return in_batches(pixels, size, self._run)

    def seconds(self, pixels: Pixels) -> dict[str, float]:
        """What each operation takes, by what it makes, for one batch."""
        with self._lock:
            ready = self._ready(len(pixels))
            seconds = np.zeros(len(ready.program.operations))
            self._compute(ready, np.ascontiguousarray(pixels), seconds.ctypes.data)
        return dict(zip(ready.program.names, seconds.tolist(), strict=True))

    def _ready(self, images: int) -> _Ready:
        if images not in self._programs:
            program = Program(self._layers, self._shapes, images, self._half, self._centered)
            self._programs[images] = _Ready(program, _aligned(program.layout.size))
        return self._programs[images]

    def _run(self, pixels: Pixels) -> Logits:
        ready = self._ready(len(pixels))
        self._compute(ready, pixels, None)
        return _logits(ready, len(pixels))

    def _compute(self, ready: _Ready, pixels: Pixels, seconds: int | None) -> None:
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._shapes["pixels"]:
            raise ValueError(f"pixels of {pixels.dtype} {pixels.shape[1:]}, not uint8 {self._shapes['pixels']}")
        operations = ready.program.operations
        self._library.engine_run(
            self._pool,
            ctypes.addressof(operations),
            len(operations),
            ready.arena.ctypes.data,
            self._weights.ctypes.data,
            pixels.ctypes.data,
            seconds,
        )


def _logits(ready: _Ready, images: int) -> Logits:
    program, arena = ready
    place, blocks = program.layout.places[program.logits], program.layout.counts[program.logits]
    size = 2 if program.logits_half else 4
    kind: Any = np.uint16 if program.logits_half else np.float32
    values = arena[place.start : place.start + blocks * images * LANES * size].view(kind)
    values = values.reshape(blocks, images, LANES).transpose(1, 0, 2).reshape(images, -1)
    values = values[:, program.logits_slots]
    if program.logits_half:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return np.array(values, dtype=np.float32)


def _parsed(description: bytes) -> tuple[tuple[Layer, ...], Shape, bool]:
    if len(description) > LIMIT_BYTES:
        raise ValueError(f"network.json has more than {LIMIT_BYTES} bytes")
    values = json.loads(description)
    if values["schema"] != SCHEMA:
        raise ValueError("network.json has another schema than this version reads")
    channels, height, width = values["pixels"]
    pixels = Shape(channels, height, width)
    if not all(type(side) is int and 1 <= side <= 1 << 14 for side in pixels) or channels > LANES:
        raise ValueError(f"images of {pixels}")
    layers = tuple(map(layer_from_json, values["layers"]))
    if not layers or shapes_of(layers, pixels)[layers[-1].output][1:] != (1, 1):
        raise ValueError("network.json does not end in logits")
    return layers, pixels, bool(values["centered"])


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeros that begin at a whole cache line."""
    room = np.zeros(size + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]
