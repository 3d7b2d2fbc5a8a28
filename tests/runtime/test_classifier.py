"""Images in, answers out, in order; bad images are answered in their place."""

import io
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import COLOURS, shape_picture

from inception.data.decode import decode_image
from inception.errors import ImageError, InceptionError, UsageError
from inception.runtime.classifier import Classifier, Prediction, Score, open_image
from inception.runtime.device import choose_device, choose_precision
from inception.runtime.loading import load


@pytest.fixture(scope="module")
def classifier(tiny_bundle) -> Classifier:
    return Classifier(tiny_bundle, "cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [shape_picture(label, seed) for seed in range(4) for label in COLOURS]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_answer_is_the_softmax_of_the_networks_logits(classifier, tiny_bundle, pictures):
    answers = classifier.predict(pictures, top=3)
    batch = torch.stack([tiny_bundle.preprocess.apply(picture) for picture in pictures])
    with torch.no_grad():
        logits = tiny_bundle.build()(tiny_bundle.preprocess.normalize(batch))
    expected = torch.softmax(logits.double(), 1)
    for answer, row in zip(answers, expected, strict=True):
        order = row.argsort(descending=True)
        assert [score.index for score in answer.top] == order.tolist()
        assert [score.label for score in answer.top] == [classifier.labels[i] for i in order]
        assert [score.probability for score in answer.top] == pytest.approx(row[order].tolist(), abs=1e-5)
        assert sum(score.probability for score in answer.top) == pytest.approx(1.0, abs=1e-6)
        assert answer.label == answer.top[0].label


def test_logits_are_float32_on_the_cpu_and_gradients_off(classifier, pictures):
    logits = classifier.logits(classifier.preprocess.apply(pictures[0])[None])
    assert logits.dtype == torch.float32
    assert logits.shape == (1, 3)
    assert logits.device.type == "cpu"
    assert not logits.requires_grad
    assert not classifier.model.training


@pytest.mark.parametrize("batch_size", [1, 5, 12, 64])
def test_order_and_answers_do_not_depend_on_the_batch_size(classifier, pictures, batch_size):
    expected = classifier.predict(pictures)
    items = [(str(index), lambda picture=picture: picture) for index, picture in enumerate(pictures)]
    answers = list(classifier.predict_stream(items, batch_size=batch_size))
    assert [answer.path for answer in answers] == [str(index) for index in range(len(pictures))]
    for ours, theirs in zip(answers, expected, strict=True):
        assert [s.index for s in ours.top] == [s.index for s in theirs.top]
        assert [s.probability for s in ours.top] == pytest.approx(
            [s.probability for s in theirs.top], abs=1e-5
        )


def test_one_image_may_come_without_a_list(classifier, pictures, tmp_path):
    (tmp_path / "one.png").write_bytes(encoded(pictures[0]))
    path, array = tmp_path / "one.png", np.array(pictures[0])
    for source in (path, str(path), path.read_bytes(), pictures[0], array):
        [answer] = classifier.predict(source)
        assert answer.top == classifier.predict([pictures[0]])[0].top
        assert answer.path == (str(path) if isinstance(source, type(path) | str) else None)
    assert classifier.predict([]) == []


def test_bad_images_are_answered_in_their_place(classifier, pictures, tmp_path):
    good = encoded(pictures[0])
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    lazy = Image.open(io.BytesIO(good[: len(good) // 2]))
    bad = [
        b"",
        b"text",
        good[:-40],
        str(tmp_path / "nowhere.png"),
        tmp_path,
        "null\0byte.png",
        tmp_path / "cut.png",
        lazy,
        Image.new("RGB", (0, 5)),
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 3, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        None,
        3,
    ]
    mixed = [source for item in bad for source in (item, good)]
    answers = classifier.predict(mixed)
    assert len(answers) == len(mixed)
    expected = classifier.predict(good)[0].top
    for source, failed, fine in zip(bad, answers[::2], answers[1::2], strict=True):
        assert failed.error and "\n" not in failed.error, source
        assert failed.top == ()
        assert failed.label is None
        assert fine.error is None
        assert [score.index for score in fine.top] == [score.index for score in expected]
    assert "nowhere.png" in answers[6].error
    only_bad = classifier.predict([b"", b"x"])
    assert [answer.error is not None for answer in only_bad] == [True, True]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_does_not_answer(tiny_bundle, pictures, number, several):
    thresholds = (0.5,) * len(tiny_bundle.labels) if several else None
    broken = Classifier(replace(tiny_bundle, thresholds=thresholds), "cpu")
    with torch.no_grad():
        broken.model.fc.bias.fill_(number)
    with pytest.raises(InceptionError, match="not all finite"):
        broken.predict(pictures[0])
    assert broken.predict(b"no image")[0].error is not None


@pytest.mark.parametrize("top, count", [(1, 1), (2, 2), (3, 3), (5, 3), (1000, 3)])
def test_top_is_at_most_the_number_of_classes(classifier, pictures, top, count):
    assert len(classifier.predict(pictures[0], top=top)[0].top) == count


@pytest.mark.parametrize("top", [0, -1])
def test_no_answers_cannot_be_asked_for(classifier, pictures, top):
    with pytest.raises(UsageError, match="top must be at least 1"):
        classifier.predict(pictures[0], top=top)


def test_the_temperature_divides_the_logits(tiny_bundle, pictures):
    batch = torch.stack([tiny_bundle.preprocess.apply(picture) for picture in pictures])
    plain = Classifier(tiny_bundle, "cpu")
    warm = Classifier(replace(tiny_bundle, temperature=4.0), "cpu")
    assert torch.equal(plain.logits(batch), warm.logits(batch))
    expected = torch.softmax(plain.logits(batch).double() / 4.0, 1)
    assert torch.allclose(warm.probabilities(batch).double(), expected, atol=1e-6)


def test_unknown_is_the_first_answer_below_the_threshold(tiny_bundle, pictures):
    tiny_bundle = replace(tiny_bundle, temperature=50.0)  # for less certain answers
    best = Classifier(tiny_bundle, "cpu").predict(pictures[0])[0].top[0].probability
    strict = Classifier(replace(tiny_bundle, unknown_threshold=min(best + 0.01, 1.0)), "cpu")
    [answer] = strict.predict(pictures[0], unknown=True)
    assert answer.top[0] == Score("unknown", -1, pytest.approx(1.0 - best))
    assert answer.top[1:] == strict.predict(pictures[0])[0].top
    lenient = Classifier(replace(tiny_bundle, unknown_threshold=best - 0.01), "cpu")
    assert lenient.predict(pictures[0], unknown=True) == lenient.predict(pictures[0])
    with pytest.raises(UsageError, match="no calibrated threshold"):
        Classifier(tiny_bundle, "cpu").predict(pictures[0], unknown=True)


def test_a_stream_is_read_at_most_three_batches_ahead(classifier, pictures):
    taken = []

    def endless():
        index = 0
        while True:
            taken.append(index)
            yield str(index), lambda: pictures[0]
            index += 1

    answers = classifier.predict_stream(endless(), batch_size=4)
    for count in range(1, 20):
        next(answers)
        assert len(taken) <= count - 1 + 12
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_images_are_decoded_in_threads_ahead_of_the_network(classifier, pictures):
    running, seen = [0], [0]
    lock = threading.Lock()

    def slow():
        with lock:
            running[0] += 1
            seen[0] = max(seen[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return pictures[0]

    list(classifier.predict_stream([(None, slow)] * 8, batch_size=2))
    assert seen[0] == 2


def test_json_form():
    good = Prediction("a.png", (Score("jade", 1, 0.75), Score("amber", 0, 0.25)))
    assert good.to_dict() == {
        "path": "a.png",
        "top": [
            {"label": "jade", "index": 1, "probability": 0.75},
            {"label": "amber", "index": 0, "probability": 0.25},
        ],
    }
    assert Prediction("b.png", error="empty").to_dict() == {"path": "b.png", "error": "empty"}


MODES = ["RGB", "L", "CMYK", "P", "RGBA", "LA", "1", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_a_pil_image_is_seen_as_its_file_is(mode):
    """Depth, palette and transparency are treated alike, opened by us or by the caller."""
    image = shape_picture("jade", 1)
    if mode == "I;16":
        values = np.array(image.convert("L")).astype(np.uint16) * 257
        data = encoded(Image.fromarray(values))
    else:
        if "A" in mode:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        data = encoded(image.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    expected = decode_image(data)
    opened = Image.open(io.BytesIO(data))
    assert open_image(opened).tobytes() == expected.tobytes()
    assert open_image(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_turned_upright_as_its_file_is(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(shape_picture("violet", 2), "JPEG", exif=exif)
    opened = open_image(Image.open(io.BytesIO(data)))
    assert opened.size == decode_image(data).size
    assert opened.tobytes() == decode_image(data).tobytes()


def test_the_callers_image_is_left_as_it_is():
    image = Image.new("RGBA", (4, 4), (1, 2, 3, 0))
    image.info["note"] = "mine"
    open_image(image)
    assert image.mode == "RGBA"
    assert image.info["note"] == "mine"
    with pytest.raises(ImageError):
        open_image(Image.new("RGB", (5, 0)))


def test_load_opens_folders_and_zips(tiny_bundle, tiny_path, tmp_path, pictures):
    from inception.weights.bundle import save_bundle

    save_bundle(tiny_bundle, tmp_path / "tiny.zip")
    expected = Classifier(tiny_bundle, "cpu").predict(pictures)
    for path in (tiny_path, str(tiny_path), tmp_path / "tiny.zip"):
        loaded = load(path, device="cpu")
        assert loaded.predict(pictures) == expected
        assert loaded.labels == tiny_bundle.labels
        assert loaded.preprocess == tiny_bundle.preprocess


def test_bfloat16_agrees_within_its_precision(tiny_bundle, pictures):
    batch = torch.stack([tiny_bundle.preprocess.apply(picture) for picture in pictures])
    exact = Classifier(tiny_bundle, "cpu", "float32").logits(batch)
    rough = Classifier(tiny_bundle, "cpu", "bfloat16").logits(batch)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cpu:x", "meta", "xla", "hpu"])
def test_a_device_that_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError, match=r"cannot be used here .*try --device cpu") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_automatic_choices_are_possible_here():
    device = choose_device("auto")
    assert torch.ones(2, device=device).sum() == 2
    assert choose_precision("auto", device) in ("float32", "bfloat16")
    assert choose_precision("bfloat16", torch.device("cpu")) == "bfloat16"
    with pytest.raises(UsageError, match="float32 or bfloat16, not 'half'"):
        choose_precision("half", device)
