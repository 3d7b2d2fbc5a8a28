"""Tables that say under which name another tool keeps each of our tensors, and in which layout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
AUX_OF_HEAD = {"head0": "aux1", "head1": "aux2"}


@dataclass(frozen=True)
class KeyMap:
    """How to read one file format.

    Attributes:
        names: our tensor name -> theirs.
        convert: brings a tensor of theirs to the layout of ours (shape of ours given).
    """

    names: Mapping[str, str]
    convert: Callable[[Tensor, Tensor], Tensor]


def same_layout(theirs: Tensor, ours: Tensor) -> Tensor:
    """PyTorch's own layout: nothing to do."""
    return theirs


def from_output_height_width_input(theirs: Tensor, ours: Tensor) -> Tensor:
    """Convolution weights O x H x W x I to O x I x H x W, and 1x1 convolutions to linear layers."""
    if theirs.dim() == 4:
        theirs = theirs.permute(0, 3, 1, 2)
        if ours.dim() == 2 and theirs.shape[2:] == (1, 1):
            theirs = theirs.flatten(1)
    return theirs


def _inception5h_layers() -> dict[str, str]:
    layers = {"conv1.conv": "conv2d0", "conv2.conv": "conv2d1", "conv3.conv": "conv2d2", "fc": "softmax2"}
    branches = {
        "b1x1": "1x1",
        "b3x3_reduce": "3x3_bottleneck",
        "b3x3": "3x3",
        "b5x5_reduce": "5x5_bottleneck",
        "b5x5": "5x5",
        "pool_proj": "pool_reduce",
    }
    for module in MODULES:
        for ours, theirs in branches.items():
            layers[f"inception{module}.{ours}.conv"] = f"mixed{module}_{theirs}"
    for index, (head, aux) in enumerate(AUX_OF_HEAD.items()):
        layers |= {
            f"{aux}.conv.conv": f"{head}_bottleneck",
            f"{aux}.fc1": f"nn{index}",
            f"{aux}.fc2": f"softmax{index}",
        }
    return layers


INCEPTION5H = KeyMap(
    names={
        f"{ours}.{kind}": f"{theirs}_{kind[0]}"
        for ours, theirs in _inception5h_layers().items()
        for kind in ("weight", "bias")
    },
    convert=from_output_height_width_input,
)


def choose_key_map(file_names: set[str], our_names: set[str]) -> KeyMap:
    """The map that fits a file, recognised by its tensor names: inception5h's, or our own names."""
    if "mixed3a_1x1_w" in file_names:
        return INCEPTION5H
    return KeyMap(names={name: name for name in our_names}, convert=same_layout)
