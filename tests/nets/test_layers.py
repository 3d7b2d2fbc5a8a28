"""Layers against independent references: torch's LRN, brute-force SAME padding, finite differences."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from inception.nets.blocks import Inception
from inception.nets.heads import AuxiliaryHead
from inception.nets.layers import LocalResponseNorm, MaxPool, SameConv2d, pad_same
from inception.nets.rows import LrnConstants, Style

LRN_CASES = [
    pytest.param(64, LrnConstants(), id="caffe"),
    pytest.param(64, LrnConstants(size=11, alpha=0.0011, beta=0.5, k=2.0), id="released"),
    pytest.param(16, LrnConstants(size=4, alpha=0.01, beta=0.75, k=1.5), id="even"),
    pytest.param(16, LrnConstants(size=2, alpha=0.3, beta=0.5, k=1.0), id="pair"),
    pytest.param(16, LrnConstants(size=3, alpha=0.2, beta=0.9, k=2.0), id="any-beta"),
    pytest.param(3, LrnConstants(size=7, alpha=0.5, beta=0.75, k=1.0), id="wider-than-channels"),
    pytest.param(8, LrnConstants(size=1, alpha=0.5, beta=0.75, k=1.0), id="alone"),
]


def both_norms(channels: int, constants: LrnConstants) -> tuple[nn.Module, nn.Module]:
    ours = LocalResponseNorm(channels, constants.size, constants.alpha, constants.beta, constants.k)
    return ours, nn.LocalResponseNorm(constants.size, constants.alpha, constants.beta, constants.k)


@pytest.mark.parametrize(("channels", "constants"), LRN_CASES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_response_norm_equals_torchs(channels, constants, scale):
    ours, theirs = both_norms(channels, constants)
    x = (torch.randn(2, channels, 5, 7) * scale).requires_grad_()
    y = x.detach().clone().requires_grad_()
    out, expected = ours(x), theirs(y)
    torch.testing.assert_close(out, expected, rtol=2e-6, atol=2e-6 * scale)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "constants"), LRN_CASES)
def test_response_norm_gradients(channels, constants):
    ours, _ = both_norms(min(channels, 6), constants)
    x = torch.randn(1, min(channels, 6), 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(ours.double(), (x,))


def test_response_norm_by_its_formula():
    """Krizhevsky et al. 2012, section 3.3, written out for one pixel."""
    x = np.random.default_rng(0).normal(0, 20, 10)
    size, alpha, beta, k = 5, 0.1, 0.75, 1.0
    expected = [
        x[i] / (k + alpha / size * sum(x[j] ** 2 for j in range(max(0, i - 2), min(10, i + 3)))) ** beta
        for i in range(10)
    ]
    out = LocalResponseNorm(10, size, alpha, beta, k).double()(torch.from_numpy(x)[None, :, None, None])
    np.testing.assert_allclose(out.flatten().numpy(), expected, rtol=1e-6)


def same_windows(length: int, kernel: int, stride: int) -> list[range]:
    """TensorFlow's SAME rule: ceil(length / stride) windows, centred, the odd pixel over at the end."""
    count = (length + stride - 1) // stride
    overhang = max(0, (count - 1) * stride + kernel - length)
    return [range(i * stride - overhang // 2, i * stride - overhang // 2 + kernel) for i in range(count)]


KERNELS_AND_STRIDES = [*itertools.product((1, 2, 3, 5, 7), (2, 3)), (3, 1), (5, 1), (1, 1)]


@pytest.mark.parametrize(("kernel", "stride"), KERNELS_AND_STRIDES)
def test_same_max_pool_by_brute_force(kernel, stride):
    pool = MaxPool(kernel, stride, "same")
    for height in range(1, 41):
        width = 41 - height
        x = torch.randn(1, 1, height, width) - 5  # negative: a zero border would win
        expected = torch.tensor(
            [
                [
                    max(
                        x[0, 0, row, column].item()
                        for row in rows
                        if 0 <= row < height
                        for column in columns
                        if 0 <= column < width
                    )
                    for columns in same_windows(width, kernel, stride)
                ]
                for rows in same_windows(height, kernel, stride)
            ]
        )
        assert torch.equal(pool(x)[0, 0], expected), (height, width)


@pytest.mark.parametrize(("kernel", "stride"), KERNELS_AND_STRIDES)
def test_same_convolution_by_brute_force(kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride=stride, bias=False).double()
    weight = conv.weight.detach().numpy()[0, 0]
    for height in range(1, 41):
        width = 41 - height
        x = np.random.default_rng(height).normal(size=(height, width))
        border = kernel  # at least as much as any window overhangs
        padded = np.pad(x, border)
        expected = np.array(
            [
                [
                    np.sum(
                        weight
                        * padded[
                            rows.start + border : rows.stop + border,
                            columns.start + border : columns.stop + border,
                        ]
                    )
                    for columns in same_windows(width, kernel, stride)
                ]
                for rows in same_windows(height, kernel, stride)
            ]
        )
        out = conv(torch.from_numpy(x)[None, None]).detach().numpy()[0, 0]
        np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-12, err_msg=f"{height} x {width}")


def test_same_padding_equals_onnx_same_upper():
    """ONNX's SAME_UPPER is TensorFlow's SAME: a second, foreign implementation."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    for kernel, stride in ((3, 2), (2, 2), (7, 2), (5, 3)):
        node = onnx.helper.make_node(
            "MaxPool", ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2, auto_pad="SAME_UPPER"
        )
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [node],
            "pool",
            [value("x", onnx.TensorProto.FLOAT, [1, 2, "h", "w"])],
            [value("y", onnx.TensorProto.FLOAT, None)],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        pool = MaxPool(kernel, stride, "same")
        for height in range(1, 41):
            x = torch.randn(1, 2, height, 41 - height) - 5
            expected = session.run(None, {"x": x.numpy()})[0]
            np.testing.assert_array_equal(pool(x).numpy(), expected, err_msg=f"{kernel}/{stride} {height}")


def test_pad_same_leaves_alone_what_needs_nothing():
    x = torch.randn(1, 1, 8, 8)
    assert pad_same(x, (2, 2), (2, 2), 0.0) is x


BLOCKS = [
    pytest.param(Style(), id="reduced"),
    pytest.param(Style(module="naive"), id="naive"),
    pytest.param(Style(kernel5="3x3+3x3"), id="3x3+3x3"),
    pytest.param(Style(batch_norm=True), id="batch-norm"),
]


@pytest.mark.parametrize("style", BLOCKS)
def test_inception_block_gradients(style):
    """Gradients to the input and to every weight, against finite differences."""
    block, channels = Inception("block", 2, 2, 3, 2, 2, 2).build(3, style)
    block = block.double().eval()
    parameters = list(block.parameters())
    assert all(parameter.numel() > 0 for parameter in parameters)
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        state = dict(zip((name for name, _ in block.named_parameters()), values, strict=True))
        return torch.func.functional_call(block, state, (x,))

    assert run(x, *parameters).shape == (1, channels, 4, 5)
    assert gradcheck(run, (x, *parameters))


def test_auxiliary_head_gradients():
    head = AuxiliaryHead(2, 3, Style(width=0.01), "5/3", 0.7).double().eval()
    x = torch.randn(1, 2, 14, 14, dtype=torch.float64, requires_grad=True)
    assert gradcheck(head, (x,))


def test_block_is_four_branches_side_by_side():
    block, _ = Inception("block", 4, 3, 5, 2, 6, 7).build(8, Style())
    block.eval()
    x = torch.randn(2, 8, 9, 10)
    parts = [
        block.b1x1(x),
        block.b3x3(block.b3x3_reduce(x)),
        block.b5x5(block.b5x5_reduce(x)),
        block.pool_proj(nn.MaxPool2d(3, 1, 1)(x)),
    ]
    assert torch.equal(block(x), torch.cat(parts, 1))
    assert all((part >= 0).all() for part in parts)
    assert [part.shape[1] for part in parts] == [4, 5, 6, 7]
