"""Networks for the native engine, and what PyTorch makes of them in float64."""

import numpy as np
import torch
import torch.nn.functional as F

from inception.data.preprocess import Preprocess
from inception.nets.registry import build_network
from inception.runtime.native.from_onnx import Network
from inception.runtime.native.layers import PIXELS, Layer, Shape, shapes_of
from inception.runtime.native.runner import NativeRunner, native_files
from inception.runtime.plan import Plan
from inception.weights.bundle import Bundle

OUTPUTS = 20


def opened(network: Network, precision="float32", threads=2, together=1) -> NativeRunner:
    files = native_files(network, precision == "bfloat16", together)
    plan = Plan("native", precision, threads, 1)
    return NativeRunner(files["network.json"], files["network.weights"], plan)


class Maker:
    """A network around the layers under test: channels from the images before, every value read out after."""

    def __init__(self, seed: int, channels: int, height: int, width: int) -> None:
        self.random = np.random.default_rng(seed)
        self.pixels = Shape(3, height, width)
        self.kernels, self.biases, self.layers = {}, {}, []
        self.convolution(PIXELS, "begin", channels, (1, 1), relu=False)

    def convolution(self, source: str, output: str, channels: int, kernel: tuple[int, int], **more) -> None:
        layer = Layer("convolution", (source,), output, channels=channels, kernel=kernel, **more)
        inputs = self.shapes()[source].channels
        shape = (channels, inputs, *kernel)
        scale = 1 / np.sqrt(np.prod(shape[1:])) / (100 if source == PIXELS else 1)
        self.kernels[output] = (self.random.normal(size=shape) * scale).astype(np.float32)
        self.biases[output] = self.random.normal(size=channels).astype(np.float32) * 0.1
        self.layers.append(layer)

    def shapes(self):
        return shapes_of(tuple(self.layers), self.pixels)

    def network(self) -> Network:
        last = self.layers[-1].output
        self.convolution(last, "end", OUTPUTS, tuple(self.shapes()[last][1:]))
        return Network(tuple(self.layers), self.pixels, self.kernels, self.biases, None)

    def images(self, count: int) -> np.ndarray:
        return self.random.integers(0, 256, (count, *self.pixels), dtype=np.uint8)


def reference(network: Network, pixels: np.ndarray) -> np.ndarray:
    """In PyTorch, float64."""
    maps = {PIXELS: torch.from_numpy(pixels).double()}
    for layer in network.layers:
        x = maps[layer.source]
        if layer.kind == "convolution":
            top, left, bottom, right = layer.pads
            padded = F.pad(x, (left, right, top, bottom))
            kernel = torch.from_numpy(network.kernels[layer.output]).double()
            bias = torch.from_numpy(network.biases[layer.output]).double()
            y = F.conv2d(padded, kernel, bias, layer.stride)
            y = y if layer.added is None else y + maps[layer.added]
            y = y.relu() if layer.relu else y
        elif layer.kind == "max_pool":
            y = F.max_pool2d(x, layer.kernel, layer.stride, layer.pads[0], ceil_mode=layer.ceil_mode)
        elif layer.kind == "average_pool":
            y = F.avg_pool2d(
                x, layer.kernel, layer.stride, layer.pads[0], layer.ceil_mode, layer.count_include_pad
            )
        elif layer.kind == "response_norm":
            y = F.local_response_norm(x, layer.size, layer.alpha * layer.size, layer.beta, layer.offset)
        elif layer.kind == "concat":
            y = torch.cat([maps[name] for name in layer.inputs], dim=1)
        else:
            y = x.mean((2, 3), keepdim=True)
        maps[layer.output] = y
    return maps[network.layers[-1].output].flatten(1).numpy()


def assert_close(found, expected, tolerance=3e-6):
    scale = max(np.abs(expected).max(), 1e-3)
    assert np.abs(found - expected).max() / scale < tolerance


def bundle_of(name: str, side: int, **arguments) -> Bundle:
    torch.manual_seed(4)
    network = build_network(name, num_classes=7, aux_logits=False, **arguments)
    if name != "alexnet":
        network.fc.weight.data.normal_(std=0.3)
    preprocess = Preprocess(height=side, width=side)
    return Bundle(name, network.arguments, tuple("abcdefg"), preprocess, network.state_dict())
