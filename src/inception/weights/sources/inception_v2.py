"""Inception-v2's (BN-Inception's) weights at TF-slim, Caffe and Cadene."""

from inception.data.preprocess import Preprocess
from inception.weights.sources.source import (
    CAFFE,
    CAFFE_224,
    NO_BIAS,
    NO_GAMMA,
    SLIM_224,
    TENSORFLOW_FORMATS,
    TORCH_FORMATS,
    VGG_BYTES,
    Roles,
    Source,
    onnx_source,
    slim_roles,
)

# ours | Caffe | TF-slim
_OUTSIDE = (
    ("conv1", "conv1/7x7_s2", "Conv2d_1a_7x7"),
    ("conv2", "conv2/3x3_reduce", "Conv2d_2b_1x1"),
    ("conv3", "conv2/3x3", "Conv2d_2c_3x3"),
    ("fc", "loss3/classifier", "Logits/Conv2d_1c_1x1"),
)
_MODULES = (
    ("inception3a", "inception_3a", "Mixed_3b"),
    ("inception3b", "inception_3b", "Mixed_3c"),
    ("inception4a", "inception_4a", "Mixed_4b"),
    ("inception4b", "inception_4b", "Mixed_4c"),
    ("inception4c", "inception_4c", "Mixed_4d"),
    ("inception4d", "inception_4d", "Mixed_4e"),
    ("inception5a", "inception_5a", "Mixed_5b"),
    ("inception5b", "inception_5b", "Mixed_5c"),
)
_BRANCHES = (
    ("b1x1", "1x1", "Branch_0/Conv2d_0a_1x1"),
    ("b3x3_reduce", "3x3_reduce", "Branch_1/Conv2d_0a_1x1"),
    ("b3x3", "3x3", "Branch_1/Conv2d_0b_3x3"),
    ("double3x3_reduce", "double3x3_reduce", "Branch_2/Conv2d_0a_1x1"),
    ("double3x3a", "double3x3a", "Branch_2/Conv2d_0b_3x3"),
    ("double3x3b", "double3x3b", "Branch_2/Conv2d_0c_3x3"),
    ("pool_proj", "pool_proj", "Branch_3/Conv2d_0b_1x1"),
)
_REDUCTIONS = (
    ("inception3c", "inception_3c", "Mixed_4a"),
    ("inception4e", "inception_4e", "Mixed_5a"),
)
_REDUCTION_BRANCHES = (
    ("b3x3_reduce", "3x3_reduce", "Branch_0/Conv2d_0a_1x1"),
    ("b3x3", "3x3", "Branch_0/Conv2d_1a_3x3"),
    ("double3x3_reduce", "double3x3_reduce", "Branch_1/Conv2d_0a_1x1"),
    ("double3x3a", "double3x3a", "Branch_1/Conv2d_0b_3x3"),
    ("double3x3b", "double3x3b", "Branch_1/Conv2d_1a_3x3"),
)
_ROWS = (
    *_OUTSIDE,
    *(
        (f"{module}.{ours}", f"{caffe_module}/{caffe}", f"{scope}/{slim}")
        for modules, branches in ((_MODULES, _BRANCHES), (_REDUCTIONS, _REDUCTION_BRANCHES))
        for module, caffe_module, scope in modules
        for ours, caffe, slim in branches
    ),
)
CAFFE_LAYERS = {ours: caffe for ours, caffe, _ in _ROWS}
SLIM_LAYERS = {ours: slim for ours, _, slim in _ROWS}

# Cadene's module names are Caffe's with `_` for `/`; the normalisation is called `<name>_bn`.
CADENE_LAYERS = {ours: caffe.replace("/", "_") for ours, caffe, _ in _ROWS} | {"fc": "last_linear"}
CADENE: Roles = {
    "conv.weight": ("{}.weight",),
    "conv.bias": ("{}.bias",),
    "bn.weight": ("{}_bn.weight",),
    "bn.bias": ("{}_bn.bias",),
    "bn.running_mean": ("{}_bn.running_mean",),
    "bn.running_var": ("{}_bn.running_var",),
    "weight": ("{}.weight",),
    "bias": ("{}.bias",),
}
CADENE_224 = Preprocess(
    resize="shortest",
    crop_fraction=0.875,
    color="BGR",
    mean=(104.0, 117.0, 128.0),
    **VGG_BYTES,  # type: ignore[arg-type]
)


# Caffe counts the border's zeros in average pools; ONNX's operator leaves them out unless it is told.
CAFFE_ARGUMENTS = {"padding": "ceil", "count_include_pad": True}
ONNX_ARGUMENTS = {"padding": "ceil", "count_include_pad": False}


def _caffe(form: str, preprocess: Preprocess) -> Source:
    return Source(
        "caffe",
        (form,),
        CAFFE,
        preprocess,
        layers=CAFFE_LAYERS,
        arguments=CAFFE_ARGUMENTS if form == "caffe" else ONNX_ARGUMENTS,
        defaults=NO_BIAS,
    )


SOURCES = {
    "inception_v2": (
        Source(
            "slim",
            TENSORFLOW_FORMATS,
            slim_roles("InceptionV2"),
            SLIM_224,
            layers=SLIM_LAYERS,
            layout="tensorflow",
            arguments={"separable": True},
            defaults=NO_GAMMA,
        ),
        _caffe("caffe", CAFFE_224),
        _caffe("onnx", CAFFE_224),
        onnx_source(preprocess=CAFFE_224, arguments=ONNX_ARGUMENTS),
    ),
    "inception_v2_caffe": (
        Source("cadene", TORCH_FORMATS, CADENE, CADENE_224, layers=CADENE_LAYERS, background=False),
        _caffe("caffe", CADENE_224),
        _caffe("onnx", CADENE_224),
        onnx_source(preprocess=CADENE_224),
    ),
}
