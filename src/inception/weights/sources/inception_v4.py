"""Inception-v4's weights at timm, Cadene and TF-slim."""

from inception.weights.sources.source import (
    NO_GAMMA,
    SLIM_299,
    TENSORFLOW_FORMATS,
    TIMM_299,
    TORCH_BLOCKS,
    TORCH_FORMATS,
    Source,
    onnx_source,
    slim_roles,
)

# ours | timm | TF-slim
_OUTSIDE = (
    ("Conv2d_1a_3x3", "features.0", "Conv2d_1a_3x3"),
    ("Conv2d_2a_3x3", "features.1", "Conv2d_2a_3x3"),
    ("Conv2d_2b_3x3", "features.2", "Conv2d_2b_3x3"),
    ("Mixed_3a.branch1", "features.3.conv", "Mixed_3a/Branch_1/Conv2d_0a_3x3"),
    ("Mixed_5a.branch0", "features.5.conv", "Mixed_5a/Branch_0/Conv2d_1a_3x3"),
    ("aux1.conv0", None, "AuxLogits/Conv2d_1b_1x1"),
    ("aux1.conv1", None, "AuxLogits/Conv2d_2a"),
    ("aux1.fc", None, "AuxLogits/Aux_logits"),
    ("fc", "last_linear", "Logits/Logits"),
)
_MIXED_4A = (
    ("branch0_0", "branch0.0", "Branch_0/Conv2d_0a_1x1"),
    ("branch0_1", "branch0.1", "Branch_0/Conv2d_1a_3x3"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_1x7"),
    ("branch1_2", "branch1.2", "Branch_1/Conv2d_0c_7x1"),
    ("branch1_3", "branch1.3", "Branch_1/Conv2d_1a_3x3"),
)
_BLOCK_A = (
    ("branch0", "branch0", "Branch_0/Conv2d_0a_1x1"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_3x3"),
    ("branch2_0", "branch2.0", "Branch_2/Conv2d_0a_1x1"),
    ("branch2_1", "branch2.1", "Branch_2/Conv2d_0b_3x3"),
    ("branch2_2", "branch2.2", "Branch_2/Conv2d_0c_3x3"),
    ("branch3_1", "branch3.1", "Branch_3/Conv2d_0b_1x1"),
)
_REDUCTION_A = (
    ("branch0", "branch0", "Branch_0/Conv2d_1a_3x3"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_3x3"),
    ("branch1_2", "branch1.2", "Branch_1/Conv2d_1a_3x3"),
)
_BLOCK_B = (
    ("branch0", "branch0", "Branch_0/Conv2d_0a_1x1"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_1x7"),
    ("branch1_2", "branch1.2", "Branch_1/Conv2d_0c_7x1"),
    ("branch2_0", "branch2.0", "Branch_2/Conv2d_0a_1x1"),
    ("branch2_1", "branch2.1", "Branch_2/Conv2d_0b_7x1"),
    ("branch2_2", "branch2.2", "Branch_2/Conv2d_0c_1x7"),
    ("branch2_3", "branch2.3", "Branch_2/Conv2d_0d_7x1"),
    ("branch2_4", "branch2.4", "Branch_2/Conv2d_0e_1x7"),
    ("branch3_1", "branch3.1", "Branch_3/Conv2d_0b_1x1"),
)
_REDUCTION_B = (
    ("branch0_0", "branch0.0", "Branch_0/Conv2d_0a_1x1"),
    ("branch0_1", "branch0.1", "Branch_0/Conv2d_1a_3x3"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_1x7"),
    ("branch1_2", "branch1.2", "Branch_1/Conv2d_0c_7x1"),
    ("branch1_3", "branch1.3", "Branch_1/Conv2d_1a_3x3"),
)
_BLOCK_C = (
    ("branch0", "branch0", "Branch_0/Conv2d_0a_1x1"),
    ("branch1_0", "branch1_0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1a", "branch1_1a", "Branch_1/Conv2d_0b_1x3"),
    ("branch1_1b", "branch1_1b", "Branch_1/Conv2d_0c_3x1"),
    ("branch2_0", "branch2_0", "Branch_2/Conv2d_0a_1x1"),
    ("branch2_1", "branch2_1", "Branch_2/Conv2d_0b_3x1"),
    ("branch2_2", "branch2_2", "Branch_2/Conv2d_0c_1x3"),
    ("branch2_3a", "branch2_3a", "Branch_2/Conv2d_0d_1x3"),
    ("branch2_3b", "branch2_3b", "Branch_2/Conv2d_0e_3x1"),
    ("branch3_1", "branch3.1", "Branch_3/Conv2d_0b_1x1"),
)
_MODULES = (
    ("Mixed_4a", 4, _MIXED_4A),
    *((f"Mixed_5{letter}", 6 + number, _BLOCK_A) for number, letter in enumerate("bcde")),
    ("Mixed_6a", 10, _REDUCTION_A),
    *((f"Mixed_6{letter}", 11 + number, _BLOCK_B) for number, letter in enumerate("bcdefgh")),
    ("Mixed_7a", 18, _REDUCTION_B),
    *((f"Mixed_7{letter}", 19 + number, _BLOCK_C) for number, letter in enumerate("bcd")),
)
TIMM_LAYERS = {ours: timm for ours, timm, _ in _OUTSIDE if timm} | {
    f"{module}.{ours}": f"features.{number}.{timm}"
    for module, number, branches in _MODULES
    for ours, timm, _ in branches
}
SLIM_LAYERS = {ours: slim for ours, _, slim in _OUTSIDE} | {
    f"{module}.{ours}": f"{module}/{slim}" for module, _, branches in _MODULES for ours, _, slim in branches
}

SOURCES = {
    "inception_v4": (
        # Cadene's files have the same names, and 1001 outputs.
        Source("timm", TORCH_FORMATS, TORCH_BLOCKS, TIMM_299, layers=TIMM_LAYERS),
        Source(
            "slim",
            TENSORFLOW_FORMATS,
            slim_roles("InceptionV4"),
            SLIM_299,
            layers=SLIM_LAYERS,
            layout="tensorflow",
            defaults=NO_GAMMA,
        ),
        onnx_source(preprocess=TIMM_299),
    ),
}
