"""Caffe's `.caffemodel` without Caffe, in the present form (`layer`) and the one before it (`layers`).

Source of the message layouts: src/caffe/proto/caffe.proto of BVLC/caffe.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from inception.errors import WeightsError
from inception.weights.formats import wire
from inception.weights.formats.foreign import (
    Allowance,
    Foreign,
    checked_shape,
    reading,
    tensor_from_bytes,
)

# Field numbers: in NetParameter, then (name, type, blobs) inside each form of layer.
FORMS = {100: (1, 2, 7), 2: (4, 5, 6)}
BATCH_NORM_PARAMETERS = 139
DEFAULT_EPSILON = 1e-5
ROLES = ("weight", "bias")
ROLES_OF_TYPE = {
    "BatchNorm": ("mean", "variance", "factor"),
    "Scale": ("scale", "shift"),
    "BN": ("scale", "shift", "mean", "variance"),
}


def read_caffe(path: Path) -> Foreign:
    """Every layer's blobs as `<layer>.weight`, `.bias`, `.mean`, `.variance`, `.epsilon`, `.scale`, `.shift`.

    Statistics of BatchNorm layers are divided by their stored factor. Layouts are Caffe's, which are
    PyTorch's. Raises WeightsError when the file is damaged or no caffemodel.
    """
    return reading(path, "a .caffemodel", lambda: _read(path))


def _read(path: Path) -> Foreign:
    data = memoryview(path.read_bytes())
    allowance = Allowance(path, len(data))
    tensors: dict[str, Tensor] = {}
    for number, value in wire.fields(data):
        if number in FORMS:
            for name, tensor in _layer(path, wire.as_bytes(value), FORMS[number], allowance).items():
                if name in tensors:
                    raise WeightsError(f"{path} has two layers that define {name}")
                tensors[name] = tensor
    if not tensors:
        raise WeightsError(f"{path} is not a .caffemodel: it has no layer with weights")
    return Foreign("caffe", tensors)


def _layer(
    path: Path, message: memoryview, form: tuple[int, int, int], allowance: Allowance
) -> dict[str, Tensor]:
    name, kind, epsilon = "", "", DEFAULT_EPSILON
    blobs: list[memoryview] = []
    for number, value in wire.fields(message):
        if number == form[0]:
            name = wire.as_text(value)
        elif number == form[1] and not isinstance(value, int):  # the older form has a number here
            kind = wire.as_text(value)
        elif number == form[2]:
            blobs.append(wire.as_bytes(value))
        elif number == BATCH_NORM_PARAMETERS and form is FORMS[100]:
            stored = dict(wire.fields(wire.as_bytes(value))).get(3)
            if stored is not None:
                epsilon = float(wire.floats([wire.as_bytes(stored)], "<f4")[0])
    roles = ROLES_OF_TYPE.get(kind, ROLES)
    if len(blobs) > len(roles):
        raise WeightsError(f"{path}: layer {name} has {len(blobs)} blobs, at most {len(roles)} are known")
    found = {
        role: _blob(path, f"{name}.{role}", blob, allowance) for role, blob in zip(roles, blobs, strict=False)
    }
    if "factor" in found:
        factor = float(found.pop("factor").sum())
        for role in ("mean", "variance"):
            found[role] = found[role] / factor if factor else torch.zeros_like(found[role])
    if "variance" in found:
        found["epsilon"] = torch.tensor(epsilon)
    return {f"{name}.{role}": tensor for role, tensor in found.items()}


def _blob(path: Path, name: str, message: memoryview, allowance: Allowance) -> Tensor:
    parts: dict[int, list[memoryview]] = {5: [], 8: []}
    shape: list[int] | None = None
    legacy: dict[int, int] = {}
    for number, value in wire.fields(message):
        if number == 7:
            shape = []
            for field, lengths in wire.fields(wire.as_bytes(value)):
                if field == 1:
                    shape += wire.integers(lengths)
        elif 1 <= number <= 4:
            legacy[number] = wire.as_int(value)
        elif number in parts:
            parts[number].append(wire.as_bytes(value))
    sides = [legacy.get(number, 1) for number in (1, 2, 3, 4)] if shape is None else shape
    checked = checked_shape(path, name, sides)
    kind, pieces = ("<f8", parts[8]) if parts[8] else ("<f4", parts[5])
    data = wire.joined(pieces)
    allowance.take(name, math.prod(checked) * int(kind[2]))
    return tensor_from_bytes(path, name, data, kind, checked)
