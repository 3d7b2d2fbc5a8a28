"""Our attribution beside captum's, our feature visualisation beside Lucent's, on the same weights.

    python benchmarks/explain_peers.py captum googlenet_5h --output pictures
    python benchmarks/explain_peers.py lucent googlenet_5h --output pictures

captum is in the extra `dev`. Lucent is the PyTorch port of Lucid; its pins are too old to be installed beside
PyTorch 2, so it is installed without them and two functions are put where it looks for them:

    pip install --no-deps torch-lucent kornia kornia-rs
    pip install ipython decorator

Pictures (PNG) and `captum.json` or `lucent.json` go to the folder `--output`. The photographs are those that
come with scikit-learn.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import inception
from inception.explain.attribution import SIGNED, Options, Question, attribute, cam_layer
from inception.explain.gallery import save_png
from inception.explain.layers import LOGITS, activations, borrowed, find_layer
from inception.explain.objectives import channel
from inception.explain.pictures import Cell, enlarged, overlay, seen, sheet
from inception.explain.render import Settings, render, to_image, to_input
from inception.explain.trust import curves, spearman
from inception.runtime.classifier import Classifier

METHODS = ("grad-cam", "integrated-gradients", "smoothgrad", "occlusion")
WAYS = ("ours, bfloat16", "ours, float32", "lucent", "lucent at 152")
CHANNELS = ("mixed3b:10", "mixed4a:97", "mixed4a:476", "mixed4c:447", "mixed4d:139")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and the seconds it took."""
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def captum_maps(classifier: Classifier, images: Tensor, target: int) -> dict[str, Callable[[], Tensor]]:
    """captum's maps H x W by our methods' names, with our defaults for steps, noise and windows."""
    from captum.attr import (
        IntegratedGradients,
        LayerAttribution,
        LayerGradCam,
        NoiseTunnel,
        Occlusion,
        Saliency,
    )

    network, options = classifier.model, Options()
    layer = network.get_submodule(cam_layer(network, images, Question(target), None))
    side = min(images.shape[2:])
    window = side // 7

    def grad_cam() -> Tensor:
        found = LayerGradCam(network, layer).attribute(images, target=target, relu_attributions=True)
        return LayerAttribution.interpolate(found, tuple(images.shape[2:]), "bilinear")[0, 0]

    def integrated() -> Tensor:
        found = IntegratedGradients(network).attribute(
            images, target=target, n_steps=options.steps, internal_batch_size=16
        )
        return found[0].sum(dim=0)

    def smooth() -> Tensor:
        torch.manual_seed(options.seed)
        deviation = float(options.noise * (images.max() - images.min()))
        found = NoiseTunnel(Saliency(network)).attribute(
            images,
            nt_samples=options.samples,
            nt_samples_batch_size=16,
            stdevs=deviation,
            target=target,
            abs=False,
        )
        return found[0].abs().sum(dim=0)

    def occlude() -> Tensor:
        found = Occlusion(network).attribute(
            images,
            sliding_window_shapes=(3, window, window),
            strides=(3, window // 2, window // 2),
            target=target,
            perturbations_per_eval=16,
        )
        return found[0, 0]

    return dict(zip(METHODS, (grad_cam, integrated, smooth, occlude), strict=True))


def beside_captum(classifier: Classifier, folder: Path) -> list[dict[str, Any]]:
    """One row for each photograph and method, and one picture of both maps."""
    network = classifier.model
    records: list[dict[str, Any]] = []
    rows: list[list[Cell]] = []
    for name in ("china.jpg", "flower.jpg"):
        batch = classifier.preprocess.apply(Image.fromarray(load_sample_image(name)))
        images = classifier.preprocess.normalize(batch[None])
        with torch.no_grad():
            target = int(network(images).argmax())
        question, picture = Question(target), seen(batch, classifier.preprocess)
        theirs = captum_maps(classifier, images, target)
        upper: list[Cell] = [(enlarged(picture), f"{classifier.labels[target]}\nours")]
        lower: list[Cell] = [(enlarged(picture), "captum")]
        for method in METHODS:
            own, seconds = timed(
                lambda method=method, images=images, question=question: attribute(
                    network, images, question, method
                )[0]
            )
            other, captum_seconds = timed(theirs[method])
            other = other.detach().float()
            trust, captum_trust = (curves(network, images[0], found, question) for found in (own, other))
            records.append({
                "photograph": name, "method": method,
                "largest_difference": float((own - other).abs().max() / other.abs().max()),
                "rank_correlation": spearman(own, other),
                "seconds": round(seconds, 2), "captum_seconds": round(captum_seconds, 2),
                "deletion": trust.deletion_score, "captum_deletion": captum_trust.deletion_score,
                "insertion": trust.insertion_score, "captum_insertion": captum_trust.insertion_score,
            })  # fmt: skip
            print(json.dumps(records[-1]), flush=True)
            upper.append((enlarged(overlay(picture, own, method in SIGNED)), ""))
            lower.append((enlarged(overlay(picture, other, method in SIGNED)), ""))
        rows += [upper, lower]
    save_png(sheet(rows, ("image", *METHODS)), folder / "captum.png")
    return records


def lucent_network(classifier: Classifier) -> nn.Module:
    """Lucent's own InceptionV1 with the bundle's weights."""
    from lucent.modelzoo.inceptionv1.InceptionV1 import InceptionV1

    theirs, network = InceptionV1(pretrained=False), classifier.model
    with torch.no_grad():
        for name, module in theirs.named_modules():
            if isinstance(module, nn.Conv2d):
                own = network.get_submodule(find_layer(network, name.removesuffix("_pre_relu_conv")))
                [convolution] = [layer for layer in own.modules() if isinstance(layer, nn.Conv2d)]
            elif isinstance(module, nn.Linear):
                convolution = network.fc
            else:
                continue
            module.weight.copy_(convolution.weight.reshape(module.weight.shape))
            module.bias.copy_(convolution.bias)
    return theirs.eval()


def prepare_lucent() -> None:
    """Put kornia's two functions where Lucent, written for kornia 0.4, looks for them."""
    import kornia
    import kornia.geometry.transform

    for name in ("get_rotation_matrix2d", "warp_affine"):
        if not hasattr(kornia, name):
            setattr(kornia, name, getattr(kornia.geometry.transform, name))


def lucent_picture(network: nn.Module, target: str, seed: int, steps: int, side: int | None) -> Tensor:
    """Lucent's `render_vis` with its defaults; `side`: resize to it instead of 224 before the network."""
    from lucent.optvis import param
    from lucent.optvis import render as theirs

    np.random.seed(seed)
    torch.manual_seed(seed)
    found = theirs.render_vis(
        network,
        target,
        lambda: param.image(128),
        thresholds=(steps,),
        progress=False,
        show_image=False,
        fixed_image_size=side,
    )
    return torch.from_numpy(found[-1][0]).permute(2, 0, 1)


def judged(classifier: Classifier, layer: str, index: int, picture: Tensor, side: int = 128) -> float:
    """The channel's mean for a finished picture 3 x H x W, in float32 and without movements."""
    pictures = nn.functional.interpolate(picture[None], (side, side), mode="bilinear", antialias=True)
    with borrowed(classifier.model), torch.no_grad():
        maps = activations(classifier.model, to_input(pictures, classifier.preprocess), [layer])
    return float(channel(layer, index).value(maps))


def beside_lucent(
    classifier: Classifier, folder: Path, channels: list[str], steps: int, seed: int, chosen: list[str]
) -> list[dict[str, Any]]:
    """One row for each channel and chosen way of drawing it, and one picture of all."""
    prepare_lucent()
    network, preprocess = classifier.model, classifier.preprocess
    theirs = lucent_network(classifier)
    noise = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    with borrowed(network), torch.no_grad():
        own = activations(network, to_input(noise, preprocess), [LOGITS])[LOGITS].softmax(dim=1)
        other = theirs(noise * 255 - 117)  # probabilities
    print(f"probabilities on noise: largest difference {float((own - other).abs().max()):.6f}, "
          f"largest value {float(own.max()):.4f}", flush=True)  # fmt: skip
    records: list[dict[str, Any]] = []
    rows: list[list[Cell]] = []
    for target in channels:
        layer, number = target.split(":")
        index = int(number)

        def ours(precision: str, layer: str = layer, index: int = index) -> Tensor:
            settings = Settings(steps=steps, seed=seed, precision=precision, size=128)
            return render(network, preprocess, channel(layer, index), settings)[0]

        works: tuple[Callable[[], Tensor], ...] = (
            lambda: ours("bfloat16"),
            lambda: ours("float32"),
            lambda: lucent_picture(theirs, target, seed, steps, None),  # noqa: B023
            lambda: lucent_picture(theirs, target, seed, steps, 152),  # noqa: B023
        )
        ways = dict(zip(WAYS, works, strict=True))
        row: list[Cell] = []
        for way in chosen:
            picture, seconds = timed(ways[way])
            values = [judged(classifier, layer, index, picture, side) for side in (128, 224)]
            records.append({
                "channel": target, "way": way, "seconds": round(seconds, 1),
                "activation_128": round(values[0], 2), "activation_224": round(values[1], 2),
            })  # fmt: skip
            print(json.dumps(records[-1]), flush=True)
            row.append((to_image(picture), f"{target}\n{seconds:.0f} s, mean {values[0]:.1f}"))
        rows.append(row)
        save_png(sheet(rows, tuple(chosen)), folder / "lucent.png")
    return records


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=("captum", "lucent"))
    parser.add_argument("bundle")
    parser.add_argument("--output", type=Path, default=Path("peers"))
    parser.add_argument("--channels", nargs="+", default=CHANNELS, help="of the comparison with Lucent")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="of drawing beside Lucent")
    parser.add_argument("--steps", type=int, default=512, help="of a picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    classifier = inception.load(arguments.bundle, "cpu")
    if arguments.peer == "captum":
        records = beside_captum(classifier, arguments.output)
    else:
        channels, ways = list(arguments.channels), list(arguments.ways)
        records = beside_lucent(classifier, arguments.output, channels, arguments.steps, arguments.seed, ways)
    (arguments.output / f"{arguments.peer}.json").write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
