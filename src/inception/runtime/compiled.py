"""The engines made of PyTorch: the rewritten network run eagerly, or compiled by inductor."""

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import torch

from inception.runtime.answering import Logits, Pixels
from inception.runtime.device import autocast
from inception.runtime.engines import Runner, in_batches
from inception.runtime.forms import rewritten
from inception.runtime.plan import Plan
from inception.weights.bundle import Bundle, load_bundle


class TorchRunner:
    """The rewritten network in PyTorch, channels last; with `compile` through inductor, weights frozen."""

    def __init__(self, bundle: Bundle, plan: Plan) -> None:
        self._module: Callable[[torch.Tensor], torch.Tensor] = (
            rewritten(bundle).eval().to(memory_format=torch.channels_last)
        )
        self._plan, self._lock = plan, Lock()
        self._compiled = plan.engine == "inductor"
        if self._compiled:
            import torch._inductor.config as inductor

            # inductor logs every search for a C++ compiler's flags; errors still come as exceptions.
            logging.getLogger("torch._inductor").setLevel(logging.ERROR)
            inductor.freezing = True
            self._module = torch.compile(self._module, dynamic=False)

    def __call__(self, pixels: Pixels) -> Logits:
        """See `Runner`."""
        with self._lock:
            threads = torch.get_num_threads()
            torch.set_num_threads(self._plan.threads)
            try:
                # Compiled code is made for one shape: other numbers of images are cut and filled to it.
                return (
                    in_batches(pixels, self._plan.batch, self._run) if self._compiled else self._run(pixels)
                )
            finally:
                torch.set_num_threads(threads)

    def _run(self, pixels: Pixels) -> Logits:
        device, precision = torch.device("cpu"), self._plan.precision
        images = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(device, "bfloat16" if precision == "bfloat16" else "float32"):
            result: Logits = self._module(images).float().numpy()
        return result


def open_torch_engine(path: Path, plan: Plan) -> Runner:
    """The engine of a plan that computes from the bundle's own weights."""
    return TorchRunner(load_bundle(path), plan)
