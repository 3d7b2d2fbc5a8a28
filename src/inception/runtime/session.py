"""An optimised bundle that answers by its plan, with the interface of `Classifier`."""

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from inception.data.preprocess import Preprocess
from inception.errors import BundleError, InceptionError
from inception.runtime.answering import Answering, Logits, Pixels
from inception.runtime.engines import MissingEngineError, Runner
from inception.runtime.native.runner import NativeRunner
from inception.runtime.opening import open_engine
from inception.runtime.plan import Plan, read_plan
from inception.weights.manifest import read_manifest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inception.nets.network import Network
    from inception.runtime.device import Precision
    from inception.weights.bundle import Bundle

logger = logging.getLogger("inception")


class Session(Answering):
    """A bundle in memory that answers by its plan. PyTorch is imported only where a tensor is asked for.

    Attributes:
        plan: engine, precision, threads, and what was measured.
        labels, preprocess: as in `Classifier`.
        path: where the bundle lies.
    """

    def __init__(self, path: Path, plan: Plan, runner: Runner) -> None:
        self.path, self.plan, self._runner = path, plan, runner
        manifest = read_manifest(path)
        try:
            self.labels: tuple[str, ...] = tuple(map(str, manifest["labels"]))
            self.preprocess = Preprocess.from_dict(manifest["preprocess"])
            self.temperature = float(manifest["temperature"])
            threshold = manifest["unknown_threshold"]
            self.unknown_threshold = None if threshold is None else float(threshold)
        except (InceptionError, ValueError, LookupError, TypeError) as error:
            raise BundleError(f"{path} is not a usable bundle: {error}") from error

    @property
    def precision(self) -> str:
        """The plan's precision."""
        return self.plan.precision

    @cached_property
    def device(self) -> "torch.device":
        """Plans run on the CPU."""
        import torch

        return torch.device("cpu")

    @cached_property
    def bundle(self) -> "Bundle":
        """The original bundle, with its weights; read on first use."""
        from inception.weights.bundle import load_bundle

        return load_bundle(self.path)

    @cached_property
    def model(self) -> "Network":
        """The original network in PyTorch, in evaluation mode, built on first use; the plan goes without."""
        return self.bundle.build()

    @property
    def network_precision(self) -> "Precision":
        """Arithmetic of `model` when it is run by itself: the plan is of its engine alone."""
        return "float32"

    def compute(self, pixels: Pixels) -> Logits:
        """uint8 N x C x H x W (of `preprocess.pixels`) in, float32 logits N x num_classes out."""
        result = self._runner(pixels)
        expected = (len(pixels), len(self.labels))
        if getattr(result, "shape", None) != expected or result.dtype.kind != "f":
            raise BundleError(
                f"{self.path}: its plan is of another network than the bundle; optimise it again"
            )
        return result

    def logits(self, batch: "Tensor") -> "Tensor":
        """uint8 N x C x H x W (of `preprocess.apply`) in, float32 logits N x num_classes out."""
        import torch

        return torch.from_numpy(self.compute(batch.numpy()))

    def probabilities(self, batch: "Tensor") -> "Tensor":
        """As `logits`, after the bundle's temperature and softmax: float32 N x num_classes, rows sum to 1."""
        return (self.logits(batch) / self.temperature).softmax(dim=1)


def open_planned(path: Path, device: str, precision: str) -> "Session | None":
    """The bundle at `path` as a `Session`, when it has a plan and nothing else is asked for; else None.

    None, with a warning, also where the plan's engine is not installed.
    """
    planned = read_plan(path) if device in ("auto", "cpu") and precision == "float32" else None
    if planned is None:
        return None
    plan, files = planned
    try:
        if plan.engine in ("torch", "inductor"):
            from inception.runtime.compiled import open_torch_engine

            runner = open_torch_engine(path, plan)
        else:
            runner = open_engine(plan, files)
    except MissingEngineError as error:
        logger.warning("inception: %s; PyTorch answers in float32 instead", error)
        return None
    session = Session(path, plan, runner)
    if isinstance(runner, NativeRunner):
        size = session.preprocess
        expected = (size.in_chans, size.height, size.width, len(session.labels))
        if (*runner.pixels, runner.outputs) != expected:
            raise BundleError(f"{path}: its plan is of another network than the bundle; optimise it again")
    return session
