"""PyTorch's `.pth` files (zip and the older form) and safetensors, without executing anything."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from inception.errors import WeightsError, first_line
from inception.weights.formats.checkpoints import network_tensors
from inception.weights.formats.foreign import Foreign

_FOREIGN_CLASS = re.compile(r"GLOBAL ([\w.]+)")


class _StandIn:
    """Stands for a harmless object beside the tensors: it takes any state and keeps none."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _empty_dict(*_: Any) -> dict[Any, Any]:
    """Stands for a defaultdict, whose factory is not kept; torch fills only dictionaries of its own kinds."""
    return {}


def _plain_classes() -> list[Any]:
    """Containers and values that training scripts save; nothing real but dictionaries is built of them."""
    paths = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    kinds = ("Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64", "UInt8", "Bool")
    names = [
        "argparse.Namespace",
        "types.SimpleNamespace",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "_codecs.encode",  # older protocols write bytes with it
        *(f"builtins.{name}" for name in ("dict", "list", "set", "int", "float", "str")),
        *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
        *(f"numpy.dtypes.{kind}DType" for kind in kinds),
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in paths),
    ]
    return [*((_StandIn, name) for name in names), (_empty_dict, "collections.defaultdict")]


def read_safetensors(path: Path) -> Foreign:
    """All tensors of a safetensors file; WeightsError when it is not one."""
    try:
        content = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a valid safetensors file: {error}") from error
    tensors, notes = network_tensors(content, path, average=False)
    return Foreign("safetensors", tensors, notes=tuple(notes))


def read_torch(path: Path, average: bool = False) -> Foreign:
    """The state_dict in a file of torch.save, of either form, read with weights_only.

    Args:
        path: the file.
        average: take the averaged (EMA) weights of a checkpoint.

    Raises WeightsError when it is damaged, holds anything but plain data, or claims more than it holds.
    """
    misnamed = path.suffix == ".safetensors"  # torch.load looks at the ending of a path
    try:
        # A file object would take the memory for any length that the pickle of the older form declares.
        source = path if _is_plain_archive(path) and not misnamed else io.BytesIO(path.read_bytes())
        with torch.serialization.safe_globals(_plain_classes()):
            content: Any = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error type of its own for damaged or hostile files
        if isinstance(error, WeightsError | MemoryError):
            raise
        if match := _FOREIGN_CLASS.search(str(error)):
            raise WeightsError(
                f"{path} cannot be read as plain tensors (weights_only): it holds {match[1]}, "
                "which could run code; where it was made, save plain tensors: "
                "torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise WeightsError(
            f"{path} cannot be read as plain tensors (weights_only): {first_line(error)}"
        ) from error
    tensors, notes = network_tensors(content, path, average)
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise WeightsError(f"{path}: {name} is not a plain tensor")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: {name} has the shape {list(tensor.shape)}, larger than what it holds"
            )
    return Foreign("torch", tensors, notes=tuple(notes))


def _is_plain_archive(path: Path) -> bool:
    """Whether it is of the zip form; WeightsError when compressed: stored members cannot expand."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError(f"{path} is a compressed archive, which torch.save never writes")
    return True
