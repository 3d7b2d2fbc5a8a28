"""The engines made of PyTorch: the rewritten network run eagerly, or compiled by inductor."""

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import torch
from torch import nn

from inception.nets.layers import ConvBlock
from inception.nets.network import Network
from inception.runtime import rewrites
from inception.runtime.answering import Logits, Pixels
from inception.runtime.device import autocast
from inception.runtime.engines import Runner, in_batches
from inception.runtime.plan import Plan
from inception.weights.bundle import Bundle, load_bundle


def rewritten(bundle: Bundle) -> nn.Module:
    """The bundle's network on pixels 0..255, every rewrite applied that paid in the measurements.

    Siblings stay apart and average pools stay before their convolutions: docs/performance.md has the numbers.
    A network that does not begin with one convolution keeps its normalisation in front.
    """
    network = bundle.build()
    network.remove_auxiliary_heads()
    network = rewrites.fold_residual_scale(rewrites.fold_batch_norm(network))
    if not isinstance(getattr(network, network.endpoints[0]), ConvBlock):
        return Normalized(network, bundle)
    return rewrites.fold_normalization(network, bundle.preprocess)


class Normalized(nn.Module):
    """A network behind its normalisation: `scale` and `shift` have in_chans values."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: Network, bundle: Bundle) -> None:
        super().__init__()
        preprocess = bundle.preprocess
        std = torch.tensor(preprocess.std, dtype=torch.float64)
        scale, shift = preprocess.value_range / 255.0 / std, -torch.tensor(preprocess.mean).double() / std
        self.network = network
        self.register_buffer("scale", scale.float()[:, None, None])
        self.register_buffer("shift", shift.float()[:, None, None])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """N x C x H x W of any type, values 0..255, in; logits N x num_classes out."""
        logits: torch.Tensor = self.network(pixels.to(self.scale.dtype) * self.scale + self.shift)
        return logits


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
