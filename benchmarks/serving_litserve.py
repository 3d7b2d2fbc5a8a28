"""The same classifier behind LitServe, for `serving.py`: base64 in JSON, as LitServe's own image examples.

python benchmarks/serving_litserve.py BUNDLE PORT THREADS
"""

import base64
import sys
from typing import Any

import litserve
import torch

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


if __name__ == "__main__":
    api = Classify(sys.argv[1], int(sys.argv[3]), max_batch_size=8, batch_timeout=0.005, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
