"""What a file is by its content, and what to do about files that are no weights."""

import zipfile
from pathlib import Path
from typing import Literal

from inception.errors import WeightsError
from inception.weights.formats import sstable

Kind = Literal["torch", "safetensors", "hdf5", "keras", "onnx", "checkpoint", "unknown"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
PICKLE_MAGIC = b"\x80\x02"
_REFUSED = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights: run `git lfs pull` beside it"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first (gunzip)"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive: unpack it first"),
)


def kind_of(path: Path) -> Kind:
    """The kind of file that `path` is, whatever its ending; `unknown` where the content does not say.

    Raises WeightsError for a file that cannot be weights: empty, a Git LFS pointer, a web page, cut short, a
    TorchScript archive, or a packed file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
            stream.seek(max(size - 8, 0))
            tail = stream.read(8)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if not size:
        raise WeightsError(f"{path} is empty (0 bytes): copy or download it again")
    for magic, text in _REFUSED:
        if head.startswith(magic):
            raise WeightsError(f"{path} {text}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<head")):
        raise WeightsError(f"{path} is an HTML page, not weights: download the file itself, not its page")
    if head[257:262] == b"ustar":
        raise WeightsError(f"{path} is a tar archive: unpack it and give the weights inside")
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head.startswith(HDF5_MAGIC):
        return "hdf5"
    if head.startswith(PICKLE_MAGIC):
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return "safetensors"
    if sstable.is_table(tail):
        return "checkpoint"
    return "onnx" if head[:1] == b"\x08" and path.suffix.lower() in (".pth", ".pt", ".bin", "") else "unknown"


def _archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is cut short or damaged (an archive without its end): copy or download it again"
        ) from error
    if "constants.pkl" in names:
        raise WeightsError(
            f"{path} is a TorchScript archive, which holds code: where it was made, save plain tensors: "
            "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')"
        )
    if "data.pkl" in names:
        return "torch"
    return "keras" if "model.weights.h5" in names else "unknown"
