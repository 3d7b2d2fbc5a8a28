"""Reading a network from the inside: what a layer's name means, and its output in one forward pass."""

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from inception.errors import UsageError
from inception.nets.network import Network

LOGITS = "logits"
Maps = dict[str, Tensor]
"""Layer name -> its output: N x C x H x W, or N x C for logits and hidden layers."""

# Parts of a module in Lucid's and Caffe's words -> ours and torchvision's.
_PARTS = {
    "1x1": ("b1x1", "branch1"),
    "3x3_bottleneck": ("b3x3_reduce", "branch2.0"),
    "3x3_reduce": ("b3x3_reduce", "branch2.0"),
    "3x3": ("b3x3", "branch2.1"),
    "5x5_bottleneck": ("b5x5_reduce", "branch3.0"),
    "5x5_reduce": ("b5x5_reduce", "branch3.0"),
    "5x5": ("b5x5", "branch3.1"),
    "pool_reduce": ("pool_proj", "branch4.1"),
    "pool_proj": ("pool_proj", "branch4.1"),
}


_MIDDLE_LAYERS = ("mixed4c", "Mixed_6b")


class _Found(Exception):  # noqa: N818 - no error: it ends a forward pass that has given all that was asked
    pass


@contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for parameters; afterwards every flag is as it was.

    Also after an exception. Parameters' own `.grad` is not touched.
    """
    modes = [(module, module.training) for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def find_layer(network: Network, name: str) -> str:
    """The path of the module that `name` means; `""` for `logits`.

    Known are stages under any tool's name (`inception4a`, `mixed4a`, `Mixed_4b`), parts of a module
    (`mixed4b_pool_reduce`, `inception_4b/pool_proj`, `inception4b.pool_proj`), any module by its path,
    `logits`, and auxiliary heads (`aux1`, or after their stage `aux4a`).
    Raises UsageError, with near names, for an unknown one.
    """
    if name == LOGITS:
        return ""
    for head, stage in network.aux_taps.items():
        if name in (head, "aux" + stage.removeprefix("inception")):
            return head
    stage = network.aliases.get(name, name)
    if stage in network.endpoints:
        return stage
    modules = {path for path, _ in network.named_modules() if path}
    if name in modules:
        return name
    for path in _part_paths(network, name):
        if path in modules:
            return path
    known = [*network.endpoints, *network.aliases, *network.aux_taps, LOGITS, *modules]
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"the stages are {', '.join(network.endpoints)}"
    if name.startswith("aux") and not network.aux_taps:
        hint = "this bundle has no auxiliary heads"
    raise UsageError(f"no layer is called '{name}': {hint}")


def middle_layer(network: Network) -> str:
    """Where whole things begin to be seen: `mixed4c`, `Mixed_6b`, else a stage at two thirds of the depth."""
    for name in _MIDDLE_LAYERS:
        if name in network.aliases or name in network.endpoints:
            return name
    return network.endpoints[len(network.endpoints) * 2 // 3]


def _part_paths(network: Network, name: str) -> Iterator[str]:
    """Where Lucid's `mixed4a_3x3` and Caffe's `inception_4a/3x3` can be."""
    for alias, stage in [*network.aliases.items(), *((name, name) for name in network.endpoints)]:
        base = alias.removesuffix("/output")
        part = re.fullmatch(re.escape(base) + r"[_/.](.+)", name)
        if part and part[1] in _PARTS:
            yield from (f"{stage}.{child}" for child in _PARTS[part[1]])


def activations(network: Network, images: Tensor, names: Collection[str]) -> Maps:
    """Outputs of the named layers for N x C x H x W normalised images, keyed as asked.

    The forward pass ends where the last of them is known. Call it inside `borrowed`. A returned map is part
    of the graph of the layers behind it, and no later layer overwrites it.
    """
    paths = {name: find_layer(network, name) for name in names}
    taps = {path: network.aux_taps.get(path, path) for path in paths.values()}
    found = forward_taps(network, images, set(taps.values()))
    return {
        name: getattr(network, path)(found[taps[path]].clone()) if path in network.aux_taps else found[path]
        for name, path in paths.items()
    }


def forward_taps(network: Network, images: Tensor, paths: Collection[str]) -> Maps:
    """Outputs of the modules at `paths`, keyed by path; the pass ends with the last of them.

    Images are cast to the network's own type, so that a copy in bfloat16 takes images in float32.
    """
    found: Maps = {}
    handles = []

    def tap(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            found[path] = output
            if len(found) == len(paths):
                raise _Found
            return output.clone()  # activations behind it work in place

        return hook

    try:
        handles = [network.get_submodule(path).register_forward_hook(tap(path)) for path in paths]
        network(images.to(next(network.parameters()).dtype))
    except _Found:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = [path for path in paths if path not in found]
    if missing:
        raise UsageError(f"layer {missing[0]} takes no part in an evaluation; choose another")
    return found
