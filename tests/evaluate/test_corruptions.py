"""Corruptions do what their names say, at the severities of ImageNet-C."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from shapes import shape_picture

from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import DataError
from inception.evaluate.corruption_plots import corruption_sheet, robustness_curves
from inception.evaluate.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    blur,
    brightness,
    corrupted_views,
    jpeg,
    measure_robustness,
    noise,
)
from inception.evaluate.metrics import evaluate_logits, wilson_interval
from inception.evaluate.plots import to_png, to_svg
from inception.runtime.classifier import Classifier
from inception.runtime.loading import load

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)).resize(
    (224, 224), Image.Resampling.BICUBIC
)


def generator():
    return np.random.default_rng(1)


def distance(one, other) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_worse_than_the_one_before(name):
    away = [distance(CORRUPTIONS[name](PICTURE, severity, generator()), PICTURE) for severity in SEVERITIES]
    assert away == sorted(away)
    assert away[0] > 1


def test_noise_has_the_spread_of_imagenet_c():
    grey = Image.new("RGB", (224, 224), (128, 128, 128))
    for severity, sigma in zip((1, 2, 3), (0.08, 0.12, 0.18), strict=True):
        values = np.asarray(noise(grey, severity, generator()), float)
        assert values.std() == pytest.approx(255 * sigma, rel=0.02)
        assert values.mean() == pytest.approx(128, abs=0.5)


def test_blur_and_jpeg_are_pillows():
    expected = PICTURE.filter(ImageFilter.GaussianBlur(4))
    assert distance(blur(PICTURE, 4, generator()), expected) == 0
    small = PICTURE.resize((56, 56))
    assert distance(blur(small, 4, generator()), small.filter(ImageFilter.GaussianBlur(1))) == 0
    stream = io.BytesIO()
    PICTURE.save(stream, "JPEG", quality=15)
    assert distance(jpeg(PICTURE, 3, generator()), Image.open(stream)) == 0


def test_brightness_is_v_of_hsv():
    colors = pytest.importorskip("matplotlib.colors", reason="its colour model is compared with")
    for severity, added in zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        hsv = colors.rgb_to_hsv(np.asarray(PICTURE) / 255)
        hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
        expected = 255 * colors.hsv_to_rgb(hsv)
        ours = np.asarray(brightness(PICTURE, severity, generator()), float)
        assert np.abs(ours - expected).max() <= 0.51
    black = brightness(Image.new("RGB", (4, 4)), 5, generator())
    assert black.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("color", ["RGB", "BGR", "L"])
def test_views_are_the_clean_one_and_every_corruption_the_same_in_every_run(color):
    channels = 1 if color == "L" else 3
    preprocess = Preprocess(32, 32, color=color, mean=(0.5,) * channels, std=(0.5,) * channels)
    image = shape_picture("jade", 3)
    views = corrupted_views(image, preprocess, 7)
    assert views.shape == (21, channels, 32, 32)
    assert torch.equal(views[0], preprocess.apply(image))
    assert torch.equal(views, corrupted_views(image, preprocess, 7))
    assert not torch.equal(views, corrupted_views(image, preprocess, 8))


def test_accuracies_are_those_of_the_corrupted_views(trained, shapes):
    classifier = load(trained.bundle, "cpu")
    dataset = open_dataset(shapes)
    samples = dataset.split("test")
    told: list[int] = []
    result = measure_robustness(classifier, Loader(dataset, samples), told.append)
    assert (result.n, sum(told)) == (12, 12)
    images = [Image.open(shapes / sample.path).convert("RGB") for sample in samples]
    stacks = torch.stack([corrupted_views(one, classifier.preprocess, i) for i, one in enumerate(images)])
    targets = np.array([sample.label for sample in samples])
    for column in (0, 5, 8, 20):
        logits = classifier.logits(stacks[:, column]).numpy()
        evaluation = evaluate_logits(logits, targets, classifier.labels)
        if column == 0:
            assert (result.top1, result.top1_interval) == (evaluation.top1, evaluation.top1_interval)
            continue
        level = result.levels[column - 1]
        assert (level.corruption, level.severity) == (
            list(CORRUPTIONS)[(column - 1) // 5],
            (column - 1) % 5 + 1,
        )
        assert (level.top1, level.top5) == (evaluation.top1, evaluation.top5)
        assert level.top1_interval == wilson_interval(round(12 * level.top1), 12)
        assert level.top1_change == pytest.approx(level.top1 - result.top1)
    assert result.mean_top1 == pytest.approx(np.mean([level.top1 for level in result.levels]))
    assert len(result.to_dict()["levels"]) == 20


def test_unreadable_images(tiny_bundle, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "data")
    (tmp_path / "data/test/jade/00.png").write_bytes(b"")
    dataset = open_dataset(tmp_path / "data")
    samples, classifier = dataset.split("test"), Classifier(replace(tiny_bundle), "cpu")
    result = measure_robustness(classifier, Loader(dataset, samples))
    assert (result.n, list(result.unreadable)) == (11, ["test/jade/00.png"])
    with pytest.raises(DataError, match="without --strict"):
        measure_robustness(classifier, Loader(dataset, samples, strict=True))
    broken = [sample for sample in samples if sample.path in result.unreadable]
    with pytest.raises(DataError, match="none of its 1 images"):
        measure_robustness(classifier, Loader(dataset, broken))


def test_pictures_of_it(tiny_bundle, shapes):
    pytest.importorskip("matplotlib", reason="draws with matplotlib")
    dataset = open_dataset(shapes)
    result = measure_robustness(Classifier(tiny_bundle, "cpu"), Loader(dataset, dataset.split("test")))
    for language, word in (("en", "Brightness"), ("zh", "亮度")):
        assert word in to_svg(robustness_curves(result, language=language))
    views = [view.permute(1, 2, 0).numpy() for view in corrupted_views(PICTURE, Preprocess(32, 32), 0)]
    assert to_png(corruption_sheet(views, list(CORRUPTIONS))).startswith(b"\x89PNG")
