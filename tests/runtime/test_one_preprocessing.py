"""The promise everything rests on: training's evaluation, `evaluate` and `predict` see the same tensors."""

import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.evaluate.measure import collect_logits, evaluate_bundle
from inception.runtime.classifier import Classifier
from inception.runtime.device import choose_device
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load
from inception.train.log import Silent
from inception.train.loop import Setting, validate


class Watching(Classifier):
    """Keeps the uint8 batches it is asked about, and its logits."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.batches: list[torch.Tensor] = []
        self.answers: list[torch.Tensor] = []

    def logits(self, batch):
        self.batches.append(batch.clone())
        self.answers.append(super().logits(batch))
        return self.answers[-1]

    def take(self) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.cat(self.batches), torch.cat(self.answers)
        self.batches.clear()
        self.answers.clear()
        return seen


@pytest.fixture(params=["crop", "shortest", "squash", "pad"])
def watching(request, tiny_bundle):
    from dataclasses import replace

    rule = Preprocess(height=32, width=32, resize=request.param, crop_fraction=0.9, interpolation="bicubic")
    return Watching(replace(tiny_bundle, preprocess=rule), "cpu")


@pytest.fixture
def archives(shapes, tmp_path):
    with zipfile.ZipFile(tmp_path / "test.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (shapes / "test").rglob("*.png"):
            archive.write(file, file.relative_to(shapes / "test"))
    with tarfile.open(tmp_path / "test.tar.gz", "w:gz") as archive:
        archive.add(shapes / "test", "test")
    return [tmp_path / "test.zip", tmp_path / "test.tar.gz"]


def test_every_way_to_an_answer_sees_the_same_bits(watching, shapes, archives):
    dataset = open_dataset(shapes)
    loader = Loader(dataset, dataset.split("test"), workers=2)
    batches = list(loader.evaluation_batches(watching.preprocess, 64))
    trained_on = torch.cat([batch.images for batch in batches])

    evaluate_bundle(watching, shapes)
    evaluated, logits = watching.take()
    assert torch.equal(evaluated, trained_on)

    files = [shapes / sample.path for sample in dataset.split("test")]
    opened = []
    for file in files:
        with Image.open(file) as image:
            image.load()
            opened.append(image)
    ways = {
        "files": files,
        "names": [str(file) for file in files],
        "bytes": [file.read_bytes() for file in files],
        "PIL": opened,
        "lazy PIL": [Image.open(file) for file in files],
        "arrays": [np.array(image.convert("RGB")) for image in opened],
    }
    for way, sources in ways.items():
        watching.predict(sources)
        predicted, answers = watching.take()
        assert torch.equal(predicted, trained_on), way
        assert torch.equal(answers, logits), way
    for path in [shapes / "test", *archives]:
        list(watching.predict_stream(expand_inputs([str(path)], ())))
        predicted, answers = watching.take()
        assert torch.equal(predicted, trained_on), path
        assert torch.equal(answers, logits), path


def test_validation_while_training_measures_what_evaluate_measures(tiny_bundle, tiny_path, shapes, tmp_path):
    dataset = open_dataset(shapes)
    loader = Loader(dataset, dataset.split("val"))
    setting = Setting(
        folder=tmp_path,
        device=choose_device("cpu"),
        precision="float32",
        preprocess=tiny_bundle.preprocess,
        train=loader,
        val=loader,
        observer=Silent(),
    )
    classifier = load(tiny_path, "cpu")
    loss, top1 = validate(classifier.model, setting, loader)
    evaluation = evaluate_bundle(classifier, shapes, "val").evaluation
    assert top1 == evaluation.top1
    assert loss == pytest.approx(evaluation.loss, rel=1e-5)
    logits, targets = collect_logits(classifier, loader)
    assert logits.shape == (12, 3)
    assert targets.tolist() == [sample.label for sample in dataset.split("val")]
