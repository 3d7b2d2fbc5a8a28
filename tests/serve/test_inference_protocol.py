"""The Open Inference Protocol against the classifier itself."""

import base64
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from servers import Reply, Served

from inception.runtime.answering import softmax
from inception.runtime.loading import load

PATH = "/v2/models/shapes"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def classifier(bundle_path):
    return load(bundle_path, "cpu")


@pytest.fixture(scope="module")
def batch(classifier, pictures) -> torch.Tensor:
    """The pictures as the network's uint8 input."""
    return torch.stack([classifier.preprocess.apply(Image.open(p).convert("RGB")) for p in pictures])


def infer(served: Served, document: dict, raw: bytes | None = None) -> Reply:
    head = json.dumps(document).encode()
    headers = {} if raw is None else {LENGTH: str(len(head))}
    return served.ask("POST", f"{PATH}/infer", head + (raw or b""), headers)


def pixels(batch: torch.Tensor, **extra) -> dict:
    return {"name": "images", "datatype": "UINT8", "shape": list(batch.shape), **extra}


def tensors(reply: Reply) -> dict[str, np.ndarray]:
    """Every output of an answer, JSON or binary."""
    assert reply.status == 200, reply.body
    length = int(reply.headers.get(LENGTH.lower(), len(reply.body)))
    document, raw = json.loads(reply.body[:length]), reply.body[length:]
    found = {}
    for output in document["outputs"]:
        if "data" in output:
            values = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            values, raw = np.frombuffer(raw[:size], "<f4"), raw[size:]
        found[output["name"]] = values.reshape(output["shape"])
    assert raw == b""
    return found


def test_json_and_binary_give_the_classifier_s_own_numbers(served: Served, classifier, batch):
    logits = classifier.logits(batch).numpy()
    probabilities = softmax(logits, classifier.temperature)
    size = {"parameters": {"binary_data_size": batch.numel()}}
    replies = [
        infer(served, {"inputs": [pixels(batch, data=batch.flatten().tolist())]}),
        infer(served, {"inputs": [pixels(batch, data=batch.tolist())]}),
        infer(served, {"inputs": [pixels(batch, **size)]}, batch.numpy().tobytes()),
        infer(
            served,
            {"inputs": [pixels(batch, **size)], "parameters": {"binary_data_output": True}},
            batch.numpy().tobytes(),
        ),
    ]
    for reply in replies:
        found = tensors(reply)
        assert np.array_equal(found["logits"], logits)
        assert np.array_equal(found["probabilities"], probabilities)
    assert replies[3].headers["content-type"] == "application/octet-stream"


def test_encoded_images_are_preprocessed_by_the_server(served: Served, classifier, pictures, batch):
    files = [picture.read_bytes() for picture in pictures]
    source = {"name": "images", "datatype": "BYTES", "shape": [3]}
    raw = b"".join(struct.pack("<I", len(data)) + data for data in files)
    as_text = [base64.b64encode(data).decode() for data in files]
    for reply in (
        infer(served, {"inputs": [{**source, "data": as_text}]}),
        infer(served, {"inputs": [{**source, "parameters": {"binary_data_size": len(raw)}}]}, raw),
    ):
        assert np.array_equal(tensors(reply)["logits"], classifier.logits(batch).numpy())


def test_outputs_are_those_asked_for_in_order(served: Served, batch):
    one = batch[:1]
    source = pixels(one, data=one.flatten().tolist())
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    reply = infer(served, {"id": "seven", "inputs": [source], "outputs": outputs})
    assert list(tensors(reply)) == ["logits", "probabilities"]
    document = json.loads(reply.body[: int(reply.headers[LENGTH.lower()])])
    assert (document["id"], document["model_name"]) == ("seven", "shapes")
    assert list(tensors(infer(served, {"inputs": [source], "outputs": [{"name": "logits"}]}))) == ["logits"]


def test_metadata_and_health(served: Served, classifier):
    metadata = served.ask("GET", PATH).json()
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, 32, 32]}]
    assert {output["name"]: output["shape"] for output in metadata["outputs"]} == {
        "probabilities": [-1, 3],
        "logits": [-1, 3],
    }
    assert metadata["labels"] == list(classifier.labels)
    [version] = metadata["versions"]
    assert served.ask("GET", f"{PATH}/versions/{version}").json() == metadata
    assert served.ask("GET", f"{PATH}/versions/{version}/ready").json() == {"name": "shapes", "ready": True}
    assert served.ask("GET", f"{PATH}/versions/0").status == 404
    assert served.ask("GET", "/v2/models/nobody/ready").status == 404
    for path in ("/v2/health/live", "/v2/health/ready", f"{PATH}/ready"):
        assert served.ask("GET", path).status == 200
    assert served.ask("GET", "/v2").json()["name"] == "inception"


ONE = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": [0] * 3072}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"inputs": {}},
        {"inputs": []},
        {"inputs": [ONE, ONE]},
        {"inputs": [{**ONE, "name": "image"}]},
        {"inputs": [{**ONE, "shape": [1, 3, 32]}]},
        {"inputs": [{**ONE, "shape": [0, 3, 32, 32], "data": []}]},
        {"inputs": [{**ONE, "shape": [True, 3, 32, 32]}]},
        {"inputs": [{**ONE, "shape": "1"}]},
        {"inputs": [{**ONE, "shape": [-1, 3, 32, 32]}]},
        {"inputs": [{**ONE, "datatype": "FP32"}]},
        {"inputs": [{**ONE, "data": [0] * 3071}]},
        {"inputs": [{**ONE, "data": [256] * 3072}]},
        {"inputs": [{**ONE, "data": [0.5] * 3072}]},
        {"inputs": [{**ONE, "data": [None] * 3072}]},
        {"inputs": [{**ONE, "data": "x"}]},
        {"inputs": [{**ONE, "data": [[0], 0]}]},
        {"inputs": [{**ONE, "parameters": {"binary_data_size": 3072}}]},
        {"inputs": [{**ONE, "parameters": []}]},
        {"inputs": [{key: value for key, value in ONE.items() if key != "data"}]},
        {"inputs": [{**ONE, "datatype": "BYTES", "shape": [1], "data": ["?"]}]},
        {"inputs": [{**ONE, "datatype": "BYTES", "shape": [1], "data": [1]}]},
        {"inputs": [{**ONE, "datatype": "BYTES", "shape": [2], "data": ["aGk="]}]},
        {"inputs": [{**ONE, "datatype": "BYTES", "shape": [1, 1], "data": ["aGk="]}]},
        {"inputs": [ONE], "outputs": []},
        {"inputs": [ONE], "outputs": [{"name": "labels"}]},
        {"inputs": [ONE], "outputs": [{"name": ["logits"]}]},
        {"inputs": [ONE], "outputs": [{"name": "logits"}, {"name": "logits"}]},
        {"inputs": [ONE], "id": 7},
        {"inputs": [ONE], "parameters": 1},
    ],
)
def test_wrong_requests_are_explained(served: Served, document):
    reply = infer(served, document)
    assert reply.status == 400, reply.body
    assert reply.json().keys() == {"error"}


@pytest.mark.parametrize(
    "body, length",
    [
        (b"", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b'{"inputs": NaN}', None),
        (b"9" * 10_000, None),
        (b"\xff\xfe", None),
        (b"{}", "3"),
        (b"{}", "-1"),
        (b"{}", "x"),
        (b"{}", "9" * 50),
        (json.dumps({"inputs": [{**ONE, "parameters": {"binary_data_size": 5}}]}).encode() + b"12345", None),
    ],
)
def test_bodies_that_are_no_requests(served: Served, body, length):
    reply = served.ask("POST", f"{PATH}/infer", body, {} if length is None else {LENGTH: length})
    assert reply.status == 400
    assert reply.json()["error"]


@pytest.mark.parametrize("raw", [b"\1", b"\5\0\0\0ab", b"\xff\xff\xff\xff", b"\2\0\0\0ab\1\0\0\0"])
def test_binary_texts_with_lying_lengths(served: Served, raw):
    source = {"name": "images", "datatype": "BYTES", "shape": [1]}
    reply = infer(served, {"inputs": [{**source, "parameters": {"binary_data_size": len(raw)}}]}, raw)
    assert reply.status == 400


def test_bad_images_and_too_many(served: Served):
    source = {"name": "images", "datatype": "BYTES"}
    assert infer(served, {"inputs": [{**source, "shape": [1], "data": ["aGk="]}]}).status == 415
    many = infer(served, {"inputs": [{**source, "shape": [5], "data": ["aGk="] * 5}]})
    assert many.status == 413
