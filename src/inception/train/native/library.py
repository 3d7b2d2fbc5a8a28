"""The kernels of `kernels.c`, compiled once for this machine by its own C compiler and kept in the cache."""

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from inception.errors import InceptionError, first_line
from inception.files import atomic_write_bytes, cache_folder

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("gcc", "cc")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
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
    "max_pool_forward": (None, [_POINTER, _LONG, _POINTER, _INT, _POINTER, _POINTER, _INT]),
    "max_pool_backward": (None, [_POINTER, _LONG, _POINTER, _POINTER, _INT, _POINTER, _INT]),
}


class KernelError(InceptionError):
    """The kernels cannot be compiled or loaded here."""


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises KernelError with the reason they cannot be had."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise KernelError("there is no C compiler (gcc)")
    try:
        return _declared(_loaded(compiler))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        raise KernelError(f"{compiler} cannot make them ({first_line(error)})") from error


def reason_without() -> str:
    """Why the kernels cannot be had here; empty where they can."""
    try:
        library()
    except KernelError as error:
        return str(error)
    return ""


def _loaded(compiler: str) -> ctypes.CDLL:
    cached = cache_folder("kernels") / f"kernels-{_fingerprint(compiler)}.so"
    with suppress(OSError):  # not made yet, or damaged
        return ctypes.CDLL(str(cached))
    with tempfile.TemporaryDirectory(prefix="inception-") as folder:
        made = Path(folder) / cached.name
        _compile(compiler, made)
        with suppress(OSError):
            atomic_write_bytes(cached, made.read_bytes())
        return ctypes.CDLL(str(made))  # a loaded library outlives its file


def _fingerprint(compiler: str) -> str:
    """Changes with the source, the compiler and the processor, for which alone the code is made."""
    command = [compiler, "--version"]
    version = subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout
    parts = [SOURCE.read_bytes(), version, " ".join(FLAGS).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compile(compiler: str, target: Path) -> None:
    command = [compiler, *FLAGS, "-o", str(target), str(SOURCE), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip() or f"exit code {done.returncode}")


def _declared(kernels: ctypes.CDLL) -> ctypes.CDLL:
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(kernels, name)
        function.restype, function.argtypes = result, arguments
    return kernels
