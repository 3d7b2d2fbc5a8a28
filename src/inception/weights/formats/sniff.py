"""What a file is by its content, and what to do about files that are no weights."""

import codecs
import re
import zipfile
from pathlib import Path
from typing import Literal

from inception.errors import WeightsError
from inception.weights.formats import sstable
from inception.weights.formats.messages import message_kind

Kind = Literal["torch", "safetensors", "hdf5", "keras", "onnx", "graph", "caffe", "checkpoint", "unknown"]

HEAD_BYTES, MOST_BYTES = 512, 8 << 30
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
PICKLE_MAGICS = tuple(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5))
_UNPACK = "unpack it and give the weights inside"
_SAVE_PLAIN = "save plain tensors where it was made"
_MAGICS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights: run `git lfs pull` beside it"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first (gunzip)"),
    (b"7z\xbc\xaf\x27\x1c", f"is a 7-Zip archive: {_UNPACK}"),
    (b"Rar!\x1a\x07", f"is a RAR archive: {_UNPACK}"),
    (b"\xfd7zXZ\x00", "is compressed with xz: unpack it first (unxz)"),
    (b"BZh", "is compressed with bzip2: unpack it first (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it first (unzstd)"),
    (b"\x93NUMPY", f"is a NumPy array, not a network's weights: {_SAVE_PLAIN}, as safetensors or .pth"),
    (b"GGUF", "is a GGUF file (quantised, of llama.cpp): give the weights that it was made from"),
    (b"%PDF", "is a PDF document, not weights"),
    (b"\x89PNG", "is an image, not weights"),
    (b"\xff\xd8\xff", "is an image, not weights"),
)
_TF_SAVED = "where it was made, save the weights: tf.keras.models.load_model(folder).save('model.keras')"
_MESSAGES = {
    "saved model": f"is a TensorFlow SavedModel, whose weights lie in variables/: {_TF_SAVED}",
    "core ml": "is a Core ML model, which is converted: give the weights that it was made from",
    "solver state": "is the state of Caffe's solver, not the weights: give the .caffemodel beside it",
}
_TEXTS = (
    (
        r"\Amodel_checkpoint_path",
        "is a list of TensorFlow checkpoints: give the .index file of the one you want",
    ),
    (
        r'"weight_map"|"total_size"',
        "is the index of weights in several files: join them into one with save_file() of safetensors",
    ),
    (r"\A<", "is XML, perhaps a server's error, not weights: download the file again"),
    (r"\A[{\[]", "is JSON, not weights: it describes a network, or is a server's error"),
    (
        r"^(?:layers?|input_param|input)\s*[:{]",
        "is Caffe's description of a network (prototxt), not weights: give the .caffemodel",
    ),
)
# Members of archives by the last parts of their names.
_MEMBERS = {
    "constants.pkl": "is a TorchScript archive, which holds code: where it was made, save plain tensors: "
    "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')",
    "saved_model.pb": f"is an archive of a TensorFlow SavedModel: {_TF_SAVED}",
    "serialized_exported_program.json": "is an exported program (torch.export), which holds code: "
    "torch.save(torch.export.load(file).state_dict, 'weights.pth')",
    "extern_modules": "is a torch.package archive, which holds code: save model.state_dict() there",
    "bundle.json": "is a bundle already: give it to `predict`, `evaluate` or `serve` as it is",
}


def kind_of(path: Path) -> Kind:
    """The kind of file that `path` is, whatever its ending; `unknown` where the content does not say.

    Raises WeightsError for a file that cannot be weights: empty, a Git LFS pointer, a web page, cut short, a
    TorchScript archive, or a packed file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(max(size - 8, 0))
            tail = stream.read(8)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MOST_BYTES:
        raise WeightsError(f"{path} has {size:,} bytes, more than a checkpoint of these networks can need")
    if len(head) == HEAD_BYTES and not head.strip(b"\0"):
        raise WeightsError(f"{path} begins with zeros, as copies do that were broken off: copy it again")
    if not size:
        raise WeightsError(f"{path} is empty (0 bytes): copy or download it again")
    _refuse(path, head)
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head.startswith(HDF5_MAGIC):
        return "hdf5"
    if head.startswith(PICKLE_MAGICS):
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return "safetensors"
    if sstable.is_table(tail):
        return "checkpoint"
    if text := _text(head):
        raise WeightsError(f"{path} {text}")
    message = message_kind(path)
    if message in _MESSAGES:
        raise WeightsError(f"{path} {_MESSAGES[message]}")
    return message if message in ("onnx", "graph", "caffe") else "unknown"


def _refuse(path: Path, head: bytes) -> None:
    """Raise WeightsError for what cannot be weights."""
    for magic, text in _MAGICS:
        if head.startswith(magic):
            raise WeightsError(f"{path} {text}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<head")):
        raise WeightsError(f"{path} is an HTML page, not weights: download the file itself, not its page")
    if head[257:262] == b"ustar":
        raise WeightsError(f"{path} is a tar archive: {_UNPACK}")
    if head[4:8] == b"TFL3":
        raise WeightsError(
            f"{path} is a TensorFlow Lite model, which is converted: give the weights that it was made from"
        )


def _text(head: bytes) -> str | None:
    """What a file of text is; None for other files."""
    try:
        decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        text = decode(head, len(head) < HEAD_BYTES).strip()
    except UnicodeDecodeError:
        return None
    if any(ord(letter) < ord(" ") and letter not in "\t\r\n\f" for letter in text):
        return None
    known = (what for pattern, what in _TEXTS if re.search(pattern, text, re.MULTILINE))
    first = text.splitlines()[0][:40] if text else ""
    return next(known, f"is text ('{first}'), not weights: download or copy the weights themselves")


def _archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is cut short or damaged (an archive without its end): copy or download it again"
        ) from error
    if "data.pkl" in names and "constants.pkl" not in names:
        return "torch"
    if "model.weights.h5" in names:
        return "keras"
    for member, text in _MEMBERS.items():
        if member in names:
            raise WeightsError(f"{path} {text}")
    if names and all(name.endswith(".npy") for name in names):
        raise WeightsError(f"{path} is NumPy's archive (.npz), whose names say no network: {_SAVE_PLAIN}")
    raise WeightsError(f"{path} is an archive without weights of PyTorch or Keras at its top: {_UNPACK}")
