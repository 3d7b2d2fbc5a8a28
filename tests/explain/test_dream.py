"""Dreams keep the picture's size, come out the same for one seed, and hold more of what was asked for."""

import numpy as np
import pytest
import torch
from explain_support import hooks, make_network
from PIL import Image
from shapes import shape_picture

from inception.data.preprocess import Preprocess
from inception.errors import UsageError
from inception.explain.animation import check_format, write_animation
from inception.explain.dream import DreamSettings, _tiles, balanced, dream, guided, zoom
from inception.explain.layers import activations, borrowed
from inception.explain.objectives import Objective, whole_layer
from inception.explain.render import to_input

QUICK = DreamSettings(octaves=2, steps=2, precision="float32")
PICTURE = shape_picture("jade", 1).resize((50, 37))
TARGET = whole_layer("mixed4a")


def excitement(network, preprocess, picture, objective=TARGET):
    pixels = torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)[None]
    with borrowed(network), torch.no_grad():
        return float(objective.value(activations(network, to_input(pixels, preprocess), objective.layers)))


def test_a_dream_excites_the_layer_and_leaves_the_network(network, preprocess):
    first, second = (dream(network, preprocess, PICTURE, TARGET, QUICK) for _ in range(2))
    assert first.size == PICTURE.size
    assert first.tobytes() == second.tobytes() != PICTURE.tobytes()
    assert excitement(network, preprocess, first) > excitement(network, preprocess, PICTURE)
    assert network.training
    assert hooks(network) == 0
    steps = []
    dream(network, preprocess, PICTURE, TARGET, QUICK, lambda: steps.append(1))
    assert len(steps) == QUICK.octaves * QUICK.steps


def test_flags_come_back_after_an_exception(network, preprocess):
    def broken(_):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        dream(network, preprocess, PICTURE, Objective("broken", TARGET.layers, broken), QUICK)
    assert network.training
    assert hooks(network) == 0
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_guided_dream_takes_after_its_guide(network, preprocess):
    guide = shape_picture("violet", 2)
    objective = guided(["mixed4a"], network, preprocess, guide)
    dreamt = dream(network, preprocess, PICTURE, objective, QUICK)
    assert excitement(network, preprocess, dreamt, objective) > excitement(
        network, preprocess, PICTURE, objective
    )


def test_balanced_gradients_are_as_strong_coarse_as_fine():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 6, generator=generator), (64, 96))
    fine = torch.randn(1, 3, 64, 96, generator=generator)
    speckled = 0.05 * coarse + fine
    assert torch.allclose(balanced(speckled, 1), speckled / speckled.abs().mean())
    found = balanced(speckled, 4)
    assert float(found.abs().mean()) == pytest.approx(1.0, abs=1e-5)
    likeness = [
        float(torch.corrcoef(torch.stack([g.flatten(), coarse.flatten()]))[0, 1]) for g in (speckled, found)
    ]
    assert likeness[1] > 3 * abs(likeness[0])
    assert torch.equal(balanced(torch.zeros(1, 1, 5, 5), 4), torch.zeros(1, 1, 5, 5))


def test_tiles_cover_a_length_evenly():
    tiles = _tiles(1024, 500)
    assert [tile.stop - tile.start for tile in tiles] == [341, 342, 341]
    assert [tile.start for tile in tiles[1:]] == [tile.stop for tile in tiles[:-1]]
    small = DreamSettings(octaves=1, steps=1, tile=32, precision="float32")
    network = make_network()
    assert dream(network, Preprocess(32, 32), PICTURE, TARGET, small).size == PICTURE.size


def test_what_cannot_dream_says_so(network, preprocess):
    with pytest.raises(UsageError, match="too small"):
        dream(network, preprocess, Image.new("RGB", (40, 8)), TARGET, QUICK)
    with pytest.raises(UsageError, match="the guide is too small"):
        guided(["mixed4a"], make_network(stem="large"), preprocess, Image.new("RGB", (8, 8)))
    with pytest.raises(UsageError, match="one size only"):
        dream(make_network(head="fully_connected", image_size=32), preprocess, PICTURE, TARGET, QUICK)
    with pytest.raises(UsageError, match="a tile must have"):
        dream(network, preprocess, PICTURE, TARGET, DreamSettings(tile=20))


def test_a_zoom_as_gif_and_mp4(network, preprocess, tmp_path):
    settings = DreamSettings(octaves=1, steps=1, precision="float32")
    frames = list(zoom(network, preprocess, PICTURE, TARGET, settings, frames=3))
    assert [frame.size for frame in frames] == [PICTURE.size] * 3
    write_animation(tmp_path / "zoom.gif", frames)
    with Image.open(tmp_path / "zoom.gif") as gif:
        assert (gif.n_frames, gif.size) == (3, PICTURE.size)
    with pytest.raises(UsageError, match="at least one frame"):
        write_animation(tmp_path / "none.gif", [])
    with pytest.raises(UsageError, match=r"written as \.gif or \.mp4"):
        check_format(tmp_path / "zoom.avi")
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")
    write_animation(tmp_path / "zoom.mp4", frames)
    assert (tmp_path / "zoom.mp4").read_bytes()[4:8] == b"ftyp"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoom.gif", "zoom.mp4"]


def test_mp4_without_its_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(UsageError, match=r"inception\[explain\]"):
        check_format(tmp_path / "zoom.mp4")
