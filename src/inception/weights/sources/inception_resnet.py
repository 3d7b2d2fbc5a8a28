"""Inception-ResNet-v2's weights at timm, Cadene, Keras and TF-slim."""

from dataclasses import replace

from inception.weights.sources.source import (
    KERAS,
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
_STEM = (
    ("Conv2d_1a_3x3", "conv2d_1a", "Conv2d_1a_3x3"),
    ("Conv2d_2a_3x3", "conv2d_2a", "Conv2d_2a_3x3"),
    ("Conv2d_2b_3x3", "conv2d_2b", "Conv2d_2b_3x3"),
    ("Conv2d_3b_1x1", "conv2d_3b", "Conv2d_3b_1x1"),
    ("Conv2d_4a_3x3", "conv2d_4a", "Conv2d_4a_3x3"),
)
_HEADS = (
    ("Conv2d_7b_1x1", "conv2d_7b", "Conv2d_7b_1x1"),
    ("aux1.conv0", None, "AuxLogits/Conv2d_1b_1x1"),
    ("aux1.conv1", None, "AuxLogits/Conv2d_2a_5x5"),
    ("aux1.fc", None, "AuxLogits/Logits"),
    ("fc", "classif", "Logits/Logits"),
)
_MIXED_5B = (
    ("branch0", "branch0", "Branch_0/Conv2d_1x1"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_5x5"),
    ("branch2_0", "branch2.0", "Branch_2/Conv2d_0a_1x1"),
    ("branch2_1", "branch2.1", "Branch_2/Conv2d_0b_3x3"),
    ("branch2_2", "branch2.2", "Branch_2/Conv2d_0c_3x3"),
    ("branch3_1", "branch3.1", "Branch_3/Conv2d_0b_1x1"),
)
_MIXED_6A = (
    ("branch0", "branch0", "Branch_0/Conv2d_1a_3x3"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_0b_3x3"),
    ("branch1_2", "branch1.2", "Branch_1/Conv2d_1a_3x3"),
)
_MIXED_7A = (
    ("branch0_0", "branch0.0", "Branch_0/Conv2d_0a_1x1"),
    ("branch0_1", "branch0.1", "Branch_0/Conv2d_1a_3x3"),
    ("branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch1_1", "branch1.1", "Branch_1/Conv2d_1a_3x3"),
    ("branch2_0", "branch2.0", "Branch_2/Conv2d_0a_1x1"),
    ("branch2_1", "branch2.1", "Branch_2/Conv2d_0b_3x3"),
    ("branch2_2", "branch2.2", "Branch_2/Conv2d_1a_3x3"),
)
_BLOCK_35 = (
    ("branches.branch0", "branch0", "Branch_0/Conv2d_1x1"),
    ("branches.branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branches.branch1_1", "branch1.1", "Branch_1/Conv2d_0b_3x3"),
    ("branches.branch2_0", "branch2.0", "Branch_2/Conv2d_0a_1x1"),
    ("branches.branch2_1", "branch2.1", "Branch_2/Conv2d_0b_3x3"),
    ("branches.branch2_2", "branch2.2", "Branch_2/Conv2d_0c_3x3"),
    ("up", "conv2d", "Conv2d_1x1"),
)
_BLOCK_17 = (
    ("branches.branch0", "branch0", "Branch_0/Conv2d_1x1"),
    ("branches.branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branches.branch1_1", "branch1.1", "Branch_1/Conv2d_0b_1x7"),
    ("branches.branch1_2", "branch1.2", "Branch_1/Conv2d_0c_7x1"),
    ("up", "conv2d", "Conv2d_1x1"),
)
_BLOCK_8 = (
    ("branches.branch0", "branch0", "Branch_0/Conv2d_1x1"),
    ("branches.branch1_0", "branch1.0", "Branch_1/Conv2d_0a_1x1"),
    ("branches.branch1_1", "branch1.1", "Branch_1/Conv2d_0b_1x3"),
    ("branches.branch1_2", "branch1.2", "Branch_1/Conv2d_0c_3x1"),
    ("up", "conv2d", "Conv2d_1x1"),
)
# ours | timm | TF-slim | Keras's name of the convolution at the block's end | branches, in the order of the
# computation
_MODULES = (
    ("Mixed_5b", "mixed_5b", "Mixed_5b", None, _MIXED_5B),
    *(
        (f"Block35.{n}", f"repeat.{n}", f"Repeat/block35_{n + 1}", f"block35_{n + 1}_conv", _BLOCK_35)
        for n in range(10)
    ),
    ("Mixed_6a", "mixed_6a", "Mixed_6a", None, _MIXED_6A),
    *(
        (
            f"PreAuxLogits.{n}",
            f"repeat_1.{n}",
            f"Repeat_1/block17_{n + 1}",
            f"block17_{n + 1}_conv",
            _BLOCK_17,
        )
        for n in range(20)
    ),
    ("Mixed_7a", "mixed_7a", "Mixed_7a", None, _MIXED_7A),
    *(
        (f"Block8.{n}", f"repeat_2.{n}", f"Repeat_2/block8_{n + 1}", f"block8_{n + 1}_conv", _BLOCK_8)
        for n in range(9)
    ),
    ("Block8.9", "block8", "Block8", "block8_10_conv", _BLOCK_8),
)
_ROWS = (
    *_STEM,
    *(
        (f"{module}.{ours}", f"{timm_module}.{timm}", f"{scope}/{slim}")
        for module, timm_module, scope, _, branches in _MODULES
        for ours, timm, slim in branches
    ),
    *_HEADS,
)
TIMM_LAYERS = {ours: timm for ours, timm, _ in _ROWS if timm}
SLIM_LAYERS = {ours: slim for ours, _, slim in _ROWS}
# Keras names the convolutions at the ends of blocks and counts all others in the order of the computation.
_COUNTED = [
    *(ours for ours, _, _ in _STEM),
    *(
        f"{module}.{ours}"
        for module, _, _, _, branches in _MODULES
        for ours, _, _ in branches
        if ours != "up"
    ),
]
KERAS_LAYERS = {
    **{name: f"conv2d_{number}" for number, name in enumerate(_COUNTED)},
    **{f"{name}.bn": f"batch_normalization_{number}" for number, name in enumerate(_COUNTED)},
    **{f"{module}.up": name for module, _, _, name, _ in _MODULES if name},
    "Conv2d_7b_1x1": "conv_7b",
    "Conv2d_7b_1x1.bn": "conv_7b_bn",
    "fc": "predictions",
}

SOURCES = {
    "inception_resnet_v2": (
        # Cadene's files have the same names but for the classifier, and 1001 outputs.
        Source(
            "timm",
            TORCH_FORMATS,
            TORCH_BLOCKS,
            replace(TIMM_299, crop_fraction=0.8975),
            layers=TIMM_LAYERS,
        ),
        Source(
            "cadene",
            TORCH_FORMATS,
            TORCH_BLOCKS,
            replace(TIMM_299, crop_fraction=0.8975),
            layers={**TIMM_LAYERS, "fc": "last_linear"},
        ),
        Source(
            "keras",
            ("keras",),
            KERAS,
            SLIM_299,
            layers=KERAS_LAYERS,
            layout="tensorflow",
            defaults=NO_GAMMA,
            background=False,
        ),
        Source(
            "slim",
            TENSORFLOW_FORMATS,
            slim_roles("InceptionResnetV2"),
            SLIM_299,
            layers=SLIM_LAYERS,
            layout="tensorflow",
            defaults=NO_GAMMA,
        ),
        onnx_source(preprocess=replace(TIMM_299, crop_fraction=0.8975)),
    ),
}
