"""Pictures of many channels, made in batches, kept on disk, and never made twice."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image

from inception.errors import UsageError
from inception.explain.layers import borrowed, find_layer, forward_taps
from inception.explain.objectives import Objective, channel, each
from inception.explain.render import Settings, picture_size, render, to_image
from inception.files import atomic_path
from inception.nets.layers import Concat
from inception.nets.network import Network
from inception.runtime.classifier import Classifier

BATCH = 4


@dataclass(frozen=True)
class Channel:
    """One channel of one layer; `branch` is the part of a module that makes it, `""` elsewhere."""

    layer: str
    index: int
    branch: str = ""

    @property
    def name(self) -> str:
        """As a user writes it: `mixed4a:97`."""
        return f"{self.layer}:{self.index}"


def expand(network: Network, texts: Sequence[str], size: int) -> list[Channel]:
    """The channels that `mixed4a`, `mixed4a:0-23` and `mixed4a:3,97` mean, in the order given, each once.

    `size` is the side of a picture the network takes. Raises UsageError for what is no such text, an unknown
    layer or a channel that the layer does not have.
    """
    channels: dict[tuple[str, int], Channel] = {}
    for text in texts:
        layer, _, chosen = text.partition(":")
        if chosen and not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", chosen):
            raise UsageError(f"'{text}' names no channels; write mixed4a, mixed4a:0-23 or mixed4a:3,97")
        branches = channel_branches(network, layer, size)
        for index in _indices(chosen, len(branches)):
            if index >= len(branches):
                raise UsageError(
                    f"{layer} has {len(branches)} channels, 0 to {len(branches) - 1}: no {index}"
                )
            channels[layer, index] = Channel(layer, index, branches[index])
    return list(channels.values())


def _indices(chosen: str, count: int) -> Iterator[int]:
    if not chosen:
        yield from range(count)
        return
    for piece in chosen.split(","):
        first, _, last = piece.partition("-")
        yield from range(int(first), int(last or first) + 1)


def channel_branches(network: Network, layer: str, size: int) -> list[str]:
    """The last part of the branch that makes each channel of a layer (`b3x3`); `""` outside modules."""
    path = find_layer(network, layer)
    module = network.get_submodule(path)
    ends = [branch[-1] for branch in module.paths] if isinstance(module, Concat) else []
    taps = [path, *(f"{path}.{name}" for names in ends for name in names)]
    like = next(network.parameters())
    with borrowed(network), torch.no_grad():
        images = torch.zeros(1, network.in_chans, size, size, device=like.device)
        maps = forward_taps(network, images, taps)
    if not ends:
        return [""] * maps[path].shape[1]
    return [name for names in ends for name in names for _ in range(maps[f"{path}.{name}"].shape[1])]


def recipe_key(classifier: Classifier, settings: Settings) -> str:
    """Eight letters that change with the weights, the preprocessing or the settings."""
    digest = hashlib.sha256()
    for name, tensor in sorted(classifier.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    recipe = {**asdict(settings), "preprocess": classifier.preprocess.to_dict()}
    digest.update(json.dumps(recipe, sort_keys=True).encode())
    return digest.hexdigest()[:8]


def picture_path(folder: Path, key: str, item: Channel) -> Path:
    """Where a channel's picture is kept."""
    return folder / key / re.sub(r"[^\w.-]", "_", item.layer) / f"{item.index:04}.png"


def make_pictures(
    classifier: Classifier,
    channels: Sequence[Channel],
    folder: Path,
    settings: Settings,
    progress: Callable[[int], None] | None = None,
) -> dict[Channel, Path]:
    """A PNG for every channel, in `folder`; those that are there from an earlier run are kept.

    An interrupted run that is repeated gives the same pictures as one that was not: channels are always drawn
    in the same batches. `progress` is called with the number of pictures that are ready.
    """
    key = recipe_key(classifier, settings)
    paths = {item: picture_path(folder, key, item) for item in channels}
    for _, group in groupby(
        channels, key=lambda item: item.layer
    ):  # the network runs no further than it must
        jobs = [(channel(item.layer, item.index), paths[item]) for item in group]
        draw_missing(classifier, jobs, settings, progress)
    return paths


def draw_missing(
    classifier: Classifier,
    jobs: Sequence[tuple[Objective, Path]],
    settings: Settings,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a PNG for every (objective, file) whose file is not there, from equal noise.

    Batches are the same whatever is missing, so that pictures do not depend on interruptions; `progress` is
    called with the number of pictures of each.
    """
    side, _ = picture_size(classifier.model, classifier.preprocess, settings)
    size = max(1, BATCH * 128 * 128 // (side * side))
    for batch in (jobs[start : start + size] for start in range(0, len(jobs), size)):
        missing = [path for _, path in batch if not path.exists()]
        if missing:
            pixels = render(
                classifier.model,
                classifier.preprocess,
                each([objective for objective, _ in batch]),
                settings,
                seeds=[settings.seed] * len(batch),
            )
            for (_, path), picture in zip(batch, pixels, strict=True):
                if path in missing:
                    save_png(to_image(picture), path)
        if progress:
            progress(len(batch))


def save_png(image: Image.Image, path: Path, notes: dict[str, str] | None = None) -> None:
    """Write a PNG atomically, with `notes` as its text fields."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in (notes or {}).items():
        info.add_itxt(name, text)
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", pnginfo=info, optimize=True)
