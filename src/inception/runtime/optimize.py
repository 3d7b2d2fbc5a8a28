"""`optimize`: every engine that is installed is tried on this machine, and the fastest right one is kept."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inception.errors import BundleError, InceptionError, UsageError, first_line
from inception.files import atomic_directory
from inception.runtime.answering import Logits, Pixels
from inception.runtime.calibration import Examples, gather_examples, run_all, top1
from inception.runtime.classifier import Classifier
from inception.runtime.compiled import TorchRunner
from inception.runtime.device import choose_precision
from inception.runtime.engines import EXTRA, Runner, available_cores, require
from inception.runtime.forms import Form, choose_form, graph_of
from inception.runtime.native.choosing import fastest_network
from inception.runtime.native.from_onnx import read_graph
from inception.runtime.opening import open_engine
from inception.runtime.plan import ARTEFACTS, EngineName, Plan, PlanPrecision, write_plan
from inception.runtime.quantize import MAX_DROP, quantize
from inception.runtime.timing import Work, interleaved, machine, probe_images, ratio, summary
from inception.weights.bundle import Bundle, load_bundle, save_bundle
from inception.weights.manifest import require_one_label

FLOAT32_TOLERANCE = 1e-4
"""Largest logit difference from the original, relative to the largest logit, that float32 may have."""
DEFAULT_ENGINES: tuple[EngineName, ...] = ("native", "openvino", "onnxruntime", "torch")
ORIGINAL = "original (PyTorch, float32)"
Say = Callable[[str], None]


@dataclass
class Candidate:
    """One way to run the bundle.

    Attributes:
        plan: what would be stored.
        artefacts: the files the plan needs.
        runner: the engine, ready.
        judged: what `Judge.deviation` found; empty before.
        note: what its making reported.
    """

    plan: Plan
    artefacts: dict[str, bytes]
    runner: Runner
    judged: dict[str, Any]
    note: str = ""

    @property
    def name(self) -> str:
        """Engine and precision."""
        return f"{self.plan.engine} {self.plan.precision}"


@dataclass(frozen=True)
class Request:
    """What the user asks of `optimize_bundle`.

    Attributes:
        precision: `float32`, `bfloat16`, `int8`, or `auto`: the fastest that loses at most half a point of
            top-1.
        calibrate, validate: images for `calibration.gather_examples`; int8 needs them.
        batch: images at a time.
        threads: 0 means every core, and half of them when that is faster.
        engines: to be tried.
        rounds: measurements of each.
        data_root: where named data sets are kept.
    """

    precision: str = "auto"
    calibrate: str | None = None
    validate: str | None = None
    batch: int = 1
    threads: int = 0
    engines: tuple[EngineName, ...] = DEFAULT_ENGINES
    rounds: int = 20
    data_root: Path | None = None

    def precisions(self) -> tuple[PlanPrecision, ...]:
        """The precisions to be tried. Raises UsageError where they, or the images, do not fit together."""
        if self.precision == "int8" and self.calibrate is None:
            raise UsageError("int8 is calibrated on images like those it will see: give --calibrate DATA")
        if self.validate is not None and self.calibrate is None:
            raise UsageError(
                "--validate judges what is calibrated on other images: give --calibrate DATA too"
            )
        if self.precision != "auto":
            return (self.precision,)  # type: ignore[return-value]
        import torch

        fast = choose_precision("auto", torch.device("cpu")) == "bfloat16"
        wanted: list[PlanPrecision] = ["float32"]
        if fast:
            wanted.append("bfloat16")
        if self.calibrate is not None:
            wanted.append("int8")
        return tuple(wanted)


def optimize_bundle(path: Path, output: Path, request: Request, say: Say = lambda text: None) -> Plan:
    """Make the bundle at `path` fast on this machine, and write it with its plan to the folder `output`.

    Every candidate is measured in turns with the others and compared with the original in float32. One that
    deviates too much is left out, and said so. `say` is told what happens.

    Raises UsageError for a request that cannot be met, BundleError when `output` cannot be written.
    """
    if output.suffix == ".zip":
        raise UsageError("an optimised bundle is a folder: give -o a name that does not end in .zip")
    precisions = request.precisions()
    bundle = load_bundle(path)
    require_one_label(bundle.thresholds, "inception optimize")
    threads = request.threads or available_cores()
    reference = Classifier(bundle, "cpu")
    examples = None
    if request.calibrate is not None:
        say("reading images to calibrate and to measure on")
        examples = gather_examples(bundle, request.calibrate, request.validate, request.data_root)
        say(examples.source)
    judge = Judge(reference.compute, bundle, examples)
    candidates, skipped = _candidates(bundle, request, precisions, threads, judge, say)
    kept = [candidate for candidate in candidates if _fits(candidate, judge, skipped, say)]
    if not kept:
        raise UsageError(f"no engine can run this bundle as asked: {_listed(skipped)}; {EXTRA} adds engines")
    chosen, rows = _choose(kept, reference, bundle, request, say)
    if not request.threads:
        chosen = _with_fewer_threads(chosen, bundle, request)
    plan = replace(
        chosen.plan,
        measured=tuple(rows),
        judged=chosen.judged,
        machine=machine(),
        skipped=skipped,
    )
    write_optimized(bundle, plan, chosen.artefacts, output)
    return plan


class Judge:
    """Compares candidates with the original network in float32."""

    def __init__(self, reference: Runner, bundle: Bundle, examples: Examples | None) -> None:
        preprocess = bundle.preprocess
        self.shape = (preprocess.in_chans, preprocess.height, preprocess.width)
        self.probe = probe_images(self.shape, 8) if examples is None else examples.held_out[:32]
        self.examples = examples
        self.logits = reference(self.probe)
        self.held_out: Logits | None = None if examples is None else run_all(reference, examples.held_out)

    def deviation(self, runner: Runner) -> dict[str, Any]:
        """`relative`: largest logit difference over the largest logit; `agreement` of the best answers.

        With examples also `top1`, `top1_float32` and their difference `top1_drop`, on the held-out images.
        """
        logits = runner(self.probe)
        result: dict[str, Any] = {
            "images": len(self.probe),
            "relative": relative_difference(logits, self.logits),
            "agreement": top1(logits, self.logits.argmax(axis=1)),
        }
        if self.examples is not None and self.held_out is not None:
            answers = self.examples.correct_answers(self.held_out)
            found = top1(run_all(runner, self.examples.held_out), answers)
            before = top1(self.held_out, answers)
            result |= {"top1": found, "top1_float32": before, "top1_drop": before - found}
            result |= {"held_out": len(answers), "source": self.examples.source}
        return result


def relative_difference(found: Logits, expected: Logits) -> float:
    """Largest absolute difference, divided by the largest absolute expected value."""
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _candidates(
    bundle: Bundle,
    request: Request,
    precisions: Iterable[PlanPrecision],
    threads: int,
    judge: Judge,
    say: Say,
) -> tuple[list[Candidate], dict[str, str]]:
    candidates: list[Candidate] = []
    skipped: dict[str, str] = {}
    for precision in precisions:
        for engine in request.engines:
            plan = Plan(engine, precision, threads, request.batch)
            try:
                candidate = _candidate(bundle, plan, judge)
            except (InceptionError, RuntimeError, ImportError) as error:
                skipped[f"{engine} {precision}"] = first_line(error)
                say(f"left out {engine} {precision}: {first_line(error)}")
                continue
            if candidate is not None:
                say(f"made {candidate.name}{': ' + candidate.note if candidate.note else ''}")
                candidates.append(candidate)
    return candidates, skipped


def _candidate(bundle: Bundle, plan: Plan, judge: Judge) -> Candidate | None:
    """None where the engine has no such precision."""
    note = ""
    if plan.engine in ("torch", "inductor"):
        if plan.precision == "int8":
            return None
        artefacts: dict[str, bytes] = {}
        runner: Runner = TorchRunner(bundle, plan)
    elif plan.engine == "onnxruntime":
        if plan.precision != "float32":
            return None
        artefacts, note = onnx_artefacts(bundle, plan, judge.shape)
        runner = open_engine(plan, artefacts)
    elif plan.engine == "native":
        if plan.precision == "int8":
            return None
        artefacts, note = native_artefacts(bundle, plan, judge.shape)
        runner = open_engine(plan, artefacts)
    else:
        artefacts, note = openvino_artefacts(bundle, plan, judge)
        runner = open_engine(plan, artefacts)
    runner(judge.probe[: plan.batch])
    return Candidate(plan, artefacts, runner, {}, note)


def openvino_artefacts(bundle: Bundle, plan: Plan, judge: Judge) -> tuple[dict[str, bytes], str]:
    """The rewritten network as OpenVINO's two files, quantised where the plan says int8, and a remark."""
    model, note = fastest_openvino_model(bundle, plan, judge.shape)
    if plan.precision == "int8":
        if judge.examples is None or judge.held_out is None:
            raise UsageError("int8 needs images to calibrate on")
        quantized = quantize(model, judge.examples, judge.held_out, plan.threads)
        model, note = quantized.model, f"{note}; {quantized.note}"
    return serialized(model), note


def fastest_openvino_model(bundle: Bundle, plan: Plan, shape: tuple[int, int, int]) -> tuple[Any, str]:
    """The network in the form that OpenVINO runs fastest here, not yet quantised, and what was found."""
    require("openvino", "the engine openvino")
    import openvino

    pixels = probe_images(shape, plan.batch, seed=1)

    def prepare(graph: bytes) -> Work:
        files = serialized(openvino.Core().read_model(graph))
        return _work(open_engine(plan, files), pixels)

    form, found = choose_form(bundle, prepare)
    return openvino.Core().read_model(graph_of(bundle, form)), _tried(found)


def onnx_artefacts(bundle: Bundle, plan: Plan, shape: tuple[int, int, int]) -> tuple[dict[str, bytes], str]:
    """The network in the form that ONNX Runtime runs fastest here, as its file, and what was found."""
    require("onnxruntime", "the engine onnxruntime")
    pixels = probe_images(shape, plan.batch, seed=1)
    form, found = choose_form(bundle, lambda graph: _work(open_engine(plan, {"model.onnx": graph}), pixels))
    return {"model.onnx": graph_of(bundle, form)}, _tried(found)


def native_artefacts(bundle: Bundle, plan: Plan, shape: tuple[int, int, int]) -> tuple[dict[str, bytes], str]:
    """The network as the native engine computes it fastest here, as its files, and what was found."""
    require("onnx", "making a network for the native engine")
    graph = graph_of(bundle, Form(response_norm="operator"))
    return fastest_network(read_graph(graph), plan, probe_images(shape, plan.batch, seed=1))


def _tried(found: dict[str, float]) -> str:
    return "time with against without: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items())


def serialized(model: Any) -> dict[str, bytes]:
    """An OpenVINO network as its two files, by name, its weights as they are."""
    import openvino

    names = ARTEFACTS["openvino"]
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / names[0], compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in names}


def _fits(candidate: Candidate, judge: Judge, skipped: dict[str, str], say: Say) -> bool:
    candidate.judged = judge.deviation(candidate.runner)
    if candidate.note:
        candidate.judged["note"] = candidate.note
    relative, drop = candidate.judged["relative"], candidate.judged.get("top1_drop", 0.0)
    reason = ""
    if candidate.plan.precision == "float32" and not relative <= FLOAT32_TOLERANCE:
        reason = f"its logits differ by {relative:.1e} of the largest, more than {FLOAT32_TOLERANCE:.0e}"
    elif not drop <= MAX_DROP:
        reason = f"it loses {100 * drop:.2f} points of top-1, more than {100 * MAX_DROP:.1f}"
    elif not np.isfinite(relative):
        reason = "its logits are not finite"
    if reason:
        skipped[candidate.name] = reason
        say(f"left out {candidate.name}: {reason}")
    return not reason


def _choose(
    kept: list[Candidate], reference: Classifier, bundle: Bundle, request: Request, say: Say
) -> tuple[Candidate, list[dict[str, Any]]]:
    pixels = _measured_pixels(bundle, request)
    works: dict[str, Work] = {ORIGINAL: lambda: reference.compute(pixels)}
    for candidate in kept:
        works[candidate.name] = _work(candidate.runner, pixels)
    say(f"measuring {len(works)} candidates in turns, {request.rounds} rounds")
    times = interleaved(works, request.rounds)
    medians = {name: summary(seconds, request.batch)["median_ms"] for name, seconds in times.items()}
    chosen = min(kept, key=lambda candidate: medians[candidate.name])
    rows = [
        {
            "model": bundle.network,
            "batch": request.batch,
            "precision": "float32" if name == ORIGINAL else name.split()[1],
            "engine": name if name == ORIGINAL else name.split()[0],
            **summary(seconds, request.batch),
            "ratio": ratio(times[chosen.name], seconds),
            "deviation": next((c.judged["relative"] for c in kept if c.name == name), 0.0),
        }
        for name, seconds in times.items()
    ]
    return chosen, rows


def _work(runner: Runner, pixels: Pixels) -> Work:
    return lambda: runner(pixels)


def _measured_pixels(bundle: Bundle, request: Request) -> Pixels:
    preprocess = bundle.preprocess
    return probe_images((preprocess.in_chans, preprocess.height, preprocess.width), request.batch, seed=1)


def _with_fewer_threads(chosen: Candidate, bundle: Bundle, request: Request) -> Candidate:
    """The candidate with half its threads where that is faster (as on cores that share their units)."""
    fewer = chosen.plan.threads // 2
    if fewer < 1:
        return chosen
    plan = replace(chosen.plan, threads=fewer)
    torch_made = plan.engine in ("torch", "inductor")
    runner = TorchRunner(bundle, plan) if torch_made else open_engine(plan, chosen.artefacts)
    pixels = _measured_pixels(bundle, request)
    times = interleaved({"all": _work(chosen.runner, pixels), "fewer": _work(runner, pixels)}, request.rounds)
    if ratio(times["fewer"], times["all"]) < 1.0:
        return replace(chosen, plan=plan, runner=runner)
    return chosen


def write_optimized(bundle: Bundle, plan: Plan, artefacts: dict[str, bytes], output: Path) -> None:
    """Write the bundle with its plan to the folder `output`, atomically.

    Raises BundleError when the place cannot be written, or holds something that is not a bundle.
    """
    occupied = output.exists() and not (output.is_dir() and (output / "bundle.json").exists())
    if occupied and not (output.is_dir() and not any(output.iterdir())):
        raise BundleError(f"{output} exists and is not a bundle: choose another place or remove it")
    try:
        with atomic_directory(output) as folder:
            save_bundle(bundle, folder / "bundle")
            for file in (folder / "bundle").iterdir():
                file.rename(folder / file.name)
            (folder / "bundle").rmdir()
            write_plan(plan, artefacts, folder)
    except OSError as error:
        raise BundleError(f"cannot write the bundle to {output}: {error.strerror or error}") from error


def _listed(skipped: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "no engine was tried"
