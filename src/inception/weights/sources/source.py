"""One tool's form of one network: names, layout, preprocessing, and the arguments that make ours the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from inception.data.preprocess import Preprocess

Layout = Literal["torch", "tensorflow", "output_first"]
"""`torch`: O x I x H x W. `tensorflow`: H x W x I x O. `output_first`: O x H x W x I."""

Roles = Mapping[str, tuple[str, ...]]
"""Our tensor's name within its layer -> patterns of theirs, in which `{}` is their layer's name."""


@dataclass(frozen=True)
class Source:
    """How one tool keeps one network.

    Attributes:
        tool: `torchvision`, `timm`, `keras`, `slim`, `tensorflow`, `caffe`, `onnx` or `inception`.
        formats: file formats (`Foreign.format`) in which it does so.
        roles: names of a layer's tensors.
        preprocess: what its published weights expect.
        layers: our layer -> theirs. A batch normalisation that is a layer of its own is listed as
            `<our layer>.bn`. Layers that are not listed keep our name.
        by_order: match the layers of the file, in the order of the computation, with ours.
        layout: of convolution and linear weights.
        arguments: of our builder, so that it computes what theirs does.
        defaults: values of tensors that the tool does not keep.
        grids: linear layers over a flattened map in H, W, C order -> (height, width) of the map.
        imagenet_order: whether its 1000 classes are in the order of sorted synsets (torchvision's).
        background: whether output 0 of 1001 stands for none of the classes.
        note: what else a person should know.
        preprocess_note: what a person should know where `preprocess` is only assumed.
    """

    tool: str
    formats: tuple[str, ...]
    roles: Roles
    preprocess: Preprocess
    layers: Mapping[str, str] = field(default_factory=dict)
    by_order: bool = False
    layout: Layout = "torch"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)
    grids: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    imagenet_order: bool = True
    background: bool = True
    note: str = ""
    preprocess_note: str = ""


SUFFIXES = (
    "conv.weight",
    "conv.bias",
    "bn.weight",
    "bn.bias",
    "bn.running_mean",
    "bn.running_var",
    "bn.num_batches_tracked",
    "depthwise.weight",
    "pointwise.weight",
    "pointwise.bias",
    "weight",
    "bias",
)
"""Our tensors' names within a layer, the longer ones first."""


def split_name(name: str) -> tuple[str, str]:
    """Our tensor's layer and its role there: `inception3a.b1x1.conv.weight` -> (`inception3a.b1x1`, …)."""
    for suffix in SUFFIXES:
        if name.endswith(f".{suffix}"):
            return name.removesuffix(f".{suffix}"), suffix
    return name.rpartition(".")[0], name.rpartition(".")[2]


def _same(*names: str) -> Roles:
    return {name: ("{}." + name,) for name in names}


# Convolution and normalisation as children `conv` and `bn` of one module: torchvision, timm, and ours.
TORCH_BLOCKS = _same(*SUFFIXES)
# The two as separate entries of an nn.Sequential (torchvision's AlexNet and VGG).
TORCH_SEQUENCE: Roles = {suffix: ("{}." + suffix.rpartition(".")[2],) for suffix in SUFFIXES}

KERAS: Roles = {
    "conv.weight": ("{}/kernel",),
    "conv.bias": ("{}/bias",),
    "bn.weight": ("{}/gamma",),
    "bn.bias": ("{}/beta",),
    "bn.running_mean": ("{}/moving_mean",),
    "bn.running_var": ("{}/moving_variance",),
    "weight": ("{}/kernel",),
    "bias": ("{}/bias",),
}

# Caffe's separate layers, and ONNX's that the reader put together, in the spellings that models use.
CAFFE: Roles = {
    "conv.weight": ("{}.weight",),
    "conv.bias": ("{}.bias",),
    "bn.weight": ("{}/bn/sc.scale", "{}_bn.scale", "{}/bn.scale", "{}/scale.scale", "{}.scale"),
    "bn.bias": ("{}/bn/sc.shift", "{}_bn.shift", "{}/bn.shift", "{}/scale.shift", "{}.shift"),
    "bn.running_mean": ("{}/bn.mean", "{}_bn.mean", "{}.mean"),
    "bn.running_var": ("{}/bn.variance", "{}_bn.variance", "{}.variance"),
    "weight": ("{}.weight",),
    "bias": ("{}.bias",),
}


def slim_roles(scope: str) -> Roles:
    """TF-slim's variables inside the scope of a network."""
    names = {
        "conv.weight": "weights",
        "conv.bias": "biases",
        "bn.weight": "BatchNorm/gamma",
        "bn.bias": "BatchNorm/beta",
        "bn.running_mean": "BatchNorm/moving_mean",
        "bn.running_var": "BatchNorm/moving_variance",
        "depthwise.weight": "depthwise_weights",
        "pointwise.weight": "pointwise_weights",
        "pointwise.bias": "biases",
        "weight": "weights",
        "bias": "biases",
    }
    return {role: (f"{scope}/{{}}/{name}",) for role, name in names.items()}


TENSORFLOW_FORMATS = ("checkpoint", "graph")
TORCH_FORMATS = ("torch", "safetensors")
CAFFE_FORMATS = ("caffe", "onnx")
# Normalisation without a factor (TF-slim, Keras), and convolutions without a bias before one.
NO_GAMMA = {"bn.weight": 1.0, "conv.bias": 0.0}
NO_BIAS = {"conv.bias": 0.0}

# Preprocessing of the tools. Sources: torchvision's and timm's installed metadata; slim's
# inception_preprocessing.py (central 87.5%) and vgg_preprocessing.py; Keras's applications/imagenet_utils.py;
# the deploy and train_val files of BVLC/caffe; Cadene's settings (for BN-Inception).
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
TORCHVISION_224 = Preprocess(resize="shortest", crop_fraction=0.875)
TORCHVISION_299 = Preprocess(299, 299, resize="shortest", crop_fraction=299 / 342, **HALF)  # type: ignore[arg-type]
TIMM_299 = Preprocess(
    299,
    299,
    resize="shortest",
    crop_fraction=0.875,
    interpolation="bicubic",
    **HALF,  # type: ignore[arg-type]
)
SLIM_224 = Preprocess(crop_fraction=0.875, **HALF)  # type: ignore[arg-type]
SLIM_299 = Preprocess(299, 299, crop_fraction=0.875, **HALF)  # type: ignore[arg-type]
VGG_BYTES = {"value_range": 255.0, "std": (1.0,) * 3}
SLIM_VGG = Preprocess(
    resize="shortest",
    crop_fraction=0.875,
    mean=(123.68, 116.779, 103.939),
    **VGG_BYTES,  # type: ignore[arg-type]
)
CAFFE_VGG = Preprocess(
    resize="shortest",
    crop_fraction=0.875,
    color="BGR",
    mean=(103.939, 116.779, 123.68),
    **VGG_BYTES,  # type: ignore[arg-type]
)
CAFFE_224 = Preprocess(
    resize="shortest",
    crop_fraction=0.875,
    color="BGR",
    mean=(104.0, 117.0, 123.0),
    **VGG_BYTES,  # type: ignore[arg-type]
)


TRANSFORM_INPUT = (
    "torchvision's own weights carry transform_input (mean = std = 0.5); a network trained with weights=None "
    "does not: --preprocess imagenet, if that was its normalisation"
)


def onnx_source(**fields: Any) -> Source:
    """The form of any network in an ONNX file whose names say nothing: layers by their order."""
    return Source("onnx", ("onnx",), CAFFE, by_order=True, defaults=NO_BIAS, **fields)
