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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inception.errors import InceptionError, first_line
from inception.files import atomic_write_bytes, cache_folder

VECTORS = Path(__file__).with_name("vectors.h")
COMPILERS = ("gcc", "cc")
FLAGS = ("-O3", "-march=native", "-fPIC", "-w")
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
        headers: that they include, beside `vectors.h`; their folders are searched.
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

    Without a compiler, one that any compiler made for this processor is taken.

    Raises KernelError with the reason where there can be none.
    """
    if sys.platform != "linux":
        raise KernelError("code is compiled on Linux only")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    try:
        library = _loaded(compiler, sources)
        for name, (result, arguments) in sources.signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError, AttributeError) as error:
        raise KernelError(f"{compiler or 'the system'} cannot make them ({first_line(error)})") from error
    return library


def _loaded(compiler: str | None, sources: Sources) -> ctypes.CDLL:
    wanted = f"{sources.name}-{_fingerprint(sources)}"
    made_by = "*" if compiler is None else _version(compiler)
    with suppress(OSError, RuntimeError):  # no home to keep it in
        for kept in sorted(cache_folder("kernels").glob(f"{wanted}-{made_by}.so")):
            with suppress(OSError):  # damaged
                if _is_ours(kept):
                    return ctypes.CDLL(str(kept))
    if compiler is None:
        raise KernelError("there is no C compiler (gcc)")
    with tempfile.TemporaryDirectory(prefix="inception-") as folder:
        made = Path(folder) / f"{wanted}-{made_by}.so"
        _compile(compiler, sources, made)
        with suppress(OSError, RuntimeError):
            return ctypes.CDLL(str(_kept(made)))
        return ctypes.CDLL(str(made))  # a loaded library outlives its file


def _kept(made: Path) -> Path:
    """A copy in the cache that nobody else can write to."""
    kept = cache_folder("kernels") / made.name
    atomic_write_bytes(kept, made.read_bytes())
    for path in (kept.parent, kept):
        path.chmod(path.stat().st_mode & ~0o022)
    return kept


def _is_ours(file: Path) -> bool:
    """Whether nobody else can have written it: what is loaded is executed."""
    return all(
        found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
        for found in (file.stat(), file.parent.stat())
    )


def _fingerprint(sources: Sources) -> str:
    """Changes with the sources and with the processor, for which alone the code is made."""
    texts = [path.read_bytes() for path in (*sources.files, *sources.headers, VECTORS)]
    return _digest(*texts, " ".join((*FLAGS, *sources.flags)).encode(), _processor().encode())


def _version(compiler: str) -> str:
    command = [compiler, "--version"]
    return _digest(subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compile(compiler: str, sources: Sources, target: Path) -> None:
    """Each file by a process of its own, all at once; then linked."""
    objects = [target.with_name(f"{file.stem}.o") for file in sources.files]
    folders = dict.fromkeys(header.parent for header in (VECTORS, *sources.headers))
    flags = [*FLAGS, *(f"-I{folder}" for folder in folders), *sources.flags]

    def make(pair: tuple[Path, Path]) -> None:
        _run([compiler, *flags, "-c", "-o", str(pair[1]), str(pair[0])])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, zip(sources.files, objects, strict=True)))
    # Symbolic: its own functions, whatever other libraries call theirs.
    _run([compiler, *flags, "-shared", "-Wl,-Bsymbolic", "-o", str(target), *map(str, objects), "-lm"])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        wrong = [line for line in said if "error" in line]
        raise OSError([*wrong, *said, f"exit code {done.returncode}"][0])
