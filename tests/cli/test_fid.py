"""`inception fid`: numbers, statistics files, wrong requests."""

import numpy as np
import pytest
import torch
from shapes import write_shapes

from inception.evaluate.inception2015 import build_network_2015


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(build_network_2015().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    root = tmp_path_factory.mktemp("sides")
    write_shapes(root, {"real": 1, "made": 1})
    return root / "real", root / "made"


def test_numbers_statistics_and_bad_images(inception, weights, sides, tmp_path):
    real, made = sides
    stats = tmp_path / "real.npz"
    outcome = inception("fid", real, made, "--weights", weights, "--json", "--save-stats", stats)
    assert outcome.code == 0, outcome.err
    content = outcome.json()
    assert content["n"] == [3, 3]
    assert content["fid"] > 0
    assert content["kid"]["subset_size"] == 3
    assert content["inception_score"]["splits"] == 3
    assert (content["resize"], content["weights"]) == ("tensorflow", "pt_inception.pth")
    assert "fewer than the 2,048 features" in outcome.err
    again = inception("fid", stats, made, "--weights", weights, "--json").json()
    assert again["fid"] == pytest.approx(content["fid"], rel=1e-6)
    assert again["n"] == [None, 3]
    assert again["kid"] is None
    np.savez(stats, mu=np.zeros(2048), sigma=np.zeros((2048, 2048)))
    table = inception("fid", stats, stats, "--weights", weights)
    assert "needs images" in table.out
    assert "0.0000" in table.out


def test_bad_images_are_left_out_and_tell_in_the_exit_code(inception, weights, sides, tmp_path):
    import shutil

    shutil.copytree(sides[1], tmp_path / "made")
    (tmp_path / "made" / "bad.png").write_bytes(b"")
    outcome = inception("fid", sides[0], tmp_path / "made", "--weights", weights, "--json")
    assert outcome.code == 1
    assert "left out" in outcome.err
    assert outcome.json()["n"] == [3, 3]


def test_without_weights_and_with_wrong_ones(inception, sides, tmp_path, monkeypatch):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path))
    monkeypatch.delenv("INCEPTION_FID_WEIGHTS", raising=False)
    outcome = inception("fid", *sides)
    assert (outcome.code, outcome.out) == (2, "")
    assert "inception weights get inception_v3.google_2015" in outcome.err
    outcome = inception("fid", *sides, "--weights", tmp_path / "nowhere.pth")
    assert (outcome.code, outcome.out) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--resize", "nearest"], "nearest"), (["--kid-subset-size", "50"], "2 to 3 images")],
)
def test_impossible_options(inception, weights, sides, arguments, message):
    outcome = inception("fid", *sides, "--weights", weights, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_a_side_without_images(inception, weights, sides, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = inception("fid", sides[0], tmp_path / "empty", "--weights", weights)
    assert (outcome.code, outcome.out) == (1, "")
    assert "at least two images" in outcome.err
