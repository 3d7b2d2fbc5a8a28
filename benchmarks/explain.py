"""Time of pictures, maps, traces, atlases and dreams with a bundle: `python benchmarks/explain.py BUNDLE`.

Prints a table and, with `--json FILE`, writes it. The numbers are medians of `--runs` runs in one process,
with the threads that torch is given. `--only visualize` measures the rows that begin so. With `--precision`
it draws instead the same pictures in float32 and bfloat16, and says how unlike they are. The bundle should be
`googlenet_5h`; others must have the layers of GoogLeNet.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

import inception
from inception.explain.attribution import METHODS, Question, attribute
from inception.explain.dream import DreamSettings, dream, guided
from inception.explain.gallery import save_png
from inception.explain.layers import activations, borrowed
from inception.explain.objectives import Objective, channel, each, toward, whole_layer
from inception.explain.pictures import sheet
from inception.explain.render import Settings, render, to_image, to_input
from inception.explain.trace import trace_branches
from inception.explain.trust import curves, random_scores, randomisation
from inception.runtime.classifier import Classifier
from inception.runtime.timing import machine

Jobs = dict[str, Callable[[], object]]
CHANNELS = (("mixed3b", 10), ("mixed4a", 97), ("mixed4d", 139))


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of `work` over `runs`, after nothing: first runs count, as they do for users."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def photograph(name: str, width: int, height: int) -> Image.Image:
    """One of scikit-learn's photographs, resized."""
    return Image.fromarray(load_sample_image(name)).resize((width, height), Image.Resampling.LANCZOS)


def drawing_jobs(classifier: Classifier, steps: int) -> Jobs:
    """Pictures of channels, classes, galleries and atlas cells."""
    network, preprocess = classifier.model, classifier.preprocess

    def draw(objective: Objective, settings: Settings, count: int = 1) -> Callable[[], object]:
        return lambda: render(network, preprocess, objective, settings, [0] * count)

    jobs: Jobs = {}
    for precision in ("float32", "bfloat16"):
        settings = Settings(steps=steps, precision=precision)
        for layer, index in CHANNELS:
            name = f"visualize {layer}:{index} 128 px {steps} steps {precision}"
            jobs[name] = draw(channel(layer, index), settings)
    settings = Settings(steps=steps)
    jobs[f"visualize logits:250 128 px {steps} steps"] = draw(channel("logits", 250), settings)
    four = each([channel("mixed4c", index) for index in range(4)])
    jobs[f"gallery: 4 channels of mixed4c {steps // 2} steps"] = draw(four, Settings(steps=steps // 2), 4)
    directions = torch.rand(4, 512, generator=torch.Generator().manual_seed(0))
    cells = each([toward("mixed4c", direction) for direction in directions])
    jobs["atlas: 4 cells of mixed4c 96 px 128 steps"] = draw(cells, Settings(size=96, steps=128), 4)
    return jobs


def reading_jobs(classifier: Classifier) -> Jobs:
    """Attribution, its tests, and traces of one image."""
    network, preprocess = classifier.model, classifier.preprocess
    images = preprocess.normalize(preprocess.apply(photograph("china.jpg", 640, 427))[None])
    question = Question(int(network(images).argmax()))

    def explain(method: str) -> Callable[[], Tensor]:
        return lambda: attribute(network, images, question, method)

    jobs: Jobs = {f"explain {method}": explain(method) for method in METHODS}
    noise = torch.rand(preprocess.height, preprocess.width, generator=torch.Generator().manual_seed(0))
    jobs["explain: curves of one map"] = lambda: curves(network, images[0], noise, question)
    jobs["explain: scores of 5 random maps"] = lambda: random_scores(network, images[0], question)
    jobs["explain: sanity of grad-cam"] = lambda: randomisation(
        network, lambda chosen: attribute(chosen, images, question, "grad-cam")
    )
    jobs["trace"] = lambda: trace_branches(network, images[0], question)
    return jobs


def dreaming_jobs(classifier: Classifier) -> Jobs:
    """Dreams on large photographs."""
    network, preprocess = classifier.model, classifier.preprocess
    large = photograph("china.jpg", 1024, 768)
    guide = photograph("flower.jpg", 448, 299)
    mix = whole_layer("mixed3b") + 2.0 * channel("mixed4c", 447)

    def paint(objective: Objective, precision: str, picture: Image.Image = large) -> Callable[[], object]:
        return lambda: dream(network, preprocess, picture, objective, DreamSettings(precision=precision))

    return {
        "dream 1024x768 mixed4c float32": paint(whole_layer("mixed4c"), "float32"),
        "dream 1024x768 mixed4c": paint(whole_layer("mixed4c"), "auto"),
        "dream 1024x768 mixed4d": paint(whole_layer("mixed4d"), "auto"),
        "dream 1024x768 mixed3b + 2 mixed4c:447": paint(mix, "auto"),
        "dream 1024x768 guided, mixed4b": paint(guided(["mixed4b"], network, preprocess, guide), "auto"),
        "dream: one frame of a zoom, 480x360": paint(
            whole_layer("mixed4c"), "auto", photograph("china.jpg", 480, 360)
        ),
    }


def compare_precisions(classifier: Classifier, steps: int, picture: Path) -> list[dict[str, object]]:
    """The same seed in float32 and bfloat16, and another seed in float32: how unlike are they?"""
    network, preprocess = classifier.model, classifier.preprocess
    rows, records = [], []
    ways = (("float32", 0), ("bfloat16", 0), ("float32", 1))
    for layer, index in CHANNELS:
        objective, drawn, values = channel(layer, index), [], []
        for precision, seed in ways:
            [pixels] = render(
                network, preprocess, objective, Settings(steps=steps, seed=seed, precision=precision)
            )
            with borrowed(network), torch.no_grad():
                maps = activations(network, to_input(pixels[None], preprocess), [layer])
            drawn.append(pixels)
            values.append(float(objective.value(maps)))
        records.append(
            {
                "channel": f"{layer}:{index}",
                "activation_float32": values[0],
                "activation_bfloat16": values[1],
                "activation_other_seed": values[2],
                "mean_difference_bfloat16": float((drawn[0] - drawn[1]).abs().mean()),
                "mean_difference_other_seed": float((drawn[0] - drawn[2]).abs().mean()),
            }
        )
        print(json.dumps(records[-1]), flush=True)
        notes = [f"{layer}:{index}\nmean {value:.1f}" for value in values]
        rows.append([(to_image(pixels), note) for pixels, note in zip(drawn, notes, strict=True)])
    dreams, arrays = [], []
    for precision in ("float32", "bfloat16"):
        found = dream(
            network,
            preprocess,
            photograph("china.jpg", 480, 320),
            whole_layer("mixed4c"),
            DreamSettings(precision=precision),
        )
        dreams.append((found, f"dream\n{precision}"))
        arrays.append(np.asarray(found, dtype=np.float64) / 255)
    difference = float(np.abs(arrays[0] - arrays[1]).mean())
    original = np.asarray(photograph("china.jpg", 480, 320), dtype=np.float64) / 255
    change = float(np.abs(arrays[0] - original).mean())
    records.append({"dream": "mixed4c", "mean_difference_bfloat16": difference, "mean_change": change})
    print(json.dumps(records[-1]), flush=True)
    save_png(sheet(rows, ("float32", "bfloat16", "float32, seed 1")), picture)
    save_png(sheet([dreams]), picture.with_name(f"{picture.stem}-dream.png"))
    return records


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="rows that begin so")
    parser.add_argument("--precision", type=Path, metavar="PNG", help="compare float32 and bfloat16 instead")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=512, help="of a picture")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    classifier = inception.load(arguments.bundle, "cpu")
    rows: list[dict[str, object]]
    if arguments.precision:
        rows = compare_precisions(classifier, arguments.steps, arguments.precision)
    else:
        jobs = {
            **drawing_jobs(classifier, arguments.steps),
            **reading_jobs(classifier),
            **dreaming_jobs(classifier),
        }
        rows = []
        for name, work in jobs.items():
            if name.startswith(arguments.only):
                seconds = median_seconds(work, arguments.runs)
                rows.append({"what": name, "seconds": round(seconds, 2)})
                print(f"{name:56} {seconds:8.2f} s", flush=True)
    if arguments.json:
        where = {**machine(), "threads": arguments.threads, "runs": arguments.runs}
        arguments.json.write_text(json.dumps({"machine": where, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
