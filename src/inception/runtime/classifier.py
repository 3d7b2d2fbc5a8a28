"""A bundle that answers with PyTorch: images in, labels and probabilities out."""

import torch
from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.nets.network import Network
from inception.runtime.answering import (
    Answering,
    ImageSource,
    Logits,
    Pixels,
    Prediction,
    Score,
    open_image,
)
from inception.runtime.device import Precision, autocast, choose_device, choose_precision, place
from inception.weights.bundle import Bundle

# What `Answering` gives is offered here too: to users it is one thing with the classifier.
__all__ = ["Classifier", "ImageSource", "Prediction", "Score", "open_image"]


class Classifier(Answering):
    """A bundle in memory, ready to answer.

    Attributes:
        model: the network, in evaluation mode, on `device`.
        labels: class names by output position.
        preprocess: how images become its input.
        bundle: what it was made of.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", precision: str = "float32") -> None:
        self.bundle = bundle
        self.labels = bundle.labels
        self.preprocess: Preprocess = bundle.preprocess
        self.temperature, self.unknown_threshold = bundle.temperature, bundle.unknown_threshold
        self.thresholds = bundle.thresholds
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.model: Network = place(bundle.build(), self.device)

    @property
    def network_precision(self) -> Precision:
        """Arithmetic of `model` when it is run by itself."""
        return self.precision

    def compute(self, pixels: Pixels) -> Logits:
        """uint8 N x C x H x W (of `preprocess.pixels`) in, float32 logits N x num_classes out."""
        result: Logits = self.logits(torch.from_numpy(pixels)).numpy()
        return result

    def logits(self, batch: Tensor) -> Tensor:
        """uint8 N x C x H x W (of `preprocess.apply`) in, float32 logits N x num_classes out, on the CPU."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            images = self.preprocess.normalize(batch.to(self.device))
            output = self.model(images.contiguous(memory_format=torch.channels_last))
        result: Tensor = output.float().cpu()
        return result

    def probabilities(self, batch: Tensor) -> Tensor:
        """As `logits`, after the bundle's temperature and softmax: float32 N x num_classes, rows sum to 1.

        In a bundle with several labels an image every number is a probability of its own (sigmoid).
        """
        if self.thresholds is not None:
            return torch.sigmoid(self.logits(batch))
        return torch.softmax(self.logits(batch) / self.temperature, dim=1)
