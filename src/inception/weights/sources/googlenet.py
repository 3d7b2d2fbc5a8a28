"""GoogLeNet's weights at Google (inception5h), Caffe, torchvision and TF-slim."""

from inception.data.preprocess import Preprocess
from inception.weights.sources.source import (
    CAFFE,
    CAFFE_224,
    CAFFE_FORMATS,
    HALF,
    NO_BIAS,
    NO_GAMMA,
    SLIM_224,
    TENSORFLOW_FORMATS,
    TORCH_BLOCKS,
    TORCH_FORMATS,
    TRANSFORM_INPUT,
    Roles,
    Source,
    onnx_source,
    slim_roles,
)

# ours | Caffe | inception5h
_OUTSIDE = (
    ("conv1", "conv1/7x7_s2", "conv2d0"),
    ("conv2", "conv2/3x3_reduce", "conv2d1"),
    ("conv3", "conv2/3x3", "conv2d2"),
    ("aux1.conv", "loss1/conv", "head0_bottleneck"),
    ("aux1.fc1", "loss1/fc", "nn0"),
    ("aux1.fc2", "loss1/classifier", "softmax0"),
    ("aux2.conv", "loss2/conv", "head1_bottleneck"),
    ("aux2.fc1", "loss2/fc", "nn1"),
    ("aux2.fc2", "loss2/classifier", "softmax1"),
    ("fc", "loss3/classifier", "softmax2"),
)
_BRANCHES = (
    ("b1x1", "1x1", "1x1"),
    ("b3x3_reduce", "3x3_reduce", "3x3_bottleneck"),
    ("b3x3", "3x3", "3x3"),
    ("b5x5_reduce", "5x5_reduce", "5x5_bottleneck"),
    ("b5x5", "5x5", "5x5"),
    ("pool_proj", "pool_proj", "pool_reduce"),
)
# ours | TF-slim
_SLIM_OUTSIDE = (
    ("conv1", "Conv2d_1a_7x7"),
    ("conv2", "Conv2d_2b_1x1"),
    ("conv3", "Conv2d_2c_3x3"),
    ("fc", "Logits/Conv2d_0c_1x1"),
)
_SLIM_MODULES = (
    ("inception3a", "Mixed_3b"),
    ("inception3b", "Mixed_3c"),
    ("inception4a", "Mixed_4b"),
    ("inception4b", "Mixed_4c"),
    ("inception4c", "Mixed_4d"),
    ("inception4d", "Mixed_4e"),
    ("inception4e", "Mixed_4f"),
    ("inception5a", "Mixed_5b"),
    ("inception5b", "Mixed_5c"),
)
_SLIM_BRANCHES = (
    ("branch1", "Branch_0/Conv2d_0a_1x1"),
    ("branch2.0", "Branch_1/Conv2d_0a_1x1"),
    ("branch2.1", "Branch_1/Conv2d_0b_3x3"),
    ("branch3.0", "Branch_2/Conv2d_0a_1x1"),
    ("branch3.1", "Branch_2/Conv2d_0b_3x3"),
    ("branch4.1", "Branch_3/Conv2d_0b_1x1"),
)
# A slip in TF-slim's inception_v1.py, kept for the checkpoint's sake.
_SLIM_EXCEPTIONS = {"inception5a.branch3.1": "Mixed_5b/Branch_2/Conv2d_0a_3x3"}

_MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
CAFFE_LAYERS = {ours: caffe for ours, caffe, _ in _OUTSIDE} | {
    f"inception{module}.{ours}": f"inception_{module}/{caffe}"
    for module in _MODULES
    for ours, caffe, _ in _BRANCHES
}
INCEPTION5H_LAYERS = {ours: theirs for ours, _, theirs in _OUTSIDE} | {
    f"inception{module}.{ours}": f"mixed{module}_{theirs}"
    for module in _MODULES
    for ours, _, theirs in _BRANCHES
}
SLIM_LAYERS = {
    **dict(_SLIM_OUTSIDE),
    **{
        f"{module}.{ours}": f"{scope}/{branch}"
        for module, scope in _SLIM_MODULES
        for ours, branch in _SLIM_BRANCHES
    },
    **_SLIM_EXCEPTIONS,
}

INCEPTION5H_ROLES: Roles = {
    "conv.weight": ("{}_w",),
    "conv.bias": ("{}_b",),
    "weight": ("{}_w",),
    "bias": ("{}_b",),
}
BYTES_LESS_117 = Preprocess(value_range=255.0, mean=(117.0,) * 3, std=(1.0,) * 3)
TORCHVISION = Preprocess(resize="shortest", crop_fraction=0.875, **HALF)  # type: ignore[arg-type]

CAFFE_SOURCE = Source("caffe", CAFFE_FORMATS, CAFFE, CAFFE_224, layers=CAFFE_LAYERS)
INCEPTION5H_GRAPH = Source(
    "tensorflow",
    TENSORFLOW_FORMATS,
    INCEPTION5H_ROLES,
    BYTES_LESS_117,
    layers=INCEPTION5H_LAYERS,
    layout="tensorflow",
    grids={"aux1.fc1": (4, 4), "aux2.fc1": (4, 4)},
    imagenet_order=False,
)
# The repacked file of the same weights has each convolution's outputs first.
INCEPTION5H_REPACKED = Source(
    "tensorflow",
    TORCH_FORMATS,
    INCEPTION5H_ROLES,
    BYTES_LESS_117,
    layers=INCEPTION5H_LAYERS,
    layout="output_first",
    imagenet_order=False,
)
TORCHVISION_SOURCE = Source(
    "torchvision",
    TORCH_FORMATS,
    TORCH_BLOCKS,
    TORCHVISION,
    background=False,
    preprocess_note=TRANSFORM_INPUT,
)
SLIM_SOURCE = Source(
    "slim",
    TENSORFLOW_FORMATS,
    slim_roles("InceptionV1"),
    SLIM_224,
    layers=SLIM_LAYERS,
    layout="tensorflow",
    arguments={"padding": "same"},
    defaults=NO_GAMMA,
)

SOURCES = {
    "googlenet": (CAFFE_SOURCE, onnx_source(preprocess=CAFFE_224)),
    "googlenet_5h": (
        INCEPTION5H_GRAPH,
        INCEPTION5H_REPACKED,
        onnx_source(preprocess=BYTES_LESS_117, imagenet_order=False),
    ),
    "googlenet_bn": (
        Source("caffe", CAFFE_FORMATS, CAFFE, CAFFE_224, layers=CAFFE_LAYERS, defaults=NO_BIAS),
        onnx_source(preprocess=Preprocess()),
    ),
    "googlenet_tv": (TORCHVISION_SOURCE, SLIM_SOURCE, onnx_source(preprocess=TORCHVISION)),
}
