"""Inference speed on a CPU: our optimised bundles against every engine given the same network unmodified.

    python benchmarks/inference.py --json inference.json
    python benchmarks/inference.py --cold googlenet_5h-fast --jpeg googlenet_5h-fast

Weights are random and the same for all: speed does not depend on them. Engines take turns within each
round, so that a noisy machine disturbs all alike; `ratio` is the median over the rounds of our time divided
by the engine's at the same precision. Ours reads uint8 pixels and normalises inside; the others are handed
normalised floats. "OpenVINO" is what its PyTorch front end makes of the module with torch's own LRN,
"OpenVINO, LRN operator" the same network given to it as a graph. int8 is NNCF's post-training quantisation
for all, calibrated on the same pictures.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from inception.data.preprocess import Preprocess
from inception.errors import InceptionError
from inception.nets.network import Network
from inception.nets.registry import build_network
from inception.runtime.benchmark import (
    OURS,
    eager_work,
    gflop_per_image,
    measure,
    openvino_models,
    openvino_work,
    unmodified_works,
)
from inception.runtime.engines import available_cores
from inception.runtime.loading import load
from inception.runtime.opening import open_engine
from inception.runtime.optimize import fastest_openvino_model, native_artefacts, onnx_artefacts, serialized
from inception.runtime.plan import Plan
from inception.runtime.quantize import quantize_all
from inception.runtime.timing import Work, gemm_peak, interleaved, machine, probe_images
from inception.weights.bundle import Bundle

MODELS = ("googlenet", "googlenet_5h", "inception_v3", "inception_v4", "inception_resnet_v2")
PRECISIONS = ("float32", "bfloat16", "int8")
ENGINES = ("native", "openvino", "onnxruntime")
CALIBRATION_IMAGES, PHOTO = 8, (500, 375)


def make_bundle(name: str) -> Bundle:
    """A bundle of random weights at the network's own image size."""
    torch.manual_seed(0)
    network = build_network(name, aux_logits=False)
    labels = tuple(str(index) for index in range(network.num_classes))
    preprocess = Preprocess(height=network.image_size, width=network.image_size)
    return Bundle(name, network.arguments, labels, preprocess, network.state_dict())


def our_works(
    bundle: Bundle, pixels: np.ndarray, precisions: tuple[str, ...], threads: int, engines: tuple[str, ...]
) -> dict:
    """The network as `optimize` would run it at each precision: in the fastest of these engines."""
    works: dict[tuple[str, str], Work] = {}
    for precision in precisions:
        candidates: dict[str, Work] = {}
        for engine in engines if precision != "int8" else ("openvino",):
            plan = Plan(engine, precision, threads, len(pixels))
            made = artefacts_for(bundle, plan, pixels.shape[1:])
            if made is not None:
                candidates[engine] = partial(open_engine(plan, made[0]), pixels)
                print(
                    f"{bundle.network}, batch {len(pixels)}, {precision}, {engine}: {made[1]}",
                    file=sys.stderr,
                )
        times = {name: statistics.median(t) for name, t in interleaved(candidates, 7).items()}
        best = min(times, key=lambda name: times[name])
        found = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in times.items())
        print(f"{bundle.network}, batch {len(pixels)}, {precision}: {best} ({found})", file=sys.stderr)
        works[OURS, precision] = candidates[best]
    return works


def artefacts_for(bundle: Bundle, plan: Plan, shape: tuple[int, int, int]) -> tuple[dict, str] | None:
    """The files of an engine at the plan's precision, and what was found; None where it has no such one."""
    if plan.engine == "native":
        return native_artefacts(bundle, plan, shape)
    if plan.engine == "onnxruntime":
        return onnx_artefacts(bundle, plan, shape) if plan.precision == "float32" else None
    network, note = fastest_openvino_model(bundle, plan, shape)
    if plan.precision == "int8":
        network = quantize_all(network, probe_images(shape, CALIBRATION_IMAGES, seed=9))
    return serialized(network), note


def peer_works(name: str, images: torch.Tensor, precisions: tuple[str, ...]) -> dict:
    """torchvision's and timm's own models in eager PyTorch, where they have the network."""
    models: dict[str, nn.Module] = {}
    if name.startswith("googlenet") or name == "inception_v3":
        import torchvision

        make = getattr(torchvision.models, name if name == "inception_v3" else "googlenet")
        models["torchvision eager"] = make(init_weights=False)
    if name in ("inception_v3", "inception_v4", "inception_resnet_v2"):
        import timm

        models["timm eager"] = timm.create_model(name, pretrained=False)
    return {
        (engine, precision): eager_work(model, images, precision)
        for engine, model in models.items()
        for precision in precisions
        if precision != "int8"
    }


def keras_work(name: str, images: torch.Tensor) -> dict:
    """Keras's own application on its PyTorch backend (set KERAS_BACKEND=torch)."""
    import keras

    applications = {"inception_v3": "InceptionV3", "inception_resnet_v2": "InceptionResNetV2"}
    if name not in applications:
        return {}
    model = getattr(keras.applications, applications[name])(weights=None)
    array = images.permute(0, 2, 3, 1).contiguous()

    def work() -> object:
        with torch.inference_mode():
            return model(array, training=False)

    return {("Keras (PyTorch)", "float32"): work}


def quantized_peers(network: Network, images: torch.Tensor, preprocess: Preprocess, threads: int) -> dict:
    """OpenVINO running the unmodified network in int8, calibrated on the same pictures as ours."""
    pixels = torch.from_numpy(probe_images(tuple(images.shape[1:]), CALIBRATION_IMAGES, seed=9))
    normalized = preprocess.normalize(pixels).numpy()
    return {
        (engine, "int8"): openvino_work(quantize_all(model, normalized), images, "int8", threads)
        for engine, model in openvino_models(network, images).items()
    }


def measure_model(name: str, batch: int, options: argparse.Namespace) -> list[dict]:
    """All engines on one network at one batch size."""
    bundle = make_bundle(name)
    network, preprocess = bundle.build(), bundle.preprocess
    pixels = probe_images((3, preprocess.height, preprocess.width), batch)
    images = preprocess.normalize(torch.from_numpy(pixels))
    precisions = tuple(options.precision or PRECISIONS)
    works = our_works(bundle, pixels, precisions, options.threads, tuple(options.engine))
    works |= unmodified_works(network, images, precisions, options.threads, {})
    if "int8" in precisions:
        works |= quantized_peers(network, images, preprocess, options.threads)
    works |= peer_works(name, images, precisions)
    if options.keras:
        works |= keras_work(name, images)
    rows = measure(name, batch, works, options.rounds)
    gflop = gflop_per_image(network, (preprocess.height, preprocess.width))
    peaks = {kind: gemm_peak(kind, options.threads) for kind in ("float32", "bfloat16")}
    for row in rows:
        row["gflops"] = gflop * row["images_per_s"]
        row["share_of_peak"] = (
            row["gflops"] / peaks["float32" if row["precision"] == "float32" else "bfloat16"]
        )
    return rows


def photographs(count: int) -> list[bytes]:
    """JPEG files of 500 x 375 pixels: smooth random pictures, quality 90."""
    files = []
    for pixels in probe_images((3, PHOTO[1], PHOTO[0]), count, seed=4):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def torchvision_pipeline() -> Callable[[bytes], object]:
    """torchvision's documented way from a file to the five best classes, in float32."""
    import torchvision
    from torchvision.transforms import v2

    model = torchvision.models.googlenet(init_weights=False).eval()
    steps = [v2.Resize(256, antialias=True), v2.CenterCrop(224), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True)]
    steps += [v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    transform = v2.Compose(steps)

    def run(data: bytes) -> object:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        with torch.inference_mode():
            return model(transform(image)[None]).softmax(1).topk(5)

    return run


def measure_jpeg(path: Path, rounds: int) -> dict:
    """Processor time from JPEG bytes to the five best labels, and how often the best is that of float32."""
    fast, exact = load(path), load(path, device="cpu", precision="float32")
    theirs, files = torchvision_pipeline(), photographs(24)
    seconds: dict[str, list[float]] = {OURS: [], "torchvision eager": []}
    fast.predict(files[:2])
    theirs(files[0])
    for _ in range(rounds):
        for name, work in (
            (OURS, lambda: fast.predict(files)),
            ("torchvision eager", lambda: [*map(theirs, files)]),
        ):
            started = time.process_time()
            work()
            seconds[name].append((time.process_time() - started) / len(files))
    pairs = zip(fast.predict(files), exact.predict(files), strict=True)
    agreement = statistics.mean(mine.label == reference.label for mine, reference in pairs)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return {
        "cpu_ms_per_image": medians,
        "speedup": medians["torchvision eager"] / medians[OURS],
        "agreement": agreement,
    }


TORCHVISION_START = """
import sys, torch, torchvision
from PIL import Image
from torchvision.models import GoogLeNet_Weights
model = torchvision.models.googlenet(init_weights=False).eval()
model.load_state_dict(torch.load(sys.argv[2], weights_only=True))
image = GoogLeNet_Weights.IMAGENET1K_V1.transforms()(Image.open(sys.argv[1]).convert("RGB"))
with torch.inference_mode():
    print(model(image[None]).softmax(1).topk(5))
"""


def measure_cold(path: Path, rounds: int, folder: Path) -> dict:
    """Seconds from the start of a process to its first answer, and the most memory it took, in MB."""
    import torchvision

    photo, weights = folder / "photo.jpg", folder / "googlenet.pth"
    photo.write_bytes(photographs(1)[0])
    torch.save(torchvision.models.googlenet(init_weights=False).state_dict(), weights)
    ours = [
        sys.executable,
        "-c",
        "from inception.cli.main import main; main()",
        "predict",
        str(path),
        str(photo),
    ]
    commands = {
        OURS: [*ours, "--json"],
        "torchvision eager": [sys.executable, "-c", TORCHVISION_START, str(photo), str(weights)],
    }
    found: dict[str, dict[str, float]] = {}
    for name, command in commands.items():
        measurer = [sys.executable, "-c", _MEASURER, *command]
        results = [
            json.loads(subprocess.run(measurer, check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds)
        ]
        found[name] = {key: statistics.median(result[key] for result in results) for key in results[0]}
    return found


_MEASURER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak}))
"""


def print_rows(rows: list[dict]) -> None:
    """One table for each network and batch size."""
    table = Table(title=f"{rows[0]['model']}, batch {rows[0]['batch']}, {rows[0]['rounds']} rounds in turns")
    for heading in (
        "engine",
        "precision",
        "median ms",
        "quartiles",
        "images/s",
        "ours / theirs",
        "GFLOP/s",
        "of peak",
    ):
        table.add_column(heading, justify="left" if heading in ("engine", "precision") else "right")
    for row in rows:
        table.add_row(
            row["engine"],
            row["precision"],
            f"{row['median_ms']:.2f}",
            f"{row['quartile_low_ms']:.2f} to {row['quartile_high_ms']:.2f}",
            f"{row['images_per_s']:.1f}",
            f"{row['ratio']:.3f}",
            f"{row['gflops']:.0f}",
            f"{100 * row['share_of_peak']:.0f}%",
        )
    Console(width=130).print(table)


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS)
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES, help="ours are chosen among")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--keras", action="store_true", help="also Keras on its PyTorch backend")
    parser.add_argument("--jpeg", type=Path, help="an optimised bundle: from JPEG bytes to labels instead")
    parser.add_argument("--cold", type=Path, help="an optimised bundle: start of a process instead")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run, print the tables, write the JSON after each."""
    import tempfile

    options = parse()
    torch.set_num_threads(options.threads)
    found: dict[str, object] = {"rows": [], "machine": machine()}
    if options.jpeg or options.cold:
        if options.jpeg:
            found["jpeg"] = measure_jpeg(options.jpeg, options.rounds)
        if options.cold:
            with tempfile.TemporaryDirectory() as folder:
                found["cold"] = measure_cold(options.cold, options.rounds, Path(folder))
        print(json.dumps(found, indent=2))
    else:
        for name in options.model:
            for batch in options.batch:
                try:
                    rows = measure_model(name, batch, options)
                except InceptionError as error:
                    sys.exit(f"{name}: {error}")
                print_rows(rows)
                found["rows"] += rows  # type: ignore[operator]
                if options.json:
                    options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
