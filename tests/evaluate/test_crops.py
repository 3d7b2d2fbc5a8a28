"""The crops of the papers: how many, where, and what the network then sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import DataError, UsageError
from inception.evaluate.answers import collect_answers
from inception.evaluate.crops import CROPS, OWN, View, crop_views, cut_views, own_views, see
from inception.evaluate.dense import dense_input, dense_probabilities
from inception.nets.dense import map_window
from inception.runtime.classifier import Classifier

SQUARED = tuple(name for name in CROPS if name not in (*OWN, "dense"))


@pytest.fixture(scope="module")
def classifier(tiny_bundle) -> Classifier:
    return Classifier(tiny_bundle, "cpu")


def gradient(width: int, height: int) -> Image.Image:
    """A picture whose red tells the column and whose green the row, without any noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * columns / (width - 1), 255 * rows / (height - 1)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize(("crops", "count"), [("1", 1), ("10", 10), ("12", 12), ("144", 144)])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (64, 64), (3000, 9)])
@pytest.mark.parametrize("side", [224, 299, 32])
def test_counts_and_boxes_inside_the_image(crops, count, size, side):
    views = crop_views(crops, size, side)
    assert views.total() == count
    for view in views:
        left, top, right, bottom = view.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert right - left == pytest.approx(bottom - top, rel=1e-9)


def test_views_of_the_smaller_ways_are_among_those_of_144():
    for size in ((500, 375), (227, 227)):
        most = crop_views("144", size, 224)
        for crops in ("1", "10", "12"):
            assert set(crop_views(crops, size, 224)) <= set(most)


def test_144_crops_are_those_of_the_paper_counted_by_hand():
    """4 scales x 3 squares x (4 corners + centre + whole) x 2, in a 500 x 375 image."""
    expected: dict[View, int] = {}
    for scale in (256, 288, 320, 352):
        pixel = 375 / scale
        for origin in (0.0, 62.5, 125.0):
            rest, middle = scale - 224, (scale - 224) // 2
            boxes = [
                (origin + x * pixel, y * pixel, origin + (x + 224) * pixel, (y + 224) * pixel)
                for x, y in ((0, 0), (rest, 0), (0, rest), (rest, rest), (middle, middle))
            ]
            for box in [*boxes, (origin, 0.0, origin + 375, 375.0)]:
                for mirrored in (False, True):
                    expected[View(box, mirrored)] = expected.get(View(box, mirrored), 0) + 1
    views = crop_views("144", (500, 375), 224)
    assert len(views) == len(expected) == 126  # the whole square is the same at four scales
    for view, count in expected.items():
        [near] = [
            other
            for other in views
            if other.mirrored == view.mirrored and np.allclose(other.box, view.box, atol=1e-6)
        ]
        assert views[near] == count
    assert len(crop_views("144", (227, 227), 224)) == 42  # and so are the three squares of a square image


@pytest.mark.parametrize("size", [(480, 360), (360, 480)])
def test_a_crop_is_the_cut_out_of_the_resized_image(size):
    image = gradient(*size)
    preprocess = Preprocess(224, 224)
    resized = image.resize(tuple(round(length * 256 / 360) for length in size), Image.Resampling.BILINEAR)
    wide = size[0] > size[1]
    offset = round((max(resized.size) - 256) / 2)
    views = list(crop_views("10", size, 224))
    pixels = cut_views(image, views, preprocess)
    corners = [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]
    for index, (x, y) in enumerate(corners):
        left, top = (offset + x, y) if wide else (x, offset + y)
        cut = np.array(resized.crop((left, top, left + 224, top + 224))).astype(int)
        ours = pixels[2 * index].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(ours - cut).max() <= 2
        assert torch.equal(pixels[2 * index + 1], pixels[2 * index].flip(-1))


def test_single_is_the_bundles_own_preprocessing_and_weights_are_shares():
    image, preprocess = gradient(90, 60), Preprocess(32, 32, resize="squash")
    seen = see(image, ("single", "1", "10", "12", "144"), preprocess)
    assert seen.pixels.dtype == torch.uint8
    assert torch.equal(seen.pixels[-1], preprocess.apply(image))
    assert seen.weights.shape == (5, len(seen.pixels))
    assert np.allclose(seen.weights.sum(axis=1), 1.0)
    assert [np.count_nonzero(row) for row in seen.weights] == [1, 1, 10, 12, 126]
    grey = see(image, ("12",), Preprocess(32, 32, color="L", mean=(0.5,), std=(0.5,)))
    assert grey.pixels.shape == (12, 1, 32, 32)


@pytest.mark.parametrize(("height", "width", "step"), [(32, 32, 1), (28, 40, 1), (224, 224, 7)])
def test_own_views_are_the_view_mirrored_and_moved(height, width, step):
    view = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.manual_seed(0))
    border = F.pad(view.float(), (step,) * 4, mode="reflect").byte()
    lower_right = border[:, :height, :width]
    upper_left = border[:, -height:, -width:]
    expected = [picture for way in (view, lower_right, upper_left) for picture in (way, way.flip(2))]
    assert torch.equal(own_views(view, 6), torch.stack(expected))
    assert torch.equal(lower_right[:, step:, step:], view[:, :-step, :-step])


@pytest.mark.parametrize("crops", ["2", "6"])
def test_own_views_are_averaged_by_their_shares_for_inputs_of_any_shape(crops):
    image, preprocess = gradient(90, 60), Preprocess(32, 48)
    seen = see(image, ("single", crops), preprocess)
    view = preprocess.apply(image)
    assert torch.equal(seen.pixels, own_views(view, int(crops)))
    shares = {"2": [0.5, 0.5], "6": [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]}[crops]
    assert seen.weights.tolist() == [[1.0] + [0.0] * (int(crops) - 1), shares]
    both = see(image, ("10", crops), Preprocess(32, 32))
    assert both.weights.shape == (2, 10 + int(crops))
    assert both.weights.sum(axis=1).tolist() == pytest.approx([1.0, 1.0])
    assert both.weights[0, 10:].tolist() == [0.0] * int(crops)


def test_crops_need_a_square_input_and_a_known_name():
    with pytest.raises(UsageError, match="--crops single, 2, 6"):
        see(gradient(60, 60), ("10",), Preprocess(32, 48))
    assert see(gradient(60, 60), ("single",), Preprocess(32, 48)).pixels.shape == (1, 3, 32, 48)
    with pytest.raises(UsageError, match="crops must be one of"):
        crop_views("dense", (60, 60), 32)


@pytest.mark.parametrize("crops", SQUARED)
def test_answers_are_the_mean_of_the_softmax_over_all_crops(classifier, shapes, crops):
    dataset = open_dataset(shapes)
    samples = dataset.split("test")
    answers = collect_answers([classifier], ("single", crops), dataset, samples)
    assert answers.targets.tolist() == [sample.label for sample in samples]
    assert answers.paths == tuple(sample.path for sample in samples)
    for index in (0, 7):
        image = Image.open(shapes / samples[index].path).convert("RGB")
        views = list(crop_views(crops, image.size, 32).elements())  # equal ones as often as they count
        expected = classifier.probabilities(cut_views(image, views, classifier.preprocess)).mean(0)
        assert np.allclose(answers.probabilities[0, crops][index], expected, atol=1e-5)
        own = classifier.probabilities(classifier.preprocess.apply(image)[None])[0]
        assert np.allclose(answers.probabilities[0, "single"][index], own, atol=1e-5)


def test_unreadable_images_are_left_out_or_stop(classifier, shapes, tmp_path):
    import shutil

    shutil.copytree(shapes, tmp_path / "data")
    (tmp_path / "data/test/jade/00.png").write_bytes(b"")
    dataset = open_dataset(tmp_path / "data")
    samples = dataset.split("test")
    told = []
    answers = collect_answers([classifier], ("1",), dataset, samples, progress=told.append)
    assert list(answers.unreadable) == ["test/jade/00.png"]
    assert len(answers.paths) == len(answers.targets) == sum(told) == 11
    with pytest.raises(DataError, match="without --strict"):
        collect_answers([classifier], ("1",), dataset, samples, strict=True)
    broken = [sample for sample in samples if sample.path == "test/jade/00.png"]
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        collect_answers([classifier], ("1",), dataset, broken)


def test_each_image_is_decoded_once(classifier, shapes, monkeypatch):
    decoded = []

    def counting(data, **options):
        decoded.append(options["name"])
        return decode(data, **options)

    from inception.data.decode import decode_image as decode

    monkeypatch.setattr("inception.data.loader.decode_image", counting)
    dataset = open_dataset(shapes)
    twice = [classifier, Classifier(replace(classifier.bundle, temperature=2.0), "cpu")]
    collect_answers(twice, ("single", "1", "10", "dense"), dataset, dataset.split("test"))
    assert sorted(decoded) == sorted(sample.path for sample in dataset.split("test"))


def test_classes_are_aligned_by_name(classifier, shapes):
    order = [2, 0, 1]
    state = dict(classifier.bundle.state_dict)
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name][order]
    labels = tuple(classifier.labels[index] for index in order)
    turned = Classifier(replace(classifier.bundle, labels=labels, state_dict=state), "cpu")
    dataset = open_dataset(shapes)
    answers = collect_answers([classifier, turned], ("1",), dataset, dataset.split("test"))
    assert np.allclose(answers.probabilities[0, "1"], answers.probabilities[1, "1"], atol=1e-5)
    other = Classifier(replace(classifier.bundle, labels=("amber", "jade", "pink")), "cpu")
    with pytest.raises(UsageError, match=r"the pink one has other classes .* lacks 'violet' .* has 'pink'"):
        collect_answers(
            [classifier, other], ("1",), dataset, dataset.split("test"), names=["first", "the pink one"]
        )


def test_dense_input_keeps_the_shape_of_the_picture():
    preprocess = Preprocess(224, 224)
    assert dense_input(gradient(500, 375), preprocess).shape == (2, 3, 256, 341)
    assert dense_input(gradient(375, 500), preprocess).shape == (2, 3, 341, 256)
    long = dense_input(gradient(9000, 30), preprocess)
    assert long.shape == (2, 3, 256, 1024)
    assert torch.equal(long[0].flip(-1), long[1])


@pytest.mark.parametrize("arguments", [{}, {"head": "fully_connected", "image_size": 32}])
def test_dense_evaluation_is_the_classifier_on_every_window_of_the_map(tiny_bundle, arguments):
    from inception.nets.registry import build_network

    torch.manual_seed(3)
    network = build_network("googlenet_bn", num_classes=3, width=0.05, stem="small", **arguments)
    torch.nn.init.normal_(network.fc.weight, std=1.0)
    bundle = replace(
        tiny_bundle, arguments=network.arguments, state_dict=network.state_dict(), temperature=1.5
    )
    one = Classifier(bundle, "cpu")
    pixels = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = one.model.forward_features(one.preprocess.normalize(pixels))
        side = one.model.forward_features(torch.zeros(1, 3, 32, 32)).shape[-1]
        rows = [
            torch.softmax(one.model.forward_head(maps[:, :, y : y + side, x : x + side]) / 1.5, dim=1)
            for y in range(maps.shape[2] - side + 1)
            for x in range(maps.shape[3] - side + 1)
        ]
    expected = torch.cat(rows).mean(0)
    assert len(rows) > 1
    assert torch.allclose(
        dense_probabilities(one, pixels, map_window(one.model, 32, 32)), expected, atol=1e-6
    )
    # On a picture of the network's own size there is one window: the plain answer.
    small = pixels[:1, :, :32, :32]
    assert torch.allclose(
        dense_probabilities(one, small, map_window(one.model, 32, 32)), one.probabilities(small)[0], atol=1e-6
    )
