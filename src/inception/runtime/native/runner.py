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

from inception.errors import BundleError, InceptionError
from inception.native.compiler import KernelError, Sources, compiled
from inception.runtime.answering import Logits, Pixels
from inception.runtime.engines import MissingEngineError
from inception.runtime.native.from_onnx import Network, packed_weights
from inception.runtime.native.layers import LANES, Layer, Shape, layer_from_json, shapes_of
from inception.runtime.native.places import ALIGNMENT, slots_of, weight_spans
from inception.runtime.native.program import Program
from inception.runtime.plan import Plan

SCHEMA = 1
LIMIT_BYTES = 8 << 20
MOST_PIXELS = 1 << 12
"""No side of an image is longer."""
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


def native_files(network: Network, half: bool, together: int = 1) -> dict[str, bytes]:
    """The two files of a plan: the layers, and the weights in the engine's order.

    `together` images go through the network at once; more are taken in such groups.
    """
    description = {
        "schema": SCHEMA,
        "pixels": list(network.pixels),
        "centered": network.center is not None,
        "together": together,
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
    """A network in the native engine; memory for one image and for a group of them, each on first use.

    Raises BundleError for files that are damaged, MissingEngineError where the engine cannot be compiled.
    """

    def __init__(self, description: bytes, weights: bytes, plan: Plan) -> None:
        self._half = plan.precision == "bfloat16"
        try:
            self._network = _parsed(description)
            self._shapes = _checked(self._network, len(weights), self._half)
            self._program(1)  # what cannot be laid out shows here
        except (ValueError, LookupError, TypeError, RecursionError, InceptionError) as error:
            raise BundleError(f"network.json is damaged ({error}); optimise the bundle again") from error
        try:
            self._library = library()
        except KernelError as error:
            raise MissingEngineError(f"this bundle's plan needs the native engine: {error}") from error
        if self._half and not self._library.engine_has_bfloat16():
            raise MissingEngineError("this processor has no products of bfloat16 for the native engine")
        self._weights = _aligned(len(weights))
        self._weights[:] = np.frombuffer(weights, dtype=np.uint8)
        self._readies, self._lock = dict[int, _Ready](), Lock()
        self._pool = self._library.engine_open(plan.threads)
        if not self._pool:
            raise MissingEngineError(f"the native engine cannot start {plan.threads} threads")
        weakref.finalize(self, self._library.engine_close, self._pool)

    def __call__(self, pixels: Pixels) -> Logits:
        """See `Runner`."""
        shape = self._network.pixels
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape[1:]}, not uint8 {tuple(shape)}")
        pixels, together = np.ascontiguousarray(pixels), self._network.together
        whole = len(pixels) // together * together
        sizes = [together] * (whole // together) + [1] * (len(pixels) - whole)
        starts = np.cumsum([0, *sizes])
        with self._lock:
            groups = [
                self._run(pixels[start : start + size]) for start, size in zip(starts, sizes, strict=False)
            ]
        return np.concatenate(groups)

    def seconds(self, pixels: Pixels) -> dict[str, float]:
        """What each operation takes, by what it makes, for one batch."""
        with self._lock:
            ready = self._ready(len(pixels))
            seconds = np.zeros(len(ready.program.operations))
            self._compute(ready, np.ascontiguousarray(pixels), seconds.ctypes.data)
        return dict(zip(ready.program.names, seconds.tolist(), strict=True))

    def _program(self, images: int) -> Program:
        network = self._network
        return Program(network.layers, self._shapes, images, self._half, network.centered)

    def _ready(self, images: int) -> _Ready:
        if images not in self._readies:
            program = self._program(images)
            self._readies[images] = _Ready(program, _aligned(program.layout.size))
        return self._readies[images]

    def _run(self, pixels: Pixels) -> Logits:
        ready = self._ready(len(pixels))
        self._compute(ready, pixels, None)
        return _logits(ready, len(pixels))

    def _compute(self, ready: _Ready, pixels: Pixels, seconds: int | None) -> None:
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


class _Description(NamedTuple):
    layers: tuple[Layer, ...]
    pixels: Shape
    centered: bool
    together: int


def _parsed(description: bytes) -> _Description:
    if len(description) > LIMIT_BYTES:
        raise ValueError(f"more than {LIMIT_BYTES} bytes")
    values = json.loads(description)
    if values["schema"] != SCHEMA:
        raise ValueError("it has another schema than this version reads")
    channels, height, width = values["pixels"]
    pixels, together = Shape(channels, height, width), values["together"]
    if not all(type(side) is int and 1 <= side <= MOST_PIXELS for side in (*pixels, together)):
        raise ValueError(f"{together!r:.60} images of {pixels!r:.60}")
    layers = tuple(map(layer_from_json, values["layers"]))
    if channels > LANES or not layers:
        raise ValueError(f"images of {channels} channels, {len(layers)} layers")
    return _Description(layers, pixels, bool(values["centered"]), together)


def _checked(network: _Description, size: int, half: bool) -> dict[str, Shape]:
    """The shapes of its maps. Raises ValueError where they do not lead to logits, or need other weights."""
    shapes = shapes_of(network.layers, network.pixels)
    _, expected = weight_spans(network.layers, shapes, slots_of(network.layers, shapes), half)
    if size != expected:
        raise ValueError(f"the weights have {size} bytes, the layers need {expected}")
    if shapes[network.layers[-1].output][1:] != (1, 1):
        raise ValueError("its layers do not lead to logits")
    return shapes


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeros that begin at a whole cache line."""
    room = np.zeros(size + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]
