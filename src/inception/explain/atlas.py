"""An activation atlas: what a network sees in a collection of images, laid out so that like lies near like.

Many places of many images become points; similar ones are laid side by side; each cell of a grid is drawn as
the picture that excites the network as the cell's points do on average. Source: Carter et al. 2019,
"Exploring Neural Networks with Activation Atlases" (Distill).
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inception.errors import DataError, UsageError
from inception.explain.examples import (
    Example,
    crop_around,
    network_input,
    read_batches,
    receptive_side,
)
from inception.explain.gallery import draw_missing, recipe_key
from inception.explain.layers import borrowed, find_layer, forward_taps
from inception.explain.objectives import toward
from inception.explain.pictures import GAP, PAPER
from inception.explain.render import Settings
from inception.runtime.classifier import Classifier
from inception.runtime.inputs import Item

LAYOUTS = ("umap", "tsne", "pca")
LEAST_POINTS = 10
RIM_FROM = 5
"""Maps of at least this side give no points at their rim, where padding is seen rather than the image."""
SHRINKAGE = 0.1
NEIGHBOURS = 15
EXAMPLES, CLASSES = 6, 5
_PICTURE_SIDE = 1600


@dataclass(frozen=True, eq=False)
class Points:
    """Places of images as a layer sees them.

    Attributes:
        layer: whose values they are.
        images: uint8 N x C x H x W, as the classifier's preprocessing gives them.
        names: path of every image.
        answers: the classifier's label for every image.
        rows: int64, which image each of the M points is from.
        places: int64, its position in the flattened map.
        size: height and width of that map.
        vectors: float32 M x D, the layer's values there.
    """

    layer: str
    images: Tensor
    names: tuple[str, ...]
    answers: tuple[str, ...]
    rows: Tensor
    places: Tensor
    size: tuple[int, int]
    vectors: Tensor


@dataclass(frozen=True, eq=False)
class AtlasCell:
    """One square of the grid.

    Attributes:
        row, column: where it is, from the upper left.
        members: positions of its points.
        mean: float32 D, their mean.
    """

    row: int
    column: int
    members: tuple[int, ...]
    mean: Tensor


def collect_points(
    classifier: Classifier,
    items: Iterable[Item],
    layer: str,
    *,
    places: int = 32,
    limit: int = 2000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Points:
    """Values of a layer at random places of every image; those at the map's rim are left out.

    Args:
        classifier: whose network is asked; it is left as it was.
        items: images as of `expand_inputs`; unreadable ones are passed over.
        layer: any tool's name of a stage or module; of one without a map, each image gives one point.
        places: most points an image.
        limit: most images.
        seed: of the places.
        progress: called with the number of images of each batch.

    Raises UsageError for an unknown layer, DataError when the images give fewer than `LEAST_POINTS` points.
    """
    network, path = classifier.model, find_layer(classifier.model, layer)
    batches: list[Tensor] = []
    names: list[str] = []
    answers: list[int] = []
    rows: list[Tensor] = []
    chosen: list[Tensor] = []
    vectors: list[Tensor] = []
    size = (1, 1)
    with borrowed(network), torch.no_grad():
        for some, batch in read_batches(classifier, islice(items, limit), progress):
            maps = forward_taps(network, network_input(classifier, batch), {path, ""})
            output = maps[path].float().cpu()
            output = output if output.dim() == 4 else output[:, :, None, None]
            size = (int(output.shape[2]), int(output.shape[3]))
            for number, features in enumerate(output):
                picked = _places(size, places, (seed, len(names) + number))
                vectors.append(features.flatten(1)[:, picked].T)
                chosen.append(picked)
                rows.append(torch.full_like(picked, len(names) + number))
            answers += maps[""].argmax(dim=1).tolist()
            names += some
            batches.append(batch)
    if sum(map(len, rows)) < LEAST_POINTS:
        raise DataError(f"an atlas needs at least {LEAST_POINTS} points; give more images that can be read")
    return Points(
        layer,
        torch.cat(batches),
        tuple(names),
        tuple(classifier.labels[answer] for answer in answers),
        torch.cat(rows),
        torch.cat(chosen),
        size,
        torch.cat(vectors),
    )


def _places(size: tuple[int, int], count: int, seed: tuple[int, int]) -> Tensor:
    height, width = size
    rim = 1 if min(size) >= RIM_FROM else 0
    inside = torch.arange(height * width).view(height, width)[rim : height - rim, rim : width - rim].flatten()
    order = np.random.default_rng(seed).permutation(len(inside))[:count]
    return inside[torch.from_numpy(np.sort(order))]


def check_layout(method: str) -> None:
    """Raise UsageError unless `method` is a layout that can be computed here."""
    if method not in LAYOUTS:
        raise UsageError(f"no layout is called '{method}'; there are {', '.join(LAYOUTS)}")
    if method == "umap" and find_spec("umap") is None:
        raise UsageError(
            "the layout umap needs an optional library: pip install 'inception[atlas]', or take --layout tsne"
        )


def lay_out(vectors: Tensor, method: str = "umap", seed: int = 0) -> NDArray[np.float64]:
    """Points in the unit square, those of small angle near each other: M x 2 (x, y).

    Args:
        vectors: M x D.
        method: `umap` (needs the extra `atlas`), `tsne`, or `pca` (linear, at once).
        seed: the result is the same for the same seed on the same machine.

    Raises UsageError for an unknown layout, or one whose library is missing.
    """
    check_layout(method)
    units = F.normalize(vectors.float(), dim=1).numpy()
    near = min(NEIGHBOURS, len(units) - 1)
    if method == "umap":
        # numba's first choice, TBB, was seen waiting for ever at the end of a process that OpenVINO's TBB
        # shared with it.
        os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
        from umap import UMAP

        found = UMAP(n_neighbors=near, min_dist=0.05, random_state=seed, n_jobs=1).fit_transform(units)
    elif method == "tsne":
        from sklearn.manifold import TSNE

        found = TSNE(perplexity=near / 1.5, init="pca", random_state=seed).fit_transform(units)
    else:
        from sklearn.decomposition import PCA

        found = PCA(2, svd_solver="full").fit_transform(units)
    found = np.asarray(found, dtype=np.float64)
    # A few stray points must not shrink the rest.
    low, high = np.quantile(found, (0.01, 0.99), axis=0)
    scaled: NDArray[np.float64] = np.clip((found - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    return scaled


def make_cells(points: Points, positions: NDArray[np.float64], grid: int, least: int) -> list[AtlasCell]:
    """The squares of a `grid` x `grid` atlas that hold at least `least` points, row by row.

    Raises UsageError when there is none.
    """
    squares = np.minimum((positions * grid).astype(int), grid - 1)
    cells = []
    for row in range(grid):
        for column in range(grid):
            members = np.flatnonzero((squares[:, 0] == column) & (squares[:, 1] == row))
            if len(members) >= least:
                mean = points.vectors[torch.from_numpy(members)].mean(dim=0)
                cells.append(AtlasCell(row, column, tuple(members.tolist()), mean))
    if not cells:
        raise UsageError(f"no cell holds {least} points; take a smaller --grid or --least, or more images")
    return cells


def whitened(vectors: Tensor, directions: Tensor) -> Tensor:
    """Directions K x D times the inverse second moment of the points M x D, shrunk towards a multiple of 1.

    What all points share does not tell one from another; whitening takes it out.
    """
    values = vectors.double()
    moment = values.T @ values / len(values)
    moment += SHRINKAGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(moment, directions.double().T)
    return solved.T.float()


def draw_cells(
    classifier: Classifier,
    points: Points,
    cells: Sequence[AtlasCell],
    folder: Path,
    settings: Settings,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """A PNG for every cell, in `folder`; those that are there from an earlier run are kept.

    `progress` is called with the number of pictures that are ready.
    """
    directions = whitened(points.vectors, torch.stack([cell.mean for cell in cells]))
    directions = F.normalize(directions, dim=1)
    key = recipe_key(classifier, settings)
    jobs = []
    for direction in directions:
        # Rounded, so that a last bit that another number of threads moves makes no new picture.
        digest = hashlib.sha256(points.layer.encode() + (direction * 1000).round().numpy().tobytes())
        path = folder / key / f"{digest.hexdigest()[:16]}.png"
        jobs.append((toward(points.layer, direction), path))
    draw_missing(classifier, jobs, settings, progress)
    return [path for _, path in jobs]


def cell_classes(points: Points, cell: AtlasCell) -> list[tuple[str, float]]:
    """The commonest answers for the images a cell's points are from, with their share of the points."""
    counted = Counter(points.answers[int(points.rows[member])] for member in cell.members)
    return [(label, count / len(cell.members)) for label, count in counted.most_common(CLASSES)]


def cell_examples(classifier: Classifier, points: Points, cells: Sequence[AtlasCell]) -> list[list[Example]]:
    """For each cell the places of different images whose direction is nearest to its mean's, best first."""
    path = find_layer(classifier.model, points.layer)
    side = receptive_side(classifier.model, path, points.images.shape[1:])
    found = []
    for cell in cells:
        members = torch.tensor(cell.members)
        likeness = F.cosine_similarity(points.vectors[members], cell.mean[None], dim=1)
        best: dict[int, tuple[int, float]] = {}  # image -> its best point
        for order in likeness.argsort(descending=True, stable=True).tolist():
            member = cell.members[order]
            best.setdefault(int(points.rows[member]), (member, float(likeness[order])))
        found.append(
            [
                Example(
                    points.names[row],
                    points.answers[row],
                    value,
                    crop_around(
                        points.images[row], classifier, int(points.places[member]), points.size, side
                    ),
                )
                for row, (member, value) in islice(best.items(), EXAMPLES)
            ]
        )
    return found


def atlas_picture(cells: Sequence[AtlasCell], pictures: Sequence[Path], grid: int) -> Image.Image:
    """The whole atlas as one picture; cells with too few points stay empty."""
    with Image.open(pictures[0]) as first:
        own, most = first.width, _PICTURE_SIDE // grid
    side = most if own > most else most // own * own
    canvas = Image.new("RGB", (grid * side + 2 * GAP, grid * side + 2 * GAP), PAPER)
    for cell, path in zip(cells, pictures, strict=True):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        how = Image.Resampling.LANCZOS if own > most else Image.Resampling.NEAREST
        picture = picture.resize((side, side), how)
        canvas.paste(picture, (GAP + cell.column * side, GAP + cell.row * side))
    return canvas
