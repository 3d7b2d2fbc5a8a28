"""Keras's `.h5`, `.keras` and `.weights.h5` without Keras (h5py alone): variables by layer.

Nothing in a model's configuration is executed or even read.
"""

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inception.errors import UsageError, WeightsError
from inception.weights.formats.foreign import Allowance, Foreign, checked_shape, reading

WEIGHTS_MEMBER = "model.weights.h5"
MAX_EXPANSION = 4
"""A compressed archive of weights is little smaller than they are; more than this is refused."""
MAX_OBJECTS = 100_000
# Order in which Keras 3 numbers the variables of a layer in `.weights.h5` files.
NUMBERED = {
    "convolution": ("kernel", "bias"),
    "normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_keras(path: Path) -> Foreign:
    """Every layer's variables: `<layer>/kernel`, `/bias`, `/gamma`, `/beta`, `/moving_mean` and so on.

    Automatic names, which count through a whole session, are renumbered from 0 (`conv2d_0`). Raises
    WeightsError when the file is damaged, and UsageError when h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageError("Keras files need h5py: pip install 'inception[import]'") from error

    def read() -> Foreign:
        content: Any = str(path)
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            content = io.BytesIO(_weights_member(path))
            size = len(content.getbuffer())
        with h5py.File(content, "r") as file:
            found = _variables(path, file, Allowance(path, size, times=MAX_EXPANSION))
        if not found:
            raise WeightsError(f"{path} holds no variables")
        return Foreign("keras", _renumbered(found))

    return reading(path, "a Keras weights file", read)


def _weights_member(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if WEIGHTS_MEMBER not in members:
                raise WeightsError(f"{path} is no .keras file: {WEIGHTS_MEMBER} is missing")
            info = members[WEIGHTS_MEMBER]
            if info.file_size > MAX_EXPANSION * path.stat().st_size:
                raise WeightsError(f"{path}: {WEIGHTS_MEMBER} claims {info.file_size} bytes")
            return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise WeightsError(f"{path} is a damaged archive: {error}") from error


def _variables(path: Path, file: Any, allowance: Allowance) -> dict[str, Tensor]:
    import h5py

    found: dict[str, Tensor] = {}
    given: dict[str, str] = {}
    count = 0

    def visit(name: str, item: Any) -> None:
        nonlocal count
        count += 1
        if count > MAX_OBJECTS:
            raise WeightsError(f"{path} has more than {MAX_OBJECTS} objects")
        if "name" in item.attrs:
            given[name] = str(item.attrs["name"])
        if isinstance(item, h5py.Dataset) and "optimizer" not in name.partition("/")[0]:
            tensor = _dataset(path, name, item, allowance)
            if tensor is not None:
                found[name] = tensor

    file.visititems(visit)  # each object once, however often it is linked
    return {_short(path, name, found, given): tensor for name, tensor in found.items()}


def _dataset(path: Path, name: str, item: Any, allowance: Allowance) -> Tensor | None:
    """A dataset of numbers as a tensor; None for others. Contents outside the file are refused."""
    if item.dtype.kind not in "fiu" or item.dtype.itemsize > 8:
        return None
    if item.is_virtual or item.external:
        raise WeightsError(f"{path}: {name} points to another file")
    shape = checked_shape(path, name, list(item.shape or ()))
    allowance.take(name, int(np.prod(shape, dtype=np.int64)) * item.dtype.itemsize)
    array = np.asarray(item[()])
    if array.dtype.kind == "u":
        return None
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))


def _short(path: Path, name: str, found: dict[str, Tensor], given: dict[str, str]) -> str:
    """`<layer>/<variable>` of a path in the file, whichever of Keras's layouts it has.

    Keras 3 files a layer under its kind and a number that follows the graph's depth; only its name, an
    attribute of its `vars`, says which layer it is.
    """
    parts = name.split("/")
    if len(parts) >= 3 and parts[-2] == "vars" and parts[-1].isdigit():
        layer = given.get("/".join(parts[:-2])) or given.get("/".join(parts[:-1]))
        if layer is None:
            raise WeightsError(
                f"{path} does not say the names of its layers (an early Keras 3 wrote it): load it in Keras "
                "and save it again, as .h5 or with a newer Keras"
            )
        siblings = sum(1 for other in found if other.rpartition("/")[0] == "/".join(parts[:-1]))
        return f"{layer}/{_numbered(int(parts[-1]), siblings)}"
    variable = parts[-1].removesuffix(":0")
    layer = parts[-2] if len(parts) > 1 else ""
    return f"{layer}/{variable}"


def _numbered(number: int, siblings: int) -> str:
    """The name of a layer's variable that Keras 3 stores under a number.

    A convolution has kernel and bias; a normalisation beta, mean and variance, with gamma before them if it
    has one.
    """
    if siblings <= 2:
        return NUMBERED["convolution"][number] if number < 2 else str(number)
    names = NUMBERED["normalization"][-siblings:] if siblings <= 4 else ()
    return names[number] if number < len(names) else str(number)


def _renumbered(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Automatic names (`conv2d`, `conv2d_94`, …) counted from 0 in the order of their numbers."""
    pattern = re.compile(r"(conv2d|batch_normalization|dense)(?:_(\d+))?")
    numbers: dict[str, set[int]] = {}
    for name in found:
        match = pattern.fullmatch(name.rpartition("/")[0])
        if match:
            numbers.setdefault(match[1], set()).add(int(match[2] or 0))
    places = {
        (kind, number): place
        for kind, present in numbers.items()
        for place, number in enumerate(sorted(present))
    }
    result = {}
    for name, tensor in found.items():
        layer, _, variable = name.rpartition("/")
        match = pattern.fullmatch(layer)
        if match:
            layer = f"{match[1]}_{places[match[1], int(match[2] or 0)]}"
        result[f"{layer}/{variable}"] = tensor
    return result
