"""What each network's published weights expect of an image."""

from collections.abc import Mapping
from dataclasses import replace

from inception.data.preprocess import Preprocess
from inception.nets.classics import VGG_DEPTHS

# Caffe: BGR bytes less the mean of ImageNet's training images.
CAFFE = Preprocess(color="BGR", value_range=255.0, mean=(104.0, 117.0, 123.0), std=(1.0,) * 3)
# torchvision: shorter side to size / 0.875, centre crop, ImageNet's mean and deviation.
TORCHVISION = Preprocess(resize="shortest", crop_fraction=0.875)
# TF-slim: pixels to -1..1. torchvision's GoogLeNet and Inception-v3 get there too: their `transform_input`
# turns ImageNet's normalisation into this one.
SLIM = replace(TORCHVISION, mean=(0.5,) * 3, std=(0.5,) * 3)
SLIM_299 = replace(SLIM, height=299, width=299, interpolation="bicubic")

# Sources: the DeepDream release (inception5h); Caffe's train_val files; Cadene's BN-Inception (its mean has
# 128 for red, where Caffe's others have 123); TF-slim's inception_preprocessing; torchvision's weights.
PREPROCESSING: Mapping[str, Preprocess] = {
    "googlenet": CAFFE,
    "googlenet_5h": Preprocess(value_range=255.0, mean=(117.0,) * 3, std=(1.0,) * 3),
    "googlenet_bn": Preprocess(),
    "googlenet_tv": SLIM,
    "inception_v2": SLIM,
    "inception_v2_caffe": replace(CAFFE, mean=(104.0, 117.0, 128.0)),
    "inception_v3": replace(SLIM_299, interpolation="bilinear"),
    "inception_v4": SLIM_299,
    "inception_resnet_v1": SLIM_299,
    "inception_resnet_v2": SLIM_299,
    "inception_resnet_v2_paper": SLIM_299,
    "lenet5": Preprocess(height=28, width=28),
    "nin": CAFFE,
    "alexnet": replace(CAFFE, height=227, width=227),
    "alexnet_tv": TORCHVISION,
    **dict.fromkeys(VGG_DEPTHS, TORCHVISION),
    **{f"{name}_bn": TORCHVISION for name in VGG_DEPTHS},
}
