"""A plan may let `predict` decode large JPEGs at reduced size; nothing else is reduced, nothing by default."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from inception.data.decode import decode_image
from inception.data.preprocess import Preprocess
from inception.errors import BundleError
from inception.runtime import answering
from inception.runtime.classifier import Classifier
from inception.runtime.inputs import expand_inputs
from inception.runtime.plan import Plan, read_plan, write_plan
from inception.runtime.session import Session
from inception.weights.bundle import save_bundle

CHINA = Image.fromarray(load_sample_image("china.jpg"))


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("rule", ["crop", "shortest", "squash", "pad"])
@pytest.mark.parametrize("shape", [(96, 96), (64, 96), (96, 48)])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_the_view_keeps_the_margin_and_hardly_changes(rule, shape, fraction):
    preprocess = Preprocess(height=shape[0], width=shape[1], resize=rule, crop_fraction=fraction)
    reduce_to = preprocess.reduced_side(1.5)
    assert reduce_to >= 1.5 * max(shape)
    data = jpeg(CHINA)  # 640 x 427
    exact, reduced = decode_image(data), decode_image(data, reduce_to=reduce_to)
    assert reduced.size == (320, 214)
    difference = np.abs(preprocess.pixels(exact).astype(int) - preprocess.pixels(reduced))
    assert difference.mean() < 4


@pytest.fixture
def session(tiny_bundle, tmp_path):
    """A session whose engine is the network itself; its plan says how photographs are decoded."""

    def make(margin: float) -> Session:
        path = tmp_path / f"bundle{margin}"
        save_bundle(tiny_bundle, path)
        write_plan(Plan("torch", "float32", 1, 1, reduce_margin=margin), {}, path)
        plan, _ = read_plan(path)
        return Session(path, plan, Classifier(tiny_bundle, "cpu").compute)

    return make


def test_a_plan_without_the_margin_is_exact(session):
    assert session(0.0).reduce_to is None
    assert Classifier.reduce_to is None


def test_files_and_bytes_are_reduced_and_pictures_are_not(session, tmp_path, monkeypatch):
    asked = []

    def watching(data, **options):
        asked.append(options.get("reduce_to"))
        return decode_image(data, **options)

    monkeypatch.setattr(answering, "decode_image", watching)
    fast = session(1.5)
    assert fast.reduce_to == fast.preprocess.reduced_side(1.5)
    data = jpeg(CHINA)
    (tmp_path / "china.jpg").write_bytes(data)
    fast.predict([data, tmp_path / "china.jpg"])
    assert asked == [fast.reduce_to] * 2
    [exact] = fast.predict([CHINA])
    assert len(asked) == 2 and exact.top
    [(_, open_it)] = expand_inputs([str(tmp_path / "china.jpg")], (), fast.reduce_to)
    assert min(open_it().size) < min(CHINA.size)
    [(_, open_it)] = expand_inputs([str(tmp_path / "china.jpg")], ())
    assert open_it().size == CHINA.size


@pytest.mark.parametrize("margin", [0.5, -1.0, 17.0, 1e9])
def test_an_impossible_margin_is_refused(tiny_bundle, tmp_path, margin):
    save_bundle(tiny_bundle, tmp_path / "bundle")
    plan = Plan("torch", "float32", 1, 1)
    write_plan(plan, {}, tmp_path / "bundle")
    file = tmp_path / "bundle" / "runtime" / "plan.json"
    file.write_text(file.read_text().replace('"reduce_margin": 0.0', f'"reduce_margin": {margin}'))
    with pytest.raises(BundleError, match="reduce_margin"):
        read_plan(tmp_path / "bundle")
