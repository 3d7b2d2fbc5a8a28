"""Running a classifier over a data set: which images, in which order, against which labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shapes import COLOURS, write_shapes

from inception.data.loader import Loader
from inception.data.sources import open_dataset
from inception.errors import BundleError, DataError
from inception.evaluate.answers import collect_answers
from inception.evaluate.measure import collect_logits, evaluate_bundle
from inception.runtime.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(tiny_bundle) -> Classifier:
    return Classifier(tiny_bundle, "cpu")


def test_logits_and_targets_in_the_order_of_the_samples(classifier, shapes):
    dataset = open_dataset(shapes)
    samples = dataset.split("train")
    counts = []
    logits, targets = collect_logits(classifier, Loader(dataset, samples), counts.append)
    assert (logits.dtype, targets.dtype) == (np.float32, np.int64)
    assert targets.tolist() == [sample.label for sample in samples]
    assert sum(counts) == len(samples)
    for index in (0, 17, 47):
        batch = classifier.preprocess.apply(Loader(dataset, samples).image(index, classifier.preprocess))[
            None
        ]
        assert np.allclose(logits[index], classifier.logits(batch)[0], atol=1e-4)


def test_the_numbers_are_those_of_the_logits(classifier, shapes):
    measurement = evaluate_bundle(classifier, shapes, "train")
    dataset = open_dataset(shapes)
    logits, targets = collect_logits(classifier, Loader(dataset, dataset.split("train")))
    assert measurement.evaluation.top1 == (logits.argmax(1) == targets).mean()
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(targets))
    assert measurement.evaluation.loss == pytest.approx(float(loss), rel=1e-6)
    warm = Classifier(replace(classifier.bundle, temperature=3.0), "cpu")
    cooled = torch.nn.functional.cross_entropy(torch.tensor(logits).double() / 3, torch.tensor(targets))
    assert evaluate_bundle(warm, shapes, "train").evaluation.loss == pytest.approx(float(cooled), rel=1e-6)


def test_crops_from_python(classifier, shapes):
    told = []
    measurement = evaluate_bundle(
        classifier, shapes, crops="10", progress=lambda count, total: told.append((count, total))
    )
    dataset = open_dataset(shapes)
    answers = collect_answers([classifier], ("10",), dataset, dataset.split("test"))
    assert sum(count for count, _ in told) == measurement.evaluation.n == len(measurement.paths) == 12
    right = answers.probabilities[0, "10"].argmax(axis=1) == answers.targets
    assert measurement.evaluation.top1 == right.mean()


def test_progress_paths_and_unreadable(classifier, tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 2, "test": 3})
    (data / "test" / "jade").joinpath("zz.png").write_bytes(b"")
    told = []
    measurement = evaluate_bundle(classifier, data, progress=lambda count, total: told.append((count, total)))
    assert measurement.split == "test"
    assert told == [(9, 10)]
    assert list(measurement.unreadable) == ["test/jade/zz.png"]
    assert len(measurement.paths) == measurement.evaluation.n == 9
    labels = [measurement.evaluation.labels[target] for target in measurement.evaluation.samples.targets]
    assert [path.split("/")[1] for path in measurement.paths] == labels
    with pytest.raises(DataError, match=r"zz\.png"):
        evaluate_bundle(classifier, data, strict=True)


def test_nothing_readable_and_no_such_split(classifier, tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 1, "test": 1})
    for file in (data / "test").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of its 3 images can be read"):
        evaluate_bundle(classifier, data)
    with pytest.raises(DataError, match="has no split 'dev'; it has train"):
        evaluate_bundle(classifier, data, "dev")


def test_a_subset_of_the_labels_in_another_order(classifier, tmp_path):
    data = write_shapes(tmp_path / "data", {"test": 2})
    for file in (data / "test" / "amber").iterdir():
        file.unlink()
    (data / "test" / "amber").rmdir()
    measurement = evaluate_bundle(classifier, data / "test")
    assert measurement.evaluation.n == 4
    assert set(measurement.evaluation.samples.targets) == {list(COLOURS).index(n) for n in ("jade", "violet")}


@pytest.mark.parametrize("layout", ["{}", "test/{}", "train/{}"])
def test_a_folder_of_a_single_class(classifier, tmp_path, layout):
    data = write_shapes(tmp_path / "data", {"test": 2})
    single = tmp_path / "single" / layout.format("jade")
    single.parent.mkdir(parents=True)
    (data / "test" / "jade").rename(single)
    measurement = evaluate_bundle(classifier, tmp_path / "single")
    assert measurement.evaluation.n == 2
    assert set(measurement.evaluation.samples.targets) == {list(COLOURS).index("jade")}


def test_only_what_training_held_back_is_measured_on_the_very_set_it_was_trained_on(tiny_bundle, tmp_path):
    folder = write_shapes(tmp_path / "plain", {"all": 12}) / "all"
    dataset = open_dataset(folder, val_fraction=0.25, seed=9)
    assert dataset.automatic_split
    stranger = Classifier(tiny_bundle, "cpu")
    assert evaluate_bundle(stranger, folder).split == "all"
    recipe = {"val_fraction": 0.25, "seed": 9}
    provenance = {"data_fingerprint": dataset.fingerprint, "recipe": recipe}
    pupil = Classifier(replace(tiny_bundle, provenance=provenance), "cpu")
    measurement = evaluate_bundle(pupil, folder)
    assert measurement.split == "test"
    assert set(measurement.paths) == {sample.path for sample in dataset.split("test")}


@pytest.mark.parametrize("recipe", [{"val_fraction": "many"}, {"seed": None}, {"val_fraction": float("nan")}])
def test_an_impossible_recipe_is_a_bundle_error(tiny_bundle, shapes, recipe):
    broken = Classifier(replace(tiny_bundle, provenance={"recipe": recipe}), "cpu")
    with pytest.raises(BundleError, match="impossible val_fraction"):
        evaluate_bundle(broken, shapes)
