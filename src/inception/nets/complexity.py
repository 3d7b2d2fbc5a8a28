"""What each layer of a live network costs: parameters, multiply-adds, activations."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inception.errors import UsageError
from inception.nets.heads import PooledHead
from inception.nets.layers import AvgPool, LocalResponseNorm, MaxPool
from inception.nets.network import Network

Pair = tuple[int, int]
Shape = tuple[int, ...]

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Conv2d, "convolution"),
    (nn.Linear, "linear"),
    (nn.BatchNorm2d, "batch norm"),
    (LocalResponseNorm, "response norm"),
    (MaxPool, "max pool"),
    (nn.MaxPool2d, "max pool"),
    (AvgPool, "avg pool"),
    (PooledHead, "avg pool"),
    (nn.AvgPool2d, "avg pool"),
    (nn.AdaptiveAvgPool2d, "avg pool"),
    (nn.Dropout, "dropout"),
)


@dataclass(frozen=True)
class LayerCost:
    """One layer as it ran, for one image.

    Attributes:
        stage: the network's stage (or head) it belongs to.
        path: its place in the network, such as `inception3a.b3x3.conv`.
        kind: `convolution`, `linear`, `batch norm`, `response norm`, `max pool`, `avg pool`, `dropout`, or
            the class name of any other layer.
        kernel, stride: height and width of a window and of its steps; None where there is no window.
        input_shape, output_shape: without the batch: C x H x W, or C.
        parameters: learned numbers, biases included.
        multiply_adds: of convolutions and linear layers, biases not counted; 0 for all others.
        activations: numbers in its output.
        auxiliary: whether it belongs to an auxiliary head, which only training runs.
    """

    stage: str
    path: str
    kind: str
    kernel: Pair | None
    stride: Pair | None
    input_shape: Shape
    output_shape: Shape
    parameters: int
    multiply_adds: int
    activations: int
    auxiliary: bool


def profile(network: Network, image_size: int | Pair) -> tuple[LayerCost, ...]:
    """The cost of every layer of `network` for one image of `image_size` (a side, or height and width).

    Layers come in the order they run, those of the auxiliary heads last. A weightless copy runs in evaluation
    mode, so it takes no memory and little time, and `network` (its mode, its hooks) stays as it is.

    Raises UsageError when the network does not accept images of that size.
    """
    twin = weightless_copy(network)
    costs: list[LayerCost] = []
    for path, module in twin.named_modules():
        if not any(module.children()) and not isinstance(module, nn.Identity):
            auxiliary = path.split(".")[0] in twin.aux_taps
            module.register_forward_hook(_recorder(costs, path, auxiliary))
    maps = _feature_maps(twin, image_size)
    try:
        with torch.no_grad():
            twin.forward_head(maps[twin.endpoints[-1]])
            for head, stage in twin.aux_taps.items():
                getattr(twin, head)(maps[stage])
    except ValueError as error:
        raise UsageError(str(error)) from error
    return tuple(costs)


def endpoint_shapes(network: Network, image_size: int | Pair) -> dict[str, Shape]:
    """C x H x W of every stage's output for one image of `image_size` (a side, or height and width).

    Raises UsageError when the network does not accept images of that size.
    """
    maps = _feature_maps(weightless_copy(network), image_size)
    return {name: tuple(feature_map.shape[1:]) for name, feature_map in maps.items()}


def weightless_copy(network: Network) -> Network:
    """A copy without storage (on torch's meta device), in evaluation mode and without hooks."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(network, memo).eval()
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin


def _feature_maps(twin: Network, image_size: int | Pair) -> dict[str, Tensor]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1:
        raise UsageError(f"an image has at least one pixel a side, not {height} x {width}")
    dtype = next(twin.parameters()).dtype
    image = torch.zeros(1, twin.in_chans, height, width, device="meta", dtype=dtype)
    try:
        with torch.no_grad():
            return twin.forward_endpoints(image, twin.endpoints)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _recorder(costs: list[LayerCost], path: str, auxiliary: bool) -> Any:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel, stride = _window(module, inputs[0])
        costs.append(
            LayerCost(
                stage=path.split(".", maxsplit=1)[0],
                path=path,
                kind=next((kind for cls, kind in _KINDS if isinstance(module, cls)), type(module).__name__),
                kernel=kernel,
                stride=stride,
                input_shape=tuple(inputs[0].shape[1:]),
                output_shape=tuple(output.shape[1:]),
                parameters=sum(parameter.numel() for parameter in module.parameters()),
                multiply_adds=_multiply_adds(module, output),
                activations=math.prod(output.shape[1:]),
                auxiliary=auxiliary,
            )
        )

    return record


def _window(module: nn.Module, x: Tensor) -> tuple[Pair | None, Pair | None]:
    if isinstance(module, PooledHead):
        return ((x.shape[2], x.shape[3]), (1, 1)) if module.pooled else (None, None)
    if isinstance(module, MaxPool | AvgPool):
        return (module.kernel, module.kernel), (module.stride, module.stride)
    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return _pair(module.kernel_size), _pair(module.stride)
    return None, None


def _pair(value: int | Shape) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    outputs = math.prod(output.shape[1:])
    if isinstance(module, nn.Conv2d):
        return outputs * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return outputs * module.in_features
    return 0
