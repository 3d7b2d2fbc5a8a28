"""Inception-v3's weights at torchvision, timm, Keras, TF-slim, and in Google's graph of December 2015."""

from inception.data.preprocess import Preprocess
from inception.weights.sources.source import (
    KERAS,
    NO_GAMMA,
    SLIM_299,
    TENSORFLOW_FORMATS,
    TIMM_299,
    TORCH_BLOCKS,
    TORCHVISION_299,
    TRANSFORM_INPUT,
    Roles,
    Source,
    onnx_source,
    slim_roles,
)

# ours, which are torchvision's | TF-slim | the graph of 2015
_OUTSIDE = (
    ("Conv2d_1a_3x3", "Conv2d_1a_3x3", "conv"),
    ("Conv2d_2a_3x3", "Conv2d_2a_3x3", "conv_1"),
    ("Conv2d_2b_3x3", "Conv2d_2b_3x3", "conv_2"),
    ("Conv2d_3b_1x1", "Conv2d_3b_1x1", "conv_3"),
    ("Conv2d_4a_3x3", "Conv2d_4a_3x3", "conv_4"),
    ("aux1.conv0", "AuxLogits/Conv2d_1b_1x1", None),
    ("aux1.conv1", "AuxLogits/Conv2d_2a_5x5", None),
    ("aux1.fc", "AuxLogits/Conv2d_2b_1x1", None),
    ("fc", "Logits/Conv2d_1c_1x1", "softmax"),
)
_BRANCHES_35 = (
    ("branch1x1", "Branch_0/Conv2d_0a_1x1", "conv"),
    ("branch5x5_1", "Branch_1/Conv2d_0a_1x1", "tower/conv"),
    ("branch5x5_2", "Branch_1/Conv2d_0b_5x5", "tower/conv_1"),
    ("branch3x3dbl_1", "Branch_2/Conv2d_0a_1x1", "tower_1/conv"),
    ("branch3x3dbl_2", "Branch_2/Conv2d_0b_3x3", "tower_1/conv_1"),
    ("branch3x3dbl_3", "Branch_2/Conv2d_0c_3x3", "tower_1/conv_2"),
    ("branch_pool", "Branch_3/Conv2d_0b_1x1", "tower_2/conv"),
)
_REDUCTION_35 = (
    ("branch3x3", "Branch_0/Conv2d_1a_1x1", "conv"),
    ("branch3x3dbl_1", "Branch_1/Conv2d_0a_1x1", "tower/conv"),
    ("branch3x3dbl_2", "Branch_1/Conv2d_0b_3x3", "tower/conv_1"),
    ("branch3x3dbl_3", "Branch_1/Conv2d_1a_1x1", "tower/conv_2"),
)
_BRANCHES_17 = (
    ("branch1x1", "Branch_0/Conv2d_0a_1x1", "conv"),
    ("branch7x7_1", "Branch_1/Conv2d_0a_1x1", "tower/conv"),
    ("branch7x7_2", "Branch_1/Conv2d_0b_1x7", "tower/conv_1"),
    ("branch7x7_3", "Branch_1/Conv2d_0c_7x1", "tower/conv_2"),
    ("branch7x7dbl_1", "Branch_2/Conv2d_0a_1x1", "tower_1/conv"),
    ("branch7x7dbl_2", "Branch_2/Conv2d_0b_7x1", "tower_1/conv_1"),
    ("branch7x7dbl_3", "Branch_2/Conv2d_0c_1x7", "tower_1/conv_2"),
    ("branch7x7dbl_4", "Branch_2/Conv2d_0d_7x1", "tower_1/conv_3"),
    ("branch7x7dbl_5", "Branch_2/Conv2d_0e_1x7", "tower_1/conv_4"),
    ("branch_pool", "Branch_3/Conv2d_0b_1x1", "tower_2/conv"),
)
_REDUCTION_17 = (
    ("branch3x3_1", "Branch_0/Conv2d_0a_1x1", "tower/conv"),
    ("branch3x3_2", "Branch_0/Conv2d_1a_3x3", "tower/conv_1"),
    ("branch7x7x3_1", "Branch_1/Conv2d_0a_1x1", "tower_1/conv"),
    ("branch7x7x3_2", "Branch_1/Conv2d_0b_1x7", "tower_1/conv_1"),
    ("branch7x7x3_3", "Branch_1/Conv2d_0c_7x1", "tower_1/conv_2"),
    ("branch7x7x3_4", "Branch_1/Conv2d_1a_3x3", "tower_1/conv_3"),
)
_BRANCHES_8 = (
    ("branch1x1", "Branch_0/Conv2d_0a_1x1", "conv"),
    ("branch3x3_1", "Branch_1/Conv2d_0a_1x1", "tower/conv"),
    ("branch3x3_2a", "Branch_1/Conv2d_0b_1x3", "tower/mixed/conv"),
    ("branch3x3_2b", "Branch_1/Conv2d_0c_3x1", "tower/mixed/conv_1"),
    ("branch3x3dbl_1", "Branch_2/Conv2d_0a_1x1", "tower_1/conv"),
    ("branch3x3dbl_2", "Branch_2/Conv2d_0b_3x3", "tower_1/conv_1"),
    ("branch3x3dbl_3a", "Branch_2/Conv2d_0c_1x3", "tower_1/mixed/conv"),
    ("branch3x3dbl_3b", "Branch_2/Conv2d_0d_3x1", "tower_1/mixed/conv_1"),
    ("branch_pool", "Branch_3/Conv2d_0b_1x1", "tower_2/conv"),
)
_MODULES = (
    ("Mixed_5b", "mixed", _BRANCHES_35),
    ("Mixed_5c", "mixed_1", _BRANCHES_35),
    ("Mixed_5d", "mixed_2", _BRANCHES_35),
    ("Mixed_6a", "mixed_3", _REDUCTION_35),
    ("Mixed_6b", "mixed_4", _BRANCHES_17),
    ("Mixed_6c", "mixed_5", _BRANCHES_17),
    ("Mixed_6d", "mixed_6", _BRANCHES_17),
    ("Mixed_6e", "mixed_7", _BRANCHES_17),
    ("Mixed_7a", "mixed_8", _REDUCTION_17),
    ("Mixed_7b", "mixed_9", _BRANCHES_8),
    ("Mixed_7c", "mixed_10", _BRANCHES_8),
)
# Slips in TF-slim's inception_v3.py, kept for the checkpoint's sake.
_SLIM_EXCEPTIONS = {
    "Mixed_5c.branch5x5_1": "Mixed_5c/Branch_1/Conv2d_0b_1x1",
    "Mixed_5c.branch5x5_2": "Mixed_5c/Branch_1/Conv_1_0c_5x5",
    "Mixed_7b.branch3x3_2b": "Mixed_7b/Branch_1/Conv2d_0b_3x1",
}
SLIM_LAYERS = {
    **{ours: slim for ours, slim, _ in _OUTSIDE},
    **{
        f"{module}.{ours}": f"{module}/{slim}"
        for module, _, branches in _MODULES
        for ours, slim, _ in branches
    },
    **_SLIM_EXCEPTIONS,
}
GRAPH_LAYERS = {ours: graph for ours, _, graph in _OUTSIDE if graph} | {
    f"{module}.{ours}": f"{mixed}/{graph}"
    for module, mixed, branches in _MODULES
    for ours, _, graph in branches
}
# Keras names no layer: convolutions and normalisations are counted in the order of the computation.
_COMPUTED = [
    *(ours for ours, _, _ in _OUTSIDE if ours.startswith("Conv2d")),
    *(f"{module}.{ours}" for module, _, branches in _MODULES for ours, _, _ in branches),
]
KERAS_LAYERS = {
    **{name: f"conv2d_{number}" for number, name in enumerate(_COMPUTED)},
    **{f"{name}.bn": f"batch_normalization_{number}" for number, name in enumerate(_COMPUTED)},
    "fc": "predictions",
}
TORCHVISION_LAYERS = {f"aux1.{name}": f"AuxLogits.{name}" for name in ("conv0", "conv1", "fc")}

GRAPH_2015: Roles = {
    "conv.weight": ("{}/conv2d_params",),
    "bn.weight": ("{}/batchnorm/gamma",),
    "bn.bias": ("{}/batchnorm/beta",),
    "bn.running_mean": ("{}/batchnorm/moving_mean",),
    "bn.running_var": ("{}/batchnorm/moving_variance",),
    "weight": ("{}/weights",),
    "bias": ("{}/biases",),
}
# The graph itself decodes, resizes to 299 x 299 whatever the aspect ratio, and takes (x - 128) / 128.
GRAPH_299 = Preprocess(299, 299, resize="squash", value_range=255.0, mean=(128.0,) * 3, std=(128.0,) * 3)
NO_BORDER_COUNT = {"count_include_pad": False}

SOURCES = {
    "inception_v3": (
        Source(
            "torchvision",
            ("torch",),
            TORCH_BLOCKS,
            TORCHVISION_299,
            layers=TORCHVISION_LAYERS,
            background=False,
            preprocess_note=TRANSFORM_INPUT,
        ),
        Source("timm", ("safetensors",), TORCH_BLOCKS, TIMM_299, layers=TORCHVISION_LAYERS, background=False),
        Source(
            "keras",
            ("keras",),
            KERAS,
            SLIM_299,
            layers=KERAS_LAYERS,
            layout="tensorflow",
            arguments=NO_BORDER_COUNT,
            defaults=NO_GAMMA,
            background=False,
        ),
        Source(
            "slim",
            TENSORFLOW_FORMATS,
            slim_roles("InceptionV3"),
            SLIM_299,
            layers=SLIM_LAYERS,
            layout="tensorflow",
            arguments=NO_BORDER_COUNT,
            defaults=NO_GAMMA,
        ),
        Source(
            "tensorflow",
            ("graph",),
            GRAPH_2015,
            GRAPH_299,
            layers=GRAPH_LAYERS,
            layout="tensorflow",
            arguments=NO_BORDER_COUNT,
            imagenet_order=False,
            note="in Google's graph of 2015 the last module pools by maximum, here by average: logits differ",
        ),
        onnx_source(preprocess=TORCHVISION_299),
    ),
}
