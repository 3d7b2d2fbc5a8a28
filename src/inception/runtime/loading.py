"""From a bundle's path to something that answers. PyTorch is imported only where the plan needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from inception.runtime.session import open_planned

if TYPE_CHECKING:
    from inception.runtime.classifier import Classifier


def load(path: str | Path, device: str = "auto", precision: str = "float32") -> "Classifier":
    """Open the bundle at `path` (folder or `.zip`) as a classifier.

    Args:
        path: where `train`, `import` or `optimize` left it.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device name.
        precision: `float32`, `bfloat16`, or `auto` (bfloat16 where the machine gains from it).

    An optimised bundle answers by its plan (a `Session`, which has the same interface) unless another device
    or precision is asked for. Where the plan's engine is not installed, PyTorch answers in float32, and a
    warning says so.
    """
    planned = open_planned(Path(path), device, precision)
    if planned is not None:
        # It has the interface of `Classifier` without being one: that class needs PyTorch.
        return cast("Classifier", planned)
    from inception.runtime.classifier import Classifier
    from inception.weights.bundle import load_bundle

    return Classifier(load_bundle(path), device, precision)
