"""Sources in C, compiled once for this machine by its own compiler, and kept."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inception.errors import InceptionError, first_line
from inception.files import atomic_write_bytes, cache_folder

VECTORS = Path(__file__).with_name("vectors.h")
COMPILERS = ("gcc", "cc")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-w", f"-I{VECTORS.parent}")
COMPILE_SECONDS = 120

Signature = tuple[type | None, Sequence[type]]
"""What a function returns, and what it takes."""


class KernelError(InceptionError):
    """The kernels cannot be compiled or loaded here."""


@dataclass(frozen=True)
class Sources:
    """What makes one library.

    Attributes:
        name: of the file that is kept.
        files: compiled and linked.
        headers: that they include, beside `vectors.h`.
        flags: in addition to FLAGS.
        signatures: of its functions, by name.
    """

    name: str
    files: tuple[Path, ...]
    headers: tuple[Path, ...]
    flags: tuple[str, ...]
    signatures: dict[str, Signature]


def compiled(sources: Sources) -> ctypes.CDLL:
    """The library of these sources, compiled where that was not done before.

    Raises KernelError with the reason where there can be none.
    """
    if sys.platform != "linux":
        raise KernelError("they are for Linux")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise KernelError("there is no C compiler (gcc)")
    try:
        library = _loaded(compiler, sources)
        for name, (result, arguments) in sources.signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        raise KernelError(f"{compiler} cannot make them ({first_line(error)})") from error
    return library


def _loaded(compiler: str, sources: Sources) -> ctypes.CDLL:
    name = f"{sources.name}-{_fingerprint(compiler, sources)}.so"
    with suppress(OSError, RuntimeError):  # not made yet, damaged, or no home to keep it in
        kept = cache_folder("kernels") / name
        if _is_ours(kept):
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory(prefix="inception-") as folder:
        made = Path(folder) / name
        _compile(compiler, sources, made)
        with suppress(OSError, RuntimeError):
            atomic_write_bytes(cache_folder("kernels") / name, made.read_bytes())
        return ctypes.CDLL(str(made))  # a loaded library outlives its file


def _is_ours(file: Path) -> bool:
    """Whether nobody else can have written it: what is loaded is executed."""
    return all(
        found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
        for found in (file.stat(), file.parent.stat())
    )


def _fingerprint(compiler: str, sources: Sources) -> str:
    """Changes with the source, the compiler and the processor, for which alone the code is made."""
    command = [compiler, "--version"]
    version = subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout
    texts = [path.read_bytes() for path in (*sources.files, *sources.headers, VECTORS)]
    flags = " ".join((*FLAGS[:-1], *sources.flags)).encode()
    return hashlib.sha256(b"\0".join([*texts, version, flags, _processor().encode()])).hexdigest()[:16]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compile(compiler: str, sources: Sources, target: Path) -> None:
    command = [compiler, *FLAGS, *sources.flags, "-o", str(target), *map(str, sources.files), "-lm"]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        wrong = [line for line in said if "error" in line]
        raise OSError([*wrong, *said, f"exit code {done.returncode}"][0])
