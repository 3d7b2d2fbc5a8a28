"""A network whose numbers overflow: the image gets an error, its neighbours their answers, never NaN."""

import json
from concurrent.futures import Future
from io import BytesIO

import numpy as np
import pytest
import torch

from inception.runtime.classifier import Classifier
from inception.serve import wire
from inception.serve.answers import Answer, Answerer, Ask
from inception.serve.app import STATUS_OF_KIND, json_response
from inception.serve.worker import Batch, _answer


class Overflowing(Classifier):
    """Answers with infinity for white images."""

    def logits(self, batch):
        result = super().logits(batch).clone()
        result[batch.flatten(1).float().mean(1) == 255] = torch.inf
        return result


@pytest.fixture
def answerer(tiny_bundle) -> Answerer:
    return Answerer(Overflowing(tiny_bundle, "cpu"), max_pixels=1 << 20, explained=False)


def picture(value: int) -> bytes:
    return np.full((3, 32, 32), value, np.uint8).tobytes()


def test_only_the_image_that_overflows_has_no_answer(answerer):
    ask = Ask("pixels", top=3, tensors=("logits", "probabilities"))
    found = answerer.answer([ask] * 3, [answerer.open(ask, picture(value)) for value in (10, 255, 20)])
    assert ["error" in answer.values for answer in found] == [False, True, False]
    assert "not all finite" in found[1].values["error"]
    assert STATUS_OF_KIND[found[1].values["kind"]] == 500
    assert found[1].rows == b""
    for answer in (found[0], found[2]):
        assert np.isfinite(np.frombuffer(answer.rows, np.float32)).all()


def test_messages_and_answers_hold_no_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.pack({"loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_response({"loss": float("inf")})


def test_values_that_are_no_json_fail_their_batch_and_not_the_process(answerer, monkeypatch):
    monkeypatch.setattr(answerer, "answer", lambda asks, opened: [Answer({"share": float("nan")})])
    opened: Future = Future()
    opened.set_result((Answer({}), 0.0))
    packed = _answer(Batch(7, [Ask("pixels")], [opened]), answerer)
    message, _ = wire.receive_blocking(BytesIO(packed))
    assert message["event"] == "error"
    assert message["batch"] == 7
    assert "NaN" not in json.dumps(message)
