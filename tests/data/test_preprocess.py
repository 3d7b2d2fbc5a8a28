"""Each resize rule against somebody else's code, the normalisation in float64, and the value itself."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from inception.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from inception.errors import UsageError

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
SIZES = [(64, 48), (48, 64), (97, 61), (33, 200), (224, 224), (31, 31), (500, 375)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth random colours, so that filters differ visibly but not wildly."""
    rng = np.random.default_rng((seed, width, height))
    small = rng.integers(0, 256, (max(height // 4, 1), max(width // 4, 1), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target, fraction", [(32, 1.0), (28, 0.875), (32, 0.9)])
def test_shortest_is_torchvisions_resize_and_center_crop(size, target, fraction):
    image = noise(*size)
    steps = v2.Compose([v2.Resize(round(target / fraction)), v2.CenterCrop(target)])
    ours = Preprocess(height=target, width=target, resize="shortest", crop_fraction=fraction)
    assert torch.equal(ours.apply(image), pixels(steps(image)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_crop_is_the_centre_square_resized(size, name):
    image = noise(*size)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    expected = image.crop((left, top, left + side, top + side)).resize((32, 32), FILTERS[name])
    ours = Preprocess(height=32, width=32, interpolation=name).apply(image)
    # At the edges our filter looks past the cut; with an offset the last bit may be rounded otherwise.
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert (ours.int() - pixels(expected).int())[inner].abs().max() <= 1
    if name in ("nearest", "box"):
        assert (ours.int() - pixels(expected).int()).float().abs().mean() < 0.5


def test_crop_takes_the_targets_shape():
    image = Image.new("RGB", (100, 100))
    image.paste((255, 0, 0), (0, 25, 100, 75))  # the middle half, as wide as the picture
    view = Preprocess(height=20, width=40, interpolation="nearest").apply(image)
    assert view.shape == (3, 20, 40)
    assert view[0].min() == 255


def test_crop_fraction_leaves_out_the_border():
    image = Image.new("RGB", (80, 80))
    image.paste((255, 255, 255), (20, 20, 60, 60))
    view = Preprocess(height=16, width=16, crop_fraction=0.5, interpolation="box").apply(image)
    assert view.min() == 255


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_squash_is_a_plain_resize(size, name):
    image = noise(*size)
    ours = Preprocess(height=24, width=40, resize="squash", interpolation=name).apply(image)
    assert torch.equal(ours, pixels(image.resize((40, 24), FILTERS[name])))


@pytest.mark.parametrize("size, inner", [((80, 40), (32, 16)), ((40, 80), (16, 32)), ((50, 50), (32, 32))])
def test_pad_shows_the_whole_image_centred_on_the_fill(size, inner):
    image = noise(*size)
    expected = torch.full((3, 32, 32), 77, dtype=torch.uint8)
    left, top = (32 - inner[0]) // 2, (32 - inner[1]) // 2
    expected[:, top : top + inner[1], left : left + inner[0]] = pixels(
        image.resize(inner, Image.Resampling.BILINEAR)
    )
    assert torch.equal(Preprocess(height=32, width=32, resize="pad", fill=77).apply(image), expected)


@pytest.mark.parametrize("rule", ["crop", "squash", "pad", "shortest"])
def test_an_image_of_the_right_size_is_not_touched(rule):
    image = noise(40, 40)
    assert torch.equal(Preprocess(height=40, width=40, resize=rule).apply(image), pixels(image))


def test_bgr_is_rgb_backwards_and_grey_is_pillows():
    image = noise(32, 32)
    rgb = Preprocess(height=32, width=32).apply(image)
    assert torch.equal(Preprocess(height=32, width=32, color="BGR").apply(image), rgb.flip(0))
    grey = Preprocess(height=32, width=32, color="L", mean=(0.5,), std=(0.5,)).apply(image)
    assert torch.equal(grey, torch.from_numpy(np.array(image.convert("L")))[None])


@pytest.mark.parametrize(
    "value_range, mean, std",
    [
        (1.0, IMAGENET_MEAN, IMAGENET_STD),
        (255.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)),
        (1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (255.0, (127.5,) * 3, (58.4, 57.1, 57.4)),
    ],
)
def test_normalize_is_its_formula(value_range, mean, std):
    batch = torch.arange(256, dtype=torch.uint8).repeat(3 * 2).reshape(2, 3, 16, 16)
    result = Preprocess(value_range=value_range, mean=mean, std=std).normalize(batch)
    exact = batch.numpy().astype(np.float64) / 255 * value_range
    exact = (exact - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    assert result.dtype == torch.float32
    assert np.abs(result.numpy() - exact).max() <= 4e-7 * np.abs(exact).max()


options = st.fixed_dictionaries(
    {
        "height": st.integers(1, 64),
        "width": st.integers(1, 64),
        "resize": st.sampled_from(["crop", "shortest", "squash", "pad"]),
        "crop_fraction": st.floats(0.05, 1.0),
        "interpolation": st.sampled_from(sorted(FILTERS)),
        "color": st.sampled_from(["RGB", "BGR", "L"]),
        "value_range": st.sampled_from([1.0, 255.0]),
        "fill": st.integers(0, 255),
    }
)


def build(values: dict) -> Preprocess:
    channels = 1 if values["color"] == "L" else 3
    return Preprocess(**values, mean=(0.45,) * channels, std=(0.22,) * channels)


@settings(max_examples=300, deadline=None)
@given(options, st.integers(1, 300), st.integers(1, 300))
def test_any_image_becomes_a_tensor_of_the_promised_shape(values, width, height):
    preprocess = build(values)
    tensor = preprocess.apply(Image.new("RGB", (width, height), (10, 200, 30)))
    assert tensor.shape == (preprocess.in_chans, preprocess.height, preprocess.width)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    if values["resize"] != "pad":  # a flat picture stays flat
        assert all(len(channel.unique()) == 1 for channel in tensor)


@settings(max_examples=100, deadline=None)
@given(options)
def test_survives_json(values):
    preprocess = build(values)
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again == preprocess
    assert hash(again) == hash(preprocess)


@pytest.mark.parametrize("rule", ["crop", "shortest", "squash", "pad"])
@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
def test_extreme_aspect_ratios_stay_small_in_memory(rule, size, monkeypatch):
    made = []
    resize = Image.Image.resize

    def watched(self, size, *arguments, **options):
        made.append(size[0] * size[1])
        return resize(self, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    view = Preprocess(height=64, width=64, resize=rule).apply(Image.new("RGB", size, (9, 8, 7)))
    assert max(made) <= 1 << 26
    assert view.shape == (3, 64, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": -3},
        {"height": 224.5},
        {"height": "224"},
        {"height": True},
        {"height": 10**9},
        {"resize": "stretch"},
        {"resize": ["crop"]},
        {"interpolation": "magic"},
        {"interpolation": {}},
        {"color": "CMYK"},
        {"color": []},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.5},
        {"crop_fraction": 1e-9},
        {"crop_fraction": float("nan")},
        {"crop_fraction": "1"},
        {"value_range": 2.0},
        {"fill": 256},
        {"fill": 1.5},
        {"std": (0.0, 1.0, 1.0)},
        {"std": (float("nan"), 1.0, 1.0)},
        {"std": (1.0, 1.0)},
        {"std": 1.0},
        {"std": ("a", "b", "c")},
        {"mean": (0.5,)},
        {"mean": (float("inf"), 0.5, 0.5)},
        {"mean": (10**400, 0.5, 0.5)},
        {"mean": None},
        {"color": "L"},
        {"sharpness": 3},
    ],
    ids=str,
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(UsageError):
        Preprocess.from_dict(wrong)


@pytest.mark.parametrize("size", [(20, 300), (300, 20), (97, 61)])
def test_the_way_for_extreme_shapes_gives_the_same_picture(size, monkeypatch):
    preprocess = Preprocess(height=40, width=40, resize="shortest", crop_fraction=0.875)
    expected = preprocess.apply(noise(*size)).int()
    monkeypatch.setattr("inception.data.preprocess.MAX_RESIZED_PIXELS", 0)
    # Pillow keeps boxes as 32-bit floats.
    assert (preprocess.apply(noise(*size)).int() - expected).abs().max() <= 2


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_normalising_in_parts_gives_the_same_bits(count):
    preprocess = Preprocess(height=300, width=200)
    batch = torch.randint(0, 256, (count, 3, 300, 200), generator=torch.Generator().manual_seed(0))
    at_once, in_parts = preprocess.normalize(batch), preprocess.normalize(batch.to(torch.uint8))
    assert in_parts.dtype == torch.float32
    assert torch.equal(in_parts, at_once)
    strided = batch.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(preprocess.normalize(strided), at_once)
