"""Why an answer: where in the image it comes from, and what each branch gave, for one image at a time."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from inception.errors import UsageError
from inception.explain.attribution import METHODS, SIGNED, Options, Question, attribute, cam_layer
from inception.explain.pictures import blur, coloured, enlarged, overlay, seen
from inception.explain.trace import share_by_kind, trace_branches
from inception.nets.network import Network
from inception.runtime.classifier import Classifier

PICTURES = ("seen", "map", "overlay")
# Fewer passes than `inception explain` makes: explanations hold up the requests behind them, and take memory.
OPTIONS = Options(steps=8, samples=8)
_PLACES = 3


def usable_methods(classifier: Classifier) -> tuple[str, ...]:
    """The methods that can explain this classifier's answers; none where its engine has no gradients.

    An optimised bundle could be explained by the network it was made from, but that is not what answers.
    """
    if not (isinstance(classifier, Classifier) and isinstance(classifier.model, Network)):
        return ()
    preprocess = classifier.preprocess
    grey = torch.zeros(1, preprocess.in_chans, preprocess.height, preprocess.width, device=classifier.device)
    try:
        cam_layer(classifier.model, grey, Question(0), None)
    except UsageError:  # no map of more than one place
        return tuple(name for name in METHODS if not name.startswith("grad-cam"))
    return tuple(METHODS)


def explain(
    classifier: Classifier, pixels: Tensor, target: int, method: str, wanted: Sequence[str]
) -> tuple[dict[str, Any], bytes]:
    """What speaks for the class `target` in one image.

    Args:
        classifier: one that `usable_methods` finds methods for.
        pixels: uint8 C x H x W, as `Preprocess.apply` makes them.
        target: position of the class.
        method: one of `usable_methods`.
        wanted: pictures, among `PICTURES`.

    Returns: JSON-safe values (`method`; `signed`: whether the map also shows what speaks against; `places`:
    the share of a 3 x 3 grid in what speaks for the class; `modules` and `kinds`: the branches, as in
    `inception.explain.trace`; `sizes`: bytes of each picture), and the pictures as PNG files, one behind
    another.
    """
    preprocess, network = classifier.preprocess, classifier.model
    images = preprocess.normalize(pixels[None].to(classifier.device))
    question = Question(target)
    found = attribute(network, images, question, method, OPTIONS)[0].cpu()
    traces = trace_branches(network, images[0], question)
    signed, picture = method in SIGNED, seen(pixels, preprocess)
    made = {
        "seen": lambda: picture,
        "map": lambda: _coloured_map(found, signed),
        "overlay": lambda: enlarged(overlay(picture, found, signed)),
    }
    files = [_png(made[name]()) for name in wanted]
    values = {
        "method": method,
        "signed": signed,
        "places": _places(found),
        "modules": [trace.to_dict() for trace in traces],
        "kinds": {
            kind: {"activation": activation, "gradient": gradient}
            for kind, (activation, gradient) in share_by_kind(traces).items()
        },
        "sizes": {name: len(file) for name, file in zip(wanted, files, strict=True)},
    }
    return values, b"".join(files)


def _coloured_map(found: Tensor, signed: bool) -> Image.Image:
    """The map H x W as RGBA, the more opaque the stronger it is, smoothed as overlays are."""
    strong, mean = blur(torch.stack([found.abs(), found])[:, None], 1 / 100)[:, 0]
    colours, strength = coloured(torch.where(mean < 0, -strong, strong), signed)
    picture = Image.fromarray(colours)
    opacity = strength if signed else strength**0.5
    picture.putalpha(Image.fromarray((255 * opacity).round().astype("uint8")))
    return picture


def _places(found: Tensor) -> list[list[float]]:
    """Shares of a grid's cells in the positive part of a map, rows from the top; zeros if it has none."""
    cells = F.adaptive_avg_pool2d(found.clamp(min=0)[None, None], _PLACES)[0, 0]
    shares: list[list[float]] = (cells / cells.sum().clamp(min=1e-30)).tolist()
    return [[round(share, 4) for share in row] for row in shares]


def _png(picture: Image.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
