"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from shapes import COLOURS, tiny_config, write_shapes

from inception.data.preprocess import Preprocess
from inception.nets.registry import build_network
from inception.train.run import TrainResult, train_bundle
from inception.weights.bundle import Bundle, save_bundle

# The networks here are tiny: more threads would cost more than they give.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, real images and verified facts; tests skip where it is absent."""
    folder = Path(os.environ.get("INCEPTION_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared material, which is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three coloured shapes: 16 pictures a class to train on, 4 for val, 4 for test."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", {"train": 16, "val": 4, "test": 4})


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """An untrained 32x32 network of three classes."""
    torch.manual_seed(5)
    network = build_network("googlenet_bn", num_classes=3, width=0.05, stem="small")
    # Untrained classifiers answer nearly evenly; wider weights tell pictures apart.
    torch.nn.init.normal_(network.fc.weight, std=1.0)
    return Bundle(
        network="googlenet_bn",
        arguments=network.arguments,
        labels=tuple(COLOURS),
        preprocess=Preprocess(height=32, width=32),
        state_dict=network.state_dict(),
    )


@pytest.fixture(scope="session")
def tiny_path(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bundle` on disk; not to be written to."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    save_bundle(tiny_bundle, path)
    return path


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A finished run on `shapes`; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    return train_bundle(tiny_config(shapes, folder, epochs=4))
