"""The `onnx` wheel's light graphs: real topologies, filled with random weights and run by ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

WEIGHTS = ("_w_0", "_b_0", "_scale_0", "_bias_0", "_mean_0", "_var_0")
POSITIVE = ("bn/sc_w_0", "_scale_0", "_var_0")
CAFFE_STEM = {"conv1/7x7_s2": "conv1", "conv2/3x3_reduce": "conv2", "conv2/3x3": "conv3"}


def light_graph(name: str):
    path = Path(onnx.__file__).parent / f"backend/test/data/light/{name}.onnx"
    if not path.is_file():
        pytest.skip(f"this onnx wheel ships no {name}.onnx")
    return onnx.load(path)


def fill_with_random_weights(model, generator) -> dict[str, np.ndarray]:
    """Give every weight and bias He-scaled random values; returned by their Caffe names.

    Large tensors are ConstantOfShape nodes in the shipped graph, small ones (biases) stored constants.
    """
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = {name: value.shape for name, value in stored.items() if name.endswith(WEIGHTS)}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        shapes[node.output[0]] = tuple(stored[node.input[0]])
        model.graph.node.remove(node)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in shapes]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    values = {}
    for name, shape in shapes.items():
        if name.endswith(POSITIVE):
            values[name] = generator.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            scale = (2 / np.prod(shape[1:])) ** 0.5 if name.endswith("_w_0") else 0.1
            values[name] = draw(generator, shape) * np.float32(scale)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values[name], name))
    return values


def draw(generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers; large tensors repeat a million of them, with a period that fits no row."""
    count = min(int(np.prod(shape)), 1_000_003)
    return np.resize(generator.standard_normal(count, dtype=np.float32), shape)


def use_ceil_pools(model) -> None:
    """Caffe rounds pools up; the shipped graph rounds down because ONNX knew no ceil_mode before opset 10."""
    model.opset_import[0].version = 10
    for node in model.graph.node:
        if node.op_type == "MaxPool" and any(a.name == "strides" and a.ints[0] > 1 for a in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("ceil_mode", 1))
            zero_pads(node)
        if node.op_type == "AveragePool":
            zero_pads(node)


def zero_pads(node) -> None:
    pads = next(attribute for attribute in node.attribute if attribute.name == "pads")
    pads.CopyFrom(onnx.helper.make_attribute("pads", [0, 0, 0, 0]))


def graph_logits(model, images: np.ndarray) -> np.ndarray:
    gemm = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(gemm.output[0], onnx.TensorProto.FLOAT, None)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"data_0": images})[0]


def our_name(caffe: str) -> str:
    """Our name of Caffe's weight `…_w_0` or bias `…_b_0`."""
    layer, kind, _ = caffe.rsplit("_", 2)
    suffix = {"w": "weight", "b": "bias"}[kind]
    linear = {"loss3/classifier": "fc", "fc8": "fc", "fc6": "head.linear1", "fc7": "head.linear2"}
    if layer in linear:
        return f"{linear[layer]}.{suffix}"
    if "/" not in layer or layer in CAFFE_STEM:
        return f"{CAFFE_STEM.get(layer, layer)}.conv.{suffix}"
    module, branch = layer.split("/")
    branch = f"b{branch}" if branch[0].isdigit() else branch
    return f"{module.replace('_', '')}.{branch}.conv.{suffix}"


def our_state(values: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The graph's weights under our names; Caffe's two layers of batch normalisation as one."""
    state = {}
    for name, value in values.items():
        layer = name.removesuffix("/bn_scale_0")
        if layer != name:
            scale, shift = values[f"{layer}/bn/sc_w_0"], values[f"{layer}/bn/sc_b_0"]
            norm = our_name(f"{layer}_w_0").replace("conv.weight", "bn.")
            state[f"{norm}weight"] = value * scale
            state[f"{norm}bias"] = values[f"{layer}/bn_bias_0"] * scale + shift
            state[f"{norm}running_mean"] = values[f"{layer}/bn_mean_0"]
            state[f"{norm}running_var"] = values[f"{layer}/bn_var_0"]
            state[f"{norm}num_batches_tracked"] = np.array(0)
        elif "/bn" not in name:
            last = our_name(name) == "fc.weight"  # stored in four dimensions in one graph
            state[our_name(name)] = value.reshape(value.shape[-2:]) if last else value
    return {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
