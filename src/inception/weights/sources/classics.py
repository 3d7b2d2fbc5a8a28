"""AlexNet's and VGG's weights at torchvision, Caffe, Keras and TF-slim."""

from dataclasses import replace

from inception.weights.sources.source import (
    CAFFE,
    CAFFE_224,
    CAFFE_FORMATS,
    CAFFE_VGG,
    KERAS,
    NO_BIAS,
    SLIM_VGG,
    TENSORFLOW_FORMATS,
    TORCH_FORMATS,
    TORCH_SEQUENCE,
    TORCHVISION_224,
    Source,
    onnx_source,
    slim_roles,
)

# ours | torchvision | Caffe
_ALEXNET = (
    ("conv1", "features.0", "conv1"),
    ("conv2", "features.3", "conv2"),
    ("conv3", "features.6", "conv3"),
    ("conv4", "features.8", "conv4"),
    ("conv5", "features.10", "conv5"),
    ("head.linear1", "classifier.1", "fc6"),
    ("head.linear2", "classifier.4", "fc7"),
    ("fc", "classifier.6", "fc8"),
)
# ours | torchvision | Caffe and TF-slim | Keras
_VGG_LINEAR = (
    ("head.linear1", "classifier.0", "fc6", "fc1"),
    ("head.linear2", "classifier.3", "fc7", "fc2"),
    ("fc", "classifier.6", "fc8", "predictions"),
)
# Convolutions before each of the five pools.
_VGG_BLOCKS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
# The part of a name that tells TF-slim's networks apart.
_SLIM_SCOPES = {"vgg11": "vgg_a", "vgg16": "vgg_16", "vgg19": "vgg_19"}


def _convolutions(blocks: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(block, number) for block, depth in enumerate(blocks, start=1) for number in range(1, depth + 1)]


def _torch_layers(blocks: tuple[int, ...], batch_norm: bool) -> dict[str, str]:
    """torchvision counts convolutions, normalisations, activations and pools in one sequence."""
    layers = {ours: theirs for ours, theirs, _, _ in _VGG_LINEAR}
    place = 0
    for block, depth in enumerate(blocks, start=1):
        for number in range(1, depth + 1):
            layers[f"conv{block}_{number}"] = f"features.{place}"
            if batch_norm:
                layers[f"conv{block}_{number}.bn"] = f"features.{place + 1}"
            place += 3 if batch_norm else 2
        place += 1
    return layers


def _caffe_layers(blocks: tuple[int, ...]) -> dict[str, str]:
    return {ours: caffe for ours, _, caffe, _ in _VGG_LINEAR} | {
        f"conv{block}_{number}": f"conv{block}_{number}" for block, number in _convolutions(blocks)
    }


def _slim_layers(blocks: tuple[int, ...]) -> dict[str, str]:
    """TF-slim puts the convolutions of a block into a scope of their own: `conv1/conv1_1`."""
    return _caffe_layers(blocks) | {
        f"conv{block}_{number}": f"conv{block}/conv{block}_{number}"
        for block, number in _convolutions(blocks)
    }


def _keras_layers(blocks: tuple[int, ...]) -> dict[str, str]:
    return {ours: keras for ours, _, _, keras in _VGG_LINEAR} | {
        f"conv{block}_{number}": f"block{block}_conv{number}" for block, number in _convolutions(blocks)
    }


def _torchvision(layers: dict[str, str]) -> Source:
    return Source(
        "torchvision", TORCH_FORMATS, TORCH_SEQUENCE, TORCHVISION_224, layers=layers, background=False
    )


def _vgg(name: str) -> tuple[Source, ...]:
    blocks = _VGG_BLOCKS[name]
    sources = [
        _torchvision(_torch_layers(blocks, batch_norm=False)),
        Source("caffe", CAFFE_FORMATS, CAFFE, CAFFE_VGG, layers=_caffe_layers(blocks)),
        Source(
            "keras",
            ("keras",),
            KERAS,
            CAFFE_VGG,
            layers=_keras_layers(blocks),
            layout="tensorflow",
            grids={"head.linear1": (7, 7)},
        ),
    ]
    if name in _SLIM_SCOPES:
        sources.append(
            Source(
                "slim",
                TENSORFLOW_FORMATS,
                slim_roles(_SLIM_SCOPES[name]),
                SLIM_VGG,
                layers=_slim_layers(blocks),
                layout="tensorflow",
            )
        )
    return (*sources, onnx_source(preprocess=TORCHVISION_224))


def _vgg_bn(name: str) -> tuple[Source, ...]:
    return (
        _torchvision(_torch_layers(_VGG_BLOCKS[name], batch_norm=True)),
        Source(
            "caffe",
            CAFFE_FORMATS,
            CAFFE,
            CAFFE_VGG,
            layers=_caffe_layers(_VGG_BLOCKS[name]),
            defaults=NO_BIAS,
        ),
        onnx_source(preprocess=TORCHVISION_224),
    )


CAFFE_227 = replace(CAFFE_224, height=227, width=227, crop_fraction=227 / 256)
ALEXNET_TORCH_LAYERS = {ours: theirs for ours, theirs, _ in _ALEXNET}
ALEXNET_CAFFE_LAYERS = {ours: theirs for ours, _, theirs in _ALEXNET}

SOURCES = {
    "alexnet": (
        Source("caffe", CAFFE_FORMATS, CAFFE, CAFFE_227, layers=ALEXNET_CAFFE_LAYERS),
        onnx_source(preprocess=CAFFE_227),
    ),
    "alexnet_tv": (_torchvision(ALEXNET_TORCH_LAYERS), onnx_source(preprocess=TORCHVISION_224)),
    **{name: _vgg(name) for name in _VGG_BLOCKS},
    **{f"{name}_bn": _vgg_bn(name) for name in _VGG_BLOCKS},
}
