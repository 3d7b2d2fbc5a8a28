"""Experiment 5: the sparse forms compute what the dense convolution does."""

import pytest
import torch
import torch.nn.functional as F

from inception.study import sparsity
from inception.study.experiment import Options


@pytest.mark.filterwarnings("ignore:Sparse")
def test_every_form_is_the_dense_convolution():
    channels, side = 32, 6
    weights = sparsity.block_weights(channels, 0.25)
    matrix = weights.dense()
    x = torch.randn(1, channels, side, side)
    rows = F.unfold(x, 3, padding=1)[0]
    expected = F.conv2d(x, matrix.view(channels, channels, 3, 3), padding=1)[0].flatten(1)
    torch.testing.assert_close(sparsity.gathered_product(weights, rows), expected, rtol=1e-4, atol=1e-4)
    blocks = matrix.to_sparse_bsr((sparsity.BLOCK, sparsity.BLOCK))
    torch.testing.assert_close(blocks @ rows, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(matrix.to_sparse_csr() @ rows, expected, rtol=1e-4, atol=1e-4)


def test_share_of_weights_is_kept():
    weights = sparsity.block_weights(64, 0.25)
    assert int((weights.dense() != 0).sum()) == weights.values.numel()
    assert abs(weights.values.numel() / (64 * 9 * 64) - 0.25) < 0.02
    scattered = sparsity.scattered_weights(200, 300, 0.1)
    assert abs(scattered.values().numel() / 60_000 - 0.1) < 0.01


def test_quick_run():
    report = sparsity.run(Options(quick=True), lambda _: None)
    assert len(report.findings) == 2
    # 1,442,816 weights of module 5b against 9 x 832 x 832.
    assert report.tables[0].rows[0][:2] == ("5b", "23.2%")
