"""Files that Keras itself wrote, in its three forms, against Keras's own logits."""

import os
import zipfile

import numpy as np
import pytest
import torch
from peers import TOLERANCE, difference, images, logits

from inception.errors import UsageError, WeightsError
from inception.weights.formats.keras import read_keras
from inception.weights.importer import import_weights

os.environ.setdefault("KERAS_BACKEND", "torch")
h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")
if keras.backend.backend() == "tensorflow":
    pytest.skip("Keras runs on TensorFlow here", allow_module_level=True)


def liven(model, seed: int = 3):
    generator = np.random.default_rng(seed)
    values = []
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name in ("kernel", "kernel:0"):
            scale = (2 / np.prod(shape[:-1])) ** 0.5
            values.append(generator.standard_normal(shape, np.float32) * np.float32(scale))
        elif "variance" in variable.name or "gamma" in variable.name:
            values.append(generator.uniform(0.7, 1.3, shape).astype(np.float32))
        else:
            values.append((generator.standard_normal(shape) * 0.1).astype(np.float32))
    model.set_weights(values)
    return model


def predict(model, x: torch.Tensor) -> np.ndarray:
    answer = model(np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()), training=False)
    return keras.ops.convert_to_numpy(answer)


def make(name: str, side: int, classes: int = 11):
    application = getattr(keras.applications, name)
    return liven(
        application(weights=None, input_shape=(side, side, 3), classes=classes, classifier_activation=None)
    )


@pytest.fixture(scope="module")
def inception_v3():
    keras.utils.clear_session()
    keras.layers.Conv2D(2, 3)(keras.Input((8, 8, 3)))  # so that automatic names do not begin at 0
    return make("InceptionV3", 139)


@pytest.mark.parametrize("ending", [".h5", ".keras", ".weights.h5"])
def test_inception_v3_in_every_form(inception_v3, tmp_path, ending):
    path = tmp_path / f"v3{ending}"
    (inception_v3.save_weights if ending == ".weights.h5" else inception_v3.save)(path)
    bundle, report = import_weights(path, "inception_v3")
    assert report.unexpected == ()
    assert bundle.arguments["count_include_pad"] is False
    assert bundle.provenance["tool"] == "keras"
    assert (bundle.preprocess.mean, bundle.preprocess.color) == ((0.5,) * 3, "RGB")
    x = images(139)
    assert difference(logits(bundle, x), predict(inception_v3, x)) < TOLERANCE


def test_inception_resnet_v2(tmp_path):
    theirs = make("InceptionResNetV2", 139)
    theirs.save_weights(tmp_path / "ir.weights.h5")
    bundle, report = import_weights(tmp_path / "ir.weights.h5", "inception_resnet_v2")
    assert report.unexpected == ()
    x = images(139)
    assert difference(logits(bundle, x), predict(theirs, x)) < TOLERANCE


def test_vgg16_flattens_its_map_in_another_order(tmp_path):
    theirs = make("VGG16", 224, classes=5)
    theirs.save_weights(tmp_path / "vgg.weights.h5")
    x = images(224)
    expected = predict(theirs, x)
    del theirs
    bundle, report = import_weights(tmp_path / "vgg.weights.h5", "vgg16")
    assert report.unexpected == ()
    assert bundle.preprocess.color == "BGR"
    assert difference(logits(bundle, x), expected) < TOLERANCE


# Hostile files


def test_contents_of_other_files_are_not_read(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset(
            "conv/kernel", (8, 8), "f4", external=[(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
        )
    with pytest.raises(WeightsError, match="points to another file"):
        read_keras(tmp_path / "outside.h5")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["conv/kernel"] = h5py.ExternalLink("outside.h5", "/conv/kernel")
    with pytest.raises(WeightsError, match="no variables"):
        read_keras(tmp_path / "linked.h5")


def test_cycles_and_claims(tmp_path):
    with h5py.File(tmp_path / "cycle.h5", "w") as file:
        file["conv/kernel"] = np.zeros((2, 2), np.float32)
        file["conv/self"] = file["conv"]
    assert list(read_keras(tmp_path / "cycle.h5").tensors) == ["conv/kernel"]
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("conv/kernel", (1 << 20, 1 << 12), "f4", chunks=(1024, 1024))
    with pytest.raises(WeightsError, match="more bytes than the file can hold"):
        read_keras(tmp_path / "huge.h5")


def test_a_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1 << 24))
    with pytest.raises(WeightsError, match="claims"):
        read_keras(tmp_path / "bomb.keras")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightsError, match=r"model\.weights\.h5 is missing"):
        read_keras(tmp_path / "empty.keras")


def test_without_h5py_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"inception\[import\]"):
        read_keras(tmp_path / "x.h5")
