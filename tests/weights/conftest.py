"""Weights tests run on one thread: the networks are real, the machine may be busy."""

import sys
from pathlib import Path

import pytest
import torch

# The onnx wheel's graphs are filled with weights by the networks' tests.
sys.path.append(str(Path(__file__).parents[1] / "nets"))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
