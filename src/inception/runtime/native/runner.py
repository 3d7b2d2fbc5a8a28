"""The native engine as a function from pixels to logits. It needs no PyTorch."""

import ctypes
import json
import os
import weakref
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inception.errors import BundleError, InceptionError
from inception.files import parse_json
from inception.native.compiler import VECTORS, KernelError, Sources, compiled
from inception.runtime.answering import Logits, Pixels
from inception.runtime.engines import MissingEngineError, available_cores
from inception.runtime.native.from_onnx import Network, packed_weights
from inception.runtime.native.layers import LANES, Layer, Shape, layer_from_json, shapes_of
from inception.runtime.native.places import ALIGNMENT, slots_of, weight_spans
from inception.runtime.native.program import Program
from inception.runtime.plan import Plan

SCHEMA = 1
MOST_JSON_VALUES = 1 << 17
MOST_ARENA_BYTES = 1 << 34
"""Memory for the maps of all threads."""
MOST_PIXELS = 1 << 12
"""No side of an image is longer."""
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64
_HERE = Path(__file__).parent
HEADERS = (_HERE / "engine.h", _HERE / "tile.h", VECTORS.with_name("winograd.h"))
_UNITS = ("tiles_float32", "tiles_bfloat16", "winograd", "convolution", "maps", "engine")
SOURCES = Sources(
    name="engine",
    files=tuple(_HERE / f"{name}.c" for name in _UNITS),
    headers=HEADERS,
    flags=("-pthread",),
    signatures={
        "engine_open": (_POINTER, [_LONG]),
        "engine_close": (None, [_POINTER]),
        "engine_run": (
            None,
            # pool, program; arena, its bytes; weights; images, bytes of a group; logits, where, bytes; groups
            [
                *[_POINTER] * 2,
                _LONG,
                _POINTER,
                _LONG,
                *[_POINTER] * 2,
                _LONG,
                _POINTER,
                *[_LONG] * 3,
                _POINTER,
            ],
        ),
        "engine_has_bfloat16": (ctypes.c_int, []),
    },
)


def library() -> ctypes.CDLL:
    """The compiled engine. Raises MissingEngineError with the reason it cannot be had."""
    found = _outcome()
    if isinstance(found, str):
        raise MissingEngineError(f"the native engine cannot be had here: {found}")
    return found


@cache
def _outcome() -> ctypes.CDLL | str:
    """The library, or why there is none; tried once in a process."""
    try:
        return compiled(SOURCES)
    except KernelError as error:
        return str(error)


def native_files(network: Network, half: bool, together: int = 1) -> dict[str, bytes]:
    """The two files of a plan: the layers (see `described`), and the weights in the engine's order."""
    return {"network.json": described(network, together), "network.weights": packed_weights(network, half)}


def described(network: Network, together: int) -> bytes:
    """The layers as JSON.

    `together` images go through the network at once where each thread takes images of its own.
    """
    description = {
        "schema": SCHEMA,
        "pixels": list(network.pixels),
        "centered": network.center is not None,
        "together": together,
        "layers": [layer.to_json() for layer in network.layers],
    }
    return json.dumps(description).encode()


class NativeRunner:
    """A network in the native engine; its memory is taken on first use.

    Images are computed by a thread each, in groups; those that are left over, or come alone, by all threads
    together. Raises BundleError for files that are damaged, MissingEngineError where the engine cannot be
    compiled.
    """

    def __init__(self, description: bytes, weights: bytes, plan: Plan) -> None:
        self._half = plan.precision == "bfloat16"
        self._threads = min(plan.threads, available_cores())
        try:
            self._network = _parsed(description)
            self._shapes = _checked(self._network, len(weights), plan.precision)
            self._programs = {size: self._program(*size) for size in {(1, self._threads), (self.together, 1)}}
            self._check_programs()
        except (ValueError, LookupError, TypeError, RecursionError, InceptionError) as error:
            raise BundleError(f"network.json is damaged ({error}); optimise the bundle again") from error
        self._library = library()
        if self._half and not self._library.engine_has_bfloat16():
            raise MissingEngineError("this processor has no products of bfloat16 for the native engine")
        self._weights = aligned_zeros(len(weights))
        self._weights[:] = np.frombuffer(weights, dtype=np.uint8)
        self._lock = Lock()
        self._arenas: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._open_pool()

    @property
    def pixels(self) -> Shape:
        """Shape of the images it reads."""
        return self._network.pixels

    @property
    def outputs(self) -> int:
        """Logits of an image."""
        return self._shapes[self._network.layers[-1].output].channels

    @property
    def together(self) -> int:
        """Images that a thread takes together."""
        return self._network.together

    def _open_pool(self) -> None:
        pool = self._library.engine_open(self._threads)
        if not pool:
            raise MissingEngineError(f"the native engine cannot start {self._threads} threads")
        self._process, self._pool = os.getpid(), pool
        close = partial(_close, self._library, self._process, self._pool)
        weakref.finalize(self, close).atexit = False  # another thread may still be at work

    def _check_programs(self) -> None:
        for (_, threads), program in self._programs.items():
            place = program.layout.places[program.logits]
            if place.image != place.pixel:
                raise ValueError("its logits are padded")
            if program.layout.size * (1 if threads > 1 else self._threads) > MOST_ARENA_BYTES:
                raise ValueError(f"its maps take more than {MOST_ARENA_BYTES >> 30} GiB")

    def __call__(self, pixels: Pixels) -> Logits:
        """See `Runner`."""
        shape = self.pixels
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape[1:]}, not uint8 {tuple(shape)}")
        pixels, together = np.ascontiguousarray(pixels), self.together
        groups = len(pixels) // together
        if self._threads > 1:
            groups = groups // self._threads * self._threads
        apart = groups * together
        with self._lock:
            found = [np.empty((0, self.outputs), dtype=np.float32)]
            found += [self._compute(pixels[:apart], together, 1)] if apart else []
            found += [self._compute(image[None], 1, self._threads) for image in pixels[apart:]]
        return np.concatenate(found)

    def seconds(self, pixels: Pixels) -> dict[str, float]:
        """What each operation takes, by what it makes, for one image by all threads together."""
        with self._lock:
            names = self._programs[1, self._threads].names
            seconds = np.zeros(len(names))
            self._compute(np.ascontiguousarray(pixels[:1]), 1, self._threads, seconds.ctypes.data)
        return dict(zip(names, seconds.tolist(), strict=True))

    def _program(self, images: int, threads: int) -> Program:
        network = self._network
        return Program(
            network.layers,
            self._shapes,
            images=images,
            threads=threads,
            half=self._half,
            centered=network.centered,
        )

    def _arena(self, images: int, threads: int) -> NDArray[np.uint8]:
        """Memory for the maps: of one image by all threads, or of a group for each thread."""
        if (images, threads) not in self._arenas:
            size = self._programs[images, threads].layout.size
            self._arenas[images, threads] = aligned_zeros(size * (1 if threads > 1 else self._threads))
        return self._arenas[images, threads]

    def _compute(self, pixels: Pixels, images: int, threads: int, seconds: int | None = None) -> Logits:
        """Groups of `images`, each by `threads` threads: one, or all."""
        if self._process != os.getpid():  # threads do not follow into a forked process
            self._open_pool()
        program, arena = self._programs[images, threads], self._arena(images, threads)
        place, blocks = program.layout.places[program.logits], program.layout.counts[program.logits]
        kind: Any = np.uint16 if program.logits_half else np.float32
        groups = len(pixels) // images
        logits = np.empty((groups, blocks, images, LANES), dtype=kind)
        self._library.engine_run(
            self._pool,
            ctypes.addressof(program.operations),
            len(program.operations),
            arena.ctypes.data,
            program.layout.size,
            self._weights.ctypes.data,
            pixels.ctypes.data,
            pixels[:images].nbytes,
            logits.ctypes.data,
            place.start,
            logits[:1].nbytes,
            groups,
            seconds,
        )
        values = logits.transpose(0, 2, 1, 3).reshape(len(pixels), -1)[:, program.logits_slots]
        if program.logits_half:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.array(values, dtype=np.float32)


class _Description(NamedTuple):
    layers: tuple[Layer, ...]
    pixels: Shape
    centered: bool
    together: int


def _parsed(description: bytes) -> _Description:
    values = parse_json(description, MOST_JSON_VALUES, finite=True)
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


def _checked(network: _Description, size: int, precision: str) -> dict[str, Shape]:
    """The shapes of its maps. Raises ValueError where they do not lead to logits, or need other weights."""
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"the native engine has no {precision}")
    shapes = shapes_of(network.layers, network.pixels)
    _, expected = weight_spans(
        network.layers, shapes, slots_of(network.layers, shapes), precision == "bfloat16"
    )
    if size != expected:
        raise ValueError(f"the weights have {size} bytes, the layers need {expected}")
    if shapes[network.layers[-1].output][1:] != (1, 1):
        raise ValueError("its layers do not lead to logits")
    return shapes


def _close(library: ctypes.CDLL, process: int, pool: int) -> None:
    """End the threads, in the process that has them."""
    if process == os.getpid():
        library.engine_close(pool)


def aligned_zeros(size: int) -> NDArray[np.uint8]:
    """Zeros that begin at a whole cache line."""
    room = np.zeros(size + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]
