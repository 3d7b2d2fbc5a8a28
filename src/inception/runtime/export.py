"""A bundle as one file for another runtime: labels and preprocessing inside, checked where it will run."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from inception.errors import InceptionError, UsageError
from inception.files import atomic_write_bytes
from inception.runtime.answering import Logits, Pixels
from inception.runtime.classifier import Classifier
from inception.runtime.engines import require
from inception.runtime.forms import rewritten
from inception.runtime.onnx_graph import INPUT, LOGITS, PROBABILITIES, to_onnx
from inception.runtime.optimize import relative_difference
from inception.runtime.timing import probe_images
from inception.weights.bundle import Bundle, load_bundle
from inception.weights.manifest import require_one_label

Form = Literal["onnx", "openvino", "torch-export"]
PixelType = Literal["uint8", "float32"]
SUFFIXES: dict[Form, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
TOLERANCE = 1e-4
"""Largest logit difference, relative to the largest logit, that a file may have where it runs."""
PROBES = (1, 3)
"""Numbers of images that the check runs: the file must take more than the one it was made with."""


class ExportError(InceptionError):
    """The exported file does not answer as the bundle does, or cannot be written."""


@dataclass(frozen=True)
class Verification:
    """What the check of an exported file found.

    Attributes:
        runtime: what ran it, with its version.
        images: how many images it ran on.
        difference: largest absolute difference of a logit.
        relative: the same divided by the largest logit.
        probability_difference: largest absolute difference of a probability.
        tolerance: what `relative` may be.
        files: what was written.
    """

    runtime: str
    images: int
    difference: float
    relative: float
    probability_difference: float
    tolerance: float
    files: tuple[str, ...]


def export_bundle(
    path: Path, output: Path, form: Form, pixel_type: PixelType = "uint8", tolerance: float = TOLERANCE
) -> Verification:
    """Write the bundle at `path` for another runtime to `output`, run it there and compare.

    Args:
        path: a bundle.
        output: the file; OpenVINO's weights lie beside its `.xml` as `.bin`.
        form: `onnx`, `openvino` or `torch-export`.
        pixel_type: of the input: `uint8` or `float32`, either way N x C x H x W with values 0..255, resized
            as the stored preprocessing says, in its channel order. Normalisation is in the graph.
        tolerance: largest logit difference relative to the largest logit.

    The file has the outputs `logits` and `probabilities` (after the bundle's temperature), and stores labels,
    preprocessing and temperature as JSON texts. Nothing is left at `output` when the check fails.

    Raises ExportError when the file's answers differ by more than `tolerance`, UsageError when what is needed
    is not installed or `output` has another suffix.
    """
    if output.suffix != SUFFIXES[form]:
        raise UsageError(f"a file for {form} ends in {SUFFIXES[form]}: give -o {output.stem}{SUFFIXES[form]}")
    bundle = load_bundle(path)
    require_one_label(bundle.thresholds, "inception export")
    write, run = _FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / output.name
        write(bundle, pixel_type, draft)
        result = _verify(bundle, draft, run, pixel_type, tolerance)
        if not result.relative <= tolerance:
            raise ExportError(
                f"the exported file's logits differ by {result.difference:.2e}, {result.relative:.2e} of the "
                f"largest, from the bundle's (tolerance {tolerance:.0e}); nothing was written"
            )
        files = _publish(Path(folder), output)
    return Verification(**{**vars(result), "files": files})


def _publish(folder: Path, output: Path) -> tuple[str, ...]:
    """Move the checked files to their place, the one that is named last, so that it is never alone."""
    drafts = sorted(folder.iterdir(), key=lambda file: file.name == output.name)
    targets = [output.parent / draft.name for draft in drafts]
    try:
        for draft, target in zip(drafts, targets, strict=True):
            atomic_write_bytes(target, draft.read_bytes())
    except OSError as error:
        raise ExportError(f"cannot write {output}: {error.strerror or error}") from error
    return tuple(str(target) for target in targets)


def _verify(
    bundle: Bundle,
    draft: Path,
    run: Callable[[Path, Pixels, PixelType], tuple[str, Logits, Logits]],
    pixel_type: PixelType,
    tolerance: float,
) -> Verification:
    preprocess = bundle.preprocess
    shape = (preprocess.in_chans, preprocess.height, preprocess.width)
    original = Classifier(bundle, "cpu")
    differences, runtime = [], ""
    for count in PROBES:
        pixels = probe_images(shape, count, seed=count)
        runtime, logits, probabilities = run(draft, pixels, pixel_type)
        expected = original.compute(pixels)
        wanted = torch.softmax(torch.from_numpy(expected) / bundle.temperature, dim=1).numpy()
        absolute = float(np.abs(logits - expected).max())
        relative = relative_difference(logits, expected)
        differences.append((absolute, relative, float(np.abs(probabilities - wanted).max())))
    worst = [max(column) for column in zip(*differences, strict=True)]
    if not np.isfinite(worst).all():
        worst[1] = float("inf")
    return Verification(runtime, sum(PROBES), worst[0], worst[1], worst[2], tolerance, ())


def metadata(bundle: Bundle) -> dict[str, str]:
    """What an exported file says of itself: texts by name."""
    return {
        "labels": json.dumps(list(bundle.labels), ensure_ascii=False),
        "preprocess": json.dumps(bundle.preprocess.to_dict()),
        "temperature": repr(bundle.temperature),
        "network": json.dumps({"name": bundle.network, "arguments": bundle.arguments}),
        "input": "N x C x H x W, 0..255, resized as `preprocess` says; normalisation is in the graph",
    }


def _onnx_bytes(bundle: Bundle, pixel_type: PixelType) -> bytes:
    preprocess = bundle.preprocess
    shape = (preprocess.in_chans, preprocess.height, preprocess.width)
    return to_onnx(
        rewritten(bundle), shape, pixel_type, temperature=bundle.temperature, metadata=metadata(bundle)
    )


def _write_onnx(bundle: Bundle, pixel_type: PixelType, target: Path) -> None:
    require("onnxruntime", "checking an ONNX file")
    target.write_bytes(_onnx_bytes(bundle, pixel_type))


def _run_onnx(path: Path, pixels: Pixels, pixel_type: PixelType) -> tuple[str, Logits, Logits]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run([LOGITS, PROBABILITIES], {INPUT: pixels.astype(pixel_type)})
    return f"ONNX Runtime {onnxruntime.__version__}", logits, probabilities


def _write_openvino(bundle: Bundle, pixel_type: PixelType, target: Path) -> None:
    require("openvino", "export to OpenVINO")
    import openvino

    model = openvino.Core().read_model(_onnx_bytes(bundle, pixel_type))
    for name, text in metadata(bundle).items():
        model.set_rt_info(text, ["inception", name])
    openvino.save_model(model, target, compress_to_fp16=False)


def _run_openvino(path: Path, pixels: Pixels, pixel_type: PixelType) -> tuple[str, Logits, Logits]:
    import openvino

    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({INPUT: pixels.astype(pixel_type)})
    return f"OpenVINO {openvino.get_version().split('-')[0]}", results[LOGITS], results[PROBABILITIES]


class _WithProbabilities(nn.Module):
    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(images)
        return {LOGITS: logits, PROBABILITIES: torch.softmax(logits / self.temperature, dim=1)}


def _write_torch(bundle: Bundle, pixel_type: PixelType, target: Path) -> None:
    preprocess = bundle.preprocess
    shape = (preprocess.in_chans, preprocess.height, preprocess.width)
    module = _WithProbabilities(rewritten(bundle), bundle.temperature).eval()
    example = torch.from_numpy(probe_images(shape, 2).astype(pixel_type))
    count = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: count},))
    torch.export.save(program, target, extra_files={f"{k}.json": v for k, v in metadata(bundle).items()})


def _run_torch(path: Path, pixels: Pixels, pixel_type: PixelType) -> tuple[str, Logits, Logits]:
    module: Any = torch.export.load(path).module()
    with torch.no_grad():
        results = module(torch.from_numpy(pixels.astype(pixel_type)))
    return f"PyTorch {torch.__version__}", results[LOGITS].numpy(), results[PROBABILITIES].numpy()


_FORMS: dict[str, tuple[Callable[..., None], Callable[..., tuple[str, Logits, Logits]]]] = {
    "onnx": (_write_onnx, _run_onnx),
    "openvino": (_write_openvino, _run_openvino),
    "torch-export": (_write_torch, _run_torch),
}
