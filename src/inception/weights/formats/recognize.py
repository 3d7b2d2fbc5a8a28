"""From a path to the reader that fits it: by what the file begins or ends with, then by its name."""

from collections.abc import Callable
from pathlib import Path

from inception.errors import UsageError
from inception.weights.formats import tensorflow
from inception.weights.formats.caffe import read_caffe
from inception.weights.formats.foreign import Foreign
from inception.weights.formats.keras import read_keras
from inception.weights.formats.onnx import read_onnx
from inception.weights.formats.sniff import kind_of
from inception.weights.formats.torch_files import read_safetensors, read_torch

READERS: dict[str, Callable[[Path], Foreign]] = {
    ".safetensors": read_safetensors,
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
    ".h5": read_keras,
    ".hdf5": read_keras,
    ".keras": read_keras,
    ".pb": tensorflow.read_graph,
    ".caffemodel": read_caffe,
    ".onnx": read_onnx,
    ".ckpt": tensorflow.read_checkpoint,
    ".index": tensorflow.read_checkpoint,
}
BY_CONTENT: dict[str, Callable[[Path], Foreign]] = {
    "torch": read_torch,
    "safetensors": read_safetensors,
    "hdf5": read_keras,
    "keras": read_keras,
    "onnx": read_onnx,
    "graph": tensorflow.read_graph,
    "caffe": read_caffe,
    "checkpoint": tensorflow.read_checkpoint,
}


def read_foreign(path: Path, ema: bool = False) -> Foreign:
    """The tensors of a weights file of any known format; `ema`: the averaged ones of a PyTorch checkpoint.

    Raises UsageError when there is no such file or its kind is not known, WeightsError when it is damaged.
    """
    if tensorflow.checkpoint_prefix(path) is not None:
        return tensorflow.read_checkpoint(path)
    if path.is_dir():
        raise UsageError(_folder(path))
    if not path.is_file():
        raise UsageError(f"there is no weights file at {path}")
    reader = BY_CONTENT.get(kind_of(path)) or READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise UsageError(f"{path.suffix or path} files are not read; give one of {known}, or a checkpoint")
    if ema and reader is not read_torch:
        raise UsageError(f"{path} is no PyTorch checkpoint: --ema takes averaged weights only of these")
    return read_torch(path, ema) if reader is read_torch else reader(path)


def _folder(path: Path) -> str:
    """What a folder is that was given in place of a file."""
    names = sorted(one.name for one in path.iterdir())
    if "bundle.json" in names:
        return f"{path} is a bundle already: give it to `predict`, `evaluate` or `serve` as it is"
    if "saved_model.pb" in names:
        return (
            f"{path} is a TensorFlow SavedModel: where it was made, save the weights: "
            "tf.keras.models.load_model(folder).save('model.keras')"
        )
    if any(name.endswith(".distcp") for name in names):
        return (
            f"{path} is a checkpoint of several processes: join it first: "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth"
        )
    weights = [name for name in names if name.lower().endswith((*READERS, ".tar"))]
    inside = f"give one of those in it: {', '.join(weights[:4])}" if weights else "there are no weights in it"
    return f"{path} is a folder, not a weights file: {inside}"


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights at `path`: itself, or all of a checkpoint's."""
    prefix = tensorflow.checkpoint_prefix(path)
    if prefix is None:
        return [path]
    return [
        prefix.with_name(f"{prefix.name}.index"),
        *sorted(prefix.parent.glob(f"{_literal(prefix.name)}.data-*-of-*")),
    ]


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
