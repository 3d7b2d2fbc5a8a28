"""Names in torchvision's and timm's files, as substitutions on ours, in the order they are made."""

import re
from collections.abc import Mapping

from inception.nets.classics import ALEXNET_TV, ARCHITECTURES, VGG_DEPTHS
from inception.nets.inception_v4 import TABLE as V4_TABLE
from inception.nets.rows import Conv, Row

Substitutions = tuple[tuple[str, str], ...]

# torchvision and timm.
INCEPTION_V3: Substitutions = ((r"^aux1\.", "AuxLogits."),)

# timm, and Cadene's files before it.
INCEPTION_V4: Substitutions = (
    (r"^Mixed_3a\.branch1\.", "Mixed_3a.conv."),
    (r"^Mixed_5a\.branch0\.", "Mixed_5a.conv."),
    (r"^(Mixed_[4-6]\w|Mixed_7a)\.branch(\d)_(\d)\.", r"\1.branch\2.\3."),
    (r"\.branch3_1\.", ".branch3.1."),
    *((rf"^{row.name}\.", f"features.{index}.") for index, row in enumerate(V4_TABLE)),
    (r"^fc\.", "last_linear."),
)
INCEPTION_RESNET_V2: Substitutions = (
    (r"^Conv2d_(\d\w)_\dx\d\.", r"conv2d_\1."),
    (r"^Mixed_", "mixed_"),
    (r"^Block35\.", "repeat."),
    (r"^PreAuxLogits\.", "repeat_1."),
    (r"^Block8\.9\.", "block8."),
    (r"^Block8\.", "repeat_2."),
    (r"\.branches\.", "."),
    (r"\.up\.", ".conv2d."),
    (r"\.branch(\d)_(\d)\.", r".branch\1.\2."),
    (r"^fc\.", "classif."),
)


def _sequential(rows: tuple[Row, ...], linears: tuple[int, int, int], batch_norm: bool) -> Substitutions:
    """torchvision's `features` and `classifier`: every layer has a number, ReLU and dropout too."""
    numbered: list[tuple[str, str]] = []
    index = 0
    for row in rows:
        if isinstance(row, Conv):
            numbered.append((rf"^{row.name}\.conv\.", f"features.{index}."))
            numbered.append((rf"^{row.name}\.bn\.", f"features.{index + 1}."))
            index += 2 + batch_norm
        else:
            index += 1
    names = ("head.linear1", "head.linear2", "fc")
    heads = ((rf"^{name}\.", f"classifier.{number}.") for name, number in zip(names, linears, strict=True))
    return (*numbered, *heads)


# torchvision.
PEERS: Mapping[str, Substitutions] = {
    "inception_v3": INCEPTION_V3,
    "inception_v4": INCEPTION_V4,
    "inception_resnet_v2": INCEPTION_RESNET_V2,
    "alexnet_tv": _sequential(ALEXNET_TV.rows, (1, 4, 6), batch_norm=False),
    **{
        f"{name}{suffix}": _sequential(ARCHITECTURES[name].rows, (0, 3, 6), batch_norm=bool(suffix))
        for name in VGG_DEPTHS
        for suffix in ("", "_bn")
    },
}


def peer_name(ours: str, substitutions: Substitutions) -> str:
    """Their name of the tensor that we call `ours`."""
    for pattern, replacement in substitutions:
        ours = re.sub(pattern, replacement, ours)
    return ours
