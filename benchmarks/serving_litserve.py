"""The same classifier behind LitServe, for `serving.py`: base64 in JSON, as LitServe's own image examples.

python benchmarks/serving_litserve.py BUNDLE PORT THREADS WAY

WAY `ours` has the classifier that `inception serve` uses inside; `eager` is what LitServe's image example
does: Pillow, torchvision's transforms, the PyTorch network in eager float32.
"""

import base64
import io
import sys
from typing import Any

import litserve
import torch
from PIL import Image

from inception.runtime.loading import load


class Classify(litserve.LitAPI):
    """One bundle; images are decoded and preprocessed by the code that `inception serve` uses."""

    def __init__(self, bundle: str, threads: int, **options: Any) -> None:
        super().__init__(**options)
        self._bundle, self._threads = bundle, threads

    def setup(self, device: str) -> None:
        """Load and warm up, in the inference process."""
        torch.set_num_threads(self._threads)
        self._classifier = load(self._bundle, "cpu")
        preprocess = self._classifier.preprocess
        shape = (preprocess.in_chans, preprocess.height, preprocess.width)
        for size in range(1, self.max_batch_size + 1):
            self._classifier.logits(torch.zeros(size, *shape, dtype=torch.uint8))

    def decode_request(self, request: dict[str, str]) -> bytes:
        """The encoded image."""
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Nothing to stack: `predict` takes files."""
        return inputs

    def predict(self, images: list[bytes]) -> list[dict[str, Any]]:
        """Labels for a batch."""
        return [prediction.to_dict() for prediction in self._classifier.predict(images)]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer an image."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As `/classify` answers."""
        return {"results": [output]}


class ClassifyEagerly(Classify):
    """The bundle's network in eager PyTorch, images prepared by torchvision."""

    def setup(self, device: str) -> None:
        """Load the network and compose the transforms that the bundle's preprocessing amounts to."""
        from torchvision import transforms

        super().setup(device)
        preprocess = self._classifier.preprocess
        size, scale = (preprocess.height, preprocess.width), 1.0 / preprocess.value_range
        mean = [scale * value for value in preprocess.mean]
        std = [scale * value for value in preprocess.std]
        self._network = self._classifier.model.eval()
        self._transform = transforms.Compose(
            [transforms.Resize(size), transforms.ToTensor(), transforms.Normalize(mean, std)]
        )

    def predict(self, images: list[bytes]) -> list[dict[str, Any]]:
        """Labels for a batch."""
        opened = (Image.open(io.BytesIO(image)).convert("RGB") for image in images)
        with torch.inference_mode():
            answers = (
                self._network(torch.stack([self._transform(image) for image in opened])).softmax(1).topk(5)
            )
        labels = self._classifier.labels
        return [
            {"top": [{"label": labels[i], "probability": p} for p, i in zip(*row, strict=True)]}
            for row in zip(answers.values.tolist(), answers.indices.tolist(), strict=True)
        ]


WAYS = {"ours": Classify, "eager": ClassifyEagerly}

if __name__ == "__main__":
    api = WAYS[sys.argv[4]](
        sys.argv[1], int(sys.argv[3]), max_batch_size=8, batch_timeout=0.005, api_path="/classify"
    )
    server = litserve.LitServer(api, accelerator="cpu", timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
