"""The kernels in C beside this file, compiled once for this machine by its own compiler, and kept."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from inception.errors import InceptionError, first_line
from inception.files import atomic_write_bytes, cache_folder

SOURCES = tuple(Path(__file__).with_name(name) for name in ("norm_relu.c", "max_pool.c"))
HEADER = Path(__file__).with_name("vectors.h")
COMPILERS = ("gcc", "cc")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-w")
COMPILE_SECONDS = 120

_POINTER, _LONG, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "norm_relu_forward": (
        _INT,
        [_POINTER, _LONG, _LONG, _LONG, _INT, *[_POINTER] * 4, _DOUBLE, _DOUBLE, _POINTER, _POINTER, _INT],
    ),
    "norm_relu_backward": (
        _INT,
        [_POINTER, _LONG, _POINTER, _LONG, _LONG, _LONG, _INT, *[_POINTER] * 4, _INT],
    ),
    "max_pool_forward": (_INT, [_POINTER, _LONG, _POINTER, _INT, _POINTER, _POINTER, _INT]),
    "max_pool_backward": (None, [_POINTER, _LONG, _POINTER, _POINTER, _INT, _POINTER, _INT]),
}


class KernelError(InceptionError):
    """The kernels cannot be compiled or loaded here."""


def library() -> ctypes.CDLL:
    """The compiled kernels. Raises KernelError with the reason they cannot be had."""
    kernels, reason = _outcome()
    if kernels is None:
        raise KernelError(reason)
    return kernels


def reason_without(device: str = "cpu") -> str:
    """Why the kernels cannot be had here, on a device of this type; empty where they can."""
    return _outcome()[1] if device == "cpu" else f"they are for CPUs, and the run is on {device}"


@cache
def _outcome() -> tuple[ctypes.CDLL | None, str]:
    """The kernels, or the reason there are none; tried once in a process."""
    if sys.platform != "linux":
        return None, "they are for Linux"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None, "there is no C compiler (gcc)"
    try:
        kernels = _declared(_loaded(compiler))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return None, f"{compiler} cannot make them ({first_line(error)})"
    # A second OpenMP would have threads of its own, and those of PyTorch's would spin against them.
    if not _openmp_file(kernels).is_relative_to(Path(torch.__file__).parent):
        return None, "PyTorch brings an OpenMP that gcc's code does not find"
    return kernels, ""


def _loaded(compiler: str) -> ctypes.CDLL:
    name = f"kernels-{_fingerprint(compiler)}.so"
    with suppress(OSError, RuntimeError):  # not made yet, damaged, or no home to keep it in
        kept = cache_folder("kernels") / name
        if _is_ours(kept):
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory(prefix="inception-") as folder:
        made = Path(folder) / name
        _compile(compiler, made)
        with suppress(OSError, RuntimeError):
            atomic_write_bytes(cache_folder("kernels") / name, made.read_bytes())
        return ctypes.CDLL(str(made))  # a loaded library outlives its file


def _is_ours(file: Path) -> bool:
    """Whether nobody else can have written it: what is loaded is executed."""
    return all(
        found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
        for found in (file.stat(), file.parent.stat())
    )


def _fingerprint(compiler: str) -> str:
    """Changes with the source, the compiler and the processor, for which alone the code is made."""
    command = [compiler, "--version"]
    version = subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout
    sources = [path.read_bytes() for path in (*SOURCES, HEADER)]
    parts = [*sources, version, " ".join(FLAGS).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compile(compiler: str, target: Path) -> None:
    command = [compiler, *FLAGS, "-o", str(target), *map(str, SOURCES), "-lm"]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        wrong = [line for line in said if "error" in line]
        raise OSError([*wrong, *said, f"exit code {done.returncode}"][0])


def _declared(kernels: ctypes.CDLL) -> ctypes.CDLL:
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(kernels, name)
        function.restype, function.argtypes = result, arguments
    return kernels


def _openmp_file(kernels: ctypes.CDLL) -> Path:
    """Where the OpenMP comes from that the kernels run on."""
    address = ctypes.cast(kernels.GOMP_parallel, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, *_, path = line.split(maxsplit=5)
        first, last = (int(edge, 16) for edge in span.split("-"))
        if first <= address < last:
            return Path(path)
    return Path()
