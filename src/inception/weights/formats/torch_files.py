"""PyTorch's `.pth` files (zip and the older form) and safetensors, without executing anything."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from inception.errors import WeightsError, first_line
from inception.weights.formats.foreign import Foreign

WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "state_dict_ema")


def read_safetensors(path: Path) -> Foreign:
    """All tensors of a safetensors file; WeightsError when it is not one."""
    try:
        return Foreign("safetensors", safetensors.torch.load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a valid safetensors file: {error}") from error


def read_torch(path: Path) -> Foreign:
    """The state_dict in a `.pth` or `.pt` file, of either form, read with weights_only.

    Raises WeightsError when it is damaged, holds anything but plain data, or claims more than it holds.
    """
    try:
        # A file object would take the memory for any length that the pickle of the older form declares.
        source = path if _is_plain_archive(path) else io.BytesIO(path.read_bytes())
        content: Any = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error type of its own for damaged or hostile files
        if isinstance(error, WeightsError | MemoryError):
            raise
        raise WeightsError(
            f"{path} cannot be read as plain tensors (weights_only): {first_line(error)}"
        ) from error
    tensors = _tensors_of(content, path)
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise WeightsError(f"{path}: {name} is not a plain tensor")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: {name} has the shape {list(tensor.shape)}, larger than what it holds"
            )
    return Foreign("torch", tensors)


def _is_plain_archive(path: Path) -> bool:
    """Whether it is of the zip form; WeightsError when compressed: stored members cannot expand."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError(f"{path} is a compressed archive, which torch.save never writes")
    return True


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors and all(name.startswith("module.") for name in tensors):  # written by DataParallel
            tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
        if tensors:
            return tensors
    raise WeightsError(f"{path} holds no state_dict: save one with torch.save(model.state_dict(), ...)")
