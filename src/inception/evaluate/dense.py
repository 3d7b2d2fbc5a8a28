"""Dense evaluation: the network slides over the whole image, and all its answers are averaged.

Sources: Sermanet et al., "OverFeat" (2014), section 3.3; Simonyan and Zisserman, "Very Deep Convolutional
Networks" (2015), section 3.2. The stages run once on the whole picture; the classifier then reads every
window of the feature map that is as large as the map of one crop.
"""

import torch
from PIL import Image
from torch import Tensor

from inception.data.preprocess import RESAMPLING, Preprocess, to_tensor
from inception.nets.dense import dense_logits
from inception.runtime.classifier import Classifier
from inception.runtime.device import autocast

LONGEST = 4
"""Of a picture longer than this many times its shorter side only the middle is seen."""


def dense_input(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """An image and its mirror image with the shorter side at 8/7 of the network's input (256 for 224).

    Args:
        image: mode RGB.
        preprocess: gives the size (the smaller of height and width), the filter and the colour order.

    Returns:
        uint8 2 x C x H x W, the aspect ratio kept.
    """
    short = round(min(preprocess.height, preprocess.width) * 8 / 7)
    kept = [min(length, LONGEST * min(image.size)) for length in image.size]
    left, top = ((length - part) / 2 for length, part in zip(image.size, kept, strict=True))
    size = (max(round(kept[0] * short / min(kept)), short), max(round(kept[1] * short / min(kept)), short))
    box = (left, top, left + kept[0], top + kept[1])
    picture = to_tensor(image.resize(size, RESAMPLING[preprocess.interpolation], box=box), preprocess.color)
    return torch.stack([picture, picture.flip(-1)])


def dense_probabilities(classifier: Classifier, pixels: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean of the softmax over all windows of all given pictures.

    Args:
        classifier: of any network of the family, whatever its head.
        pixels: uint8 N x C x H x W of one image (`dense_input`), at least as large as the network's input.
        window: rows and columns of the map of one crop (`map_window`).

    Returns:
        float32 of length num_classes, on the CPU, summing to 1.
    """
    model, preprocess = classifier.model, classifier.preprocess
    with torch.inference_mode(), autocast(classifier.device, classifier.network_precision):
        images = preprocess.normalize(pixels.to(classifier.device))
        logits = dense_logits(model, images.contiguous(memory_format=torch.channels_last), window).float()
    mean: Tensor = torch.softmax(logits / classifier.bundle.temperature, dim=1).mean((0, 2, 3)).cpu()
    return mean
