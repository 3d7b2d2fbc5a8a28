"""Published weights: where they are, what vouches for them, what they expect and what they were measured at.

Checksums are the publishers' own: the first digits of a SHA-256 in torchvision's file names, the MD5 sums in
Keras's source, the SHA-1 sums in BVLC's model descriptions, the SHA-256 in TensorFlow's own build. Where
none is published there is none here.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from inception.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from inception.errors import UsageError
from inception.weights.sources.source import TIMM_299, TORCHVISION_224


@dataclass(frozen=True)
class Entry:
    """One published file of weights.

    Attributes:
        name: `<network>.<who published it>`.
        network: ours that it belongs to.
        url: where it is.
        checksum: `sha256:`, `sha1:` or `md5:` and hexadecimal digits, perhaps only the first; None: none is
            published.
        checksum_source: who publishes it.
        license: as the publisher states it.
        tool: whose form of the file it is; see `inception.weights.sources`.
        top1, top5: published accuracy on ImageNet's validation images in percent, one crop; None: not known.
        accuracy_source: where that is published.
        member: the file of weights inside a `.zip` or `.tar.gz`.
        labels_member: the file of class names inside it.
        preprocess: what the weights expect, where it is not the tool's usual.
        note: what else a person should know.
    """

    name: str
    network: str
    url: str
    checksum: str | None
    checksum_source: str
    license: str
    tool: str
    top1: float | None
    top5: float | None
    accuracy_source: str
    member: str | None = None
    labels_member: str | None = None
    preprocess: Preprocess | None = None
    note: str = ""

    @property
    def file(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


NONE_PUBLISHED = "none published"

# network | file (its name ends in the first digits of its SHA-256) | top-1 | top-5, torchvision's metadata
_TORCHVISION = (
    ("googlenet_tv", "googlenet-1378be20.pth", 69.778, 89.530),
    ("inception_v3", "inception_v3_google-0cc3c7bd.pth", 77.294, 93.450),
    ("alexnet_tv", "alexnet-owt-7be5be79.pth", 56.522, 79.066),
    ("vgg11", "vgg11-8a719046.pth", 69.020, 88.628),
    ("vgg13", "vgg13-19584684.pth", 69.928, 89.246),
    ("vgg16", "vgg16-397923af.pth", 71.592, 90.382),
    ("vgg19", "vgg19-dcbb9e9d.pth", 72.376, 90.876),
    ("vgg11_bn", "vgg11_bn-6002323d.pth", 70.370, 89.810),
    ("vgg13_bn", "vgg13_bn-abd245e5.pth", 71.586, 90.374),
    ("vgg16_bn", "vgg16_bn-6c64b313.pth", 73.360, 91.516),
    ("vgg19_bn", "vgg19_bn-c79401a0.pth", 74.218, 91.842),
)
# network | tag | top-1 | top-5 (results/results-imagenet.csv of pytorch-image-models) | crop, mean, std
_TIMM_GLUON = replace(TIMM_299, mean=IMAGENET_MEAN, std=IMAGENET_STD)
_TIMM_WIDE = replace(TIMM_299, crop_fraction=0.8975)
_TIMM = (
    ("inception_v3", "gluon_in1k", 78.806, 94.372, _TIMM_GLUON),
    ("inception_v3", "tf_in1k", 77.866, 93.644, TIMM_299),
    ("inception_v3", "tf_adv_in1k", 77.598, 93.726, TIMM_299),
    ("inception_v4", "tf_in1k", 80.144, 94.982, TIMM_299),
    ("inception_resnet_v2", "tf_in1k", 80.434, 95.312, _TIMM_WIDE),
    ("inception_resnet_v2", "tf_ens_adv_in1k", 79.998, 94.940, _TIMM_WIDE),
)
# network | path below storage.googleapis.com/tensorflow | MD5 in Keras's source
_KERAS = (
    (
        "inception_v3",
        "keras-applications/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        "9a0d58056eeedaa3f26cb7ebd46da564",
    ),
    (
        "inception_resnet_v2",
        "keras-applications/inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5",
        "e693bd0210a403b3192acc6073ad2e96",
    ),
    (
        "vgg16",
        "keras-applications/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "64373286793e3c8b2b4e3219cbf3544b",
    ),
    (
        "vgg19",
        "keras-applications/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        "cbe5617147190e668d6c5d5026f83318",
    ),
)
# network | archive | checkpoint in it | top-1 | top-5, TF-slim's README
_SLIM = (
    ("googlenet_tv", "inception_v1_2016_08_28", "inception_v1.ckpt", 69.8, 89.6),
    ("inception_v2", "inception_v2_2016_08_28", "inception_v2.ckpt", 73.9, 91.8),
    ("inception_v3", "inception_v3_2016_08_28", "inception_v3.ckpt", 78.0, 93.9),
    ("inception_v4", "inception_v4_2016_09_09", "inception_v4.ckpt", 80.2, 95.2),
    (
        "inception_resnet_v2",
        "inception_resnet_v2_2016_08_30",
        "inception_resnet_v2_2016_08_30.ckpt",
        80.4,
        95.3,
    ),
    ("vgg16", "vgg_16_2016_08_28", "vgg_16.ckpt", 71.5, 89.8),
    ("vgg19", "vgg_19_2016_08_28", "vgg_19.ckpt", 71.1, 89.8),
)
# network | file | SHA-1 in BVLC's description | top-1 | top-5, the same description
_BVLC = (
    ("googlenet", "bvlc_googlenet.caffemodel", "405fc5acd08a3bb12de8ee5e23a96bec22f08204", 68.7, 88.9),
    ("alexnet", "bvlc_alexnet.caffemodel", "9116a64c0fbe4459d18f4bb6b56d647b63920377", 57.1, 80.2),
)


def _torchvision() -> Iterator[Entry]:
    for network, file, top1, top5 in _TORCHVISION:
        prefix = file.removesuffix(".pth").rpartition("-")[2]
        yield Entry(
            f"{network}.tv_in1k",
            network,
            f"https://download.pytorch.org/models/{file}",
            f"sha256:{prefix}",
            "torchvision: first digits in the file name",
            "BSD-3-Clause (torchvision; nothing is stated for the weights apart)",
            "torchvision",
            top1,
            top5,
            "torchvision's metadata",
            note="auxiliary heads are in the file but were never trained"
            if network == "googlenet_tv"
            else "",
        )


def _timm() -> Iterator[Entry]:
    for network, tag, top1, top5, preprocess in _TIMM:
        yield Entry(
            f"{network}.{tag}",
            network,
            f"https://huggingface.co/timm/{network}.{tag}/resolve/main/model.safetensors",
            None,
            NONE_PUBLISHED,
            "Apache-2.0 (timm's metadata)",
            "timm",
            top1,
            top5,
            "results-imagenet.csv of pytorch-image-models",
            preprocess=preprocess,
        )


def _keras() -> Iterator[Entry]:
    for network, path, checksum in _KERAS:
        yield Entry(
            f"{network}.keras",
            network,
            f"https://storage.googleapis.com/tensorflow/{path}",
            f"md5:{checksum}",
            "Keras's source",
            "not stated with the weights",
            "keras",
            None,
            None,
            "",
        )


def _slim() -> Iterator[Entry]:
    for network, archive, member, top1, top5 in _SLIM:
        yield Entry(
            f"{network}.slim",
            network,
            f"http://download.tensorflow.org/models/{archive}.tar.gz",
            None,
            NONE_PUBLISHED,
            "Apache-2.0 (tensorflow/models; nothing is stated for the weights apart)",
            "slim",
            top1,
            top5,
            "TF-slim's README",
            member=member,
        )


def _bvlc() -> Iterator[Entry]:
    for network, file, checksum, top1, top5 in _BVLC:
        yield Entry(
            f"{network}.bvlc",
            network,
            f"http://dl.caffe.berkeleyvision.org/{file}",
            f"sha1:{checksum}",
            "BVLC's description of the model",
            "unrestricted (BVLC's description of the model)",
            "caffe",
            top1,
            top5,
            "BVLC's description of the model",
        )


def _google() -> Iterator[Entry]:
    yield Entry(
        "googlenet_5h.google",
        "googlenet_5h",
        "https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
        "sha256:d13569f6a98159de37e92e9c8ec4dae8f674fbf475f69fe6199b514f756d4364",
        "TensorFlow's WORKSPACE file of 2017",
        "Apache-2.0",
        "tensorflow",
        None,
        None,
        "",
        member="tensorflow_inception_graph.pb",
        labels_member="imagenet_comp_graph_label_strings.txt",
        note="the network of DeepDream and Lucid",
    )
    yield Entry(
        "inception_v3.google_2015",
        "inception_v3",
        "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
        None,
        NONE_PUBLISHED,
        "Apache-2.0 (in the archive)",
        "tensorflow",
        None,
        None,
        "",
        member="classify_image_graph_def.pb",
        note="the network behind the Fréchet inception distance; its last module pools by maximum, ours not",
    )


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entries in (_google(), _bvlc(), _torchvision(), _timm(), _keras(), _slim())
    for entry in entries
}
"""Every entry by name."""


def find_entry(name: str) -> Entry:
    """The entry called `name`; UsageError, with near names, when there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.4)
    of_network = [entry.name for entry in CATALOGUE.values() if entry.network == name]
    hint = ", ".join(of_network or near)
    hint = f"did you mean {hint}?" if hint else "see `inception weights list`"
    raise UsageError(f"no published weights are called '{name}': {hint}")


def expected_preprocess(entry: Entry) -> Preprocess:
    """What the weights of `entry` expect of an image."""
    from inception.weights.sources.choose import SOURCES

    if entry.preprocess is not None:
        return entry.preprocess
    usual = [source.preprocess for source in SOURCES[entry.network] if source.tool == entry.tool]
    return usual[0] if usual else TORCHVISION_224
