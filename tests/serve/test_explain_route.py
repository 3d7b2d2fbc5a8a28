"""`/explain`: the maps and shares of `inception.explain`, and its place in the queue."""

import base64
import subprocess
import threading
import time
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from servers import TOKEN, Serve, Served, multipart

from inception.explain.attribution import METHODS, SIGNED, Question, attribute
from inception.explain.pictures import enlarged, overlay, seen
from inception.explain.trace import trace_branches
from inception.runtime.loading import load
from inception.runtime.session import Session
from inception.serve.explanations import OPTIONS, usable_methods


@pytest.fixture(scope="module")
def classifier(bundle_path):
    return load(bundle_path, "cpu")


def opened(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded)))


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    """Up to rounding: another batch size moves last digits."""
    difference = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16))
    return one.size == other.size and one.mode == other.mode and int(difference.max()) <= 3


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_the_library(served: Served, classifier, pictures, method):
    query = method.replace("+", "%2B")
    reply = served.ask("POST", f"/explain?method={query}&target=2", pictures[0].read_bytes())
    assert reply.status == 200, reply.body
    answer = reply.json()
    pixels = classifier.preprocess.apply(Image.open(pictures[0]).convert("RGB"))
    images = classifier.preprocess.normalize(pixels[None])
    found = attribute(classifier.model, images, Question(2), method, OPTIONS)[0]
    picture = seen(pixels, classifier.preprocess)
    assert (answer["method"], answer["signed"]) == (method, method in SIGNED)
    assert np.array_equal(np.asarray(opened(answer["pictures"]["seen"])), np.asarray(picture))
    expected = enlarged(overlay(picture, found, method in SIGNED))
    assert same_picture(opened(answer["pictures"]["overlay"]), expected)
    transparent = opened(answer["pictures"]["map"])
    assert (transparent.mode, transparent.size) == ("RGBA", picture.size)
    # Where the map is strongest, it hides most.
    strength = np.asarray(transparent)[..., 3].ravel()
    strongest = np.argsort(found.abs().numpy().ravel())
    assert strength[strongest[-50:]].mean() >= strength[strongest[:50]].mean()
    assert np.allclose(np.sum(answer["places"]), 1 if found.max() > 0 else 0, atol=1e-3)


def test_places_are_shares_of_the_thirds(served: Served, classifier, pictures):
    answer = served.ask("POST", "/explain?method=occlusion", pictures[1].read_bytes()).json()
    pixels = classifier.preprocess.apply(Image.open(pictures[1]).convert("RGB"))
    images = classifier.preprocess.normalize(pixels[None])
    found = attribute(classifier.model, images, Question(answer["target"]["index"]), "occlusion", OPTIONS)
    positive = found[0].clamp(min=0).numpy()
    # Thirds of 32 pixels, as adaptive pooling cuts them: 0..11, 10..22, 21..32.
    edges = [(0, 11), (10, 22), (21, 32)]
    means = np.array([[positive[a:b, c:d].mean() for c, d in edges] for a, b in edges])
    assert np.allclose(answer["places"], means / means.sum(), atol=1e-3)


def test_the_answer_is_explained_unless_another_class_is_named(served: Served, classifier, pictures):
    body = pictures[0].read_bytes()
    answers = served.ask("POST", "/classify", body).json()["results"][0]["top"]
    for target, score in ((None, answers[0]), (answers[-1]["index"], answers[-1])):
        query = "" if target is None else f"?target={target}"
        found = served.ask("POST", f"/explain{query}", body).json()
        assert found["target"] == pytest.approx(score)
        assert found["timing"]["batch"] == 1


def test_branch_shares_are_those_of_trace_and_add_up_to_the_logit(served: Served, classifier, pictures):
    answer = served.ask("POST", "/explain?target=1", pictures[2].read_bytes()).json()
    pixels = classifier.preprocess.apply(Image.open(pictures[2]).convert("RGB"))
    image = classifier.preprocess.normalize(pixels[None])[0]
    expected = [trace.to_dict() for trace in trace_branches(classifier.model, image, Question(1))]
    assert [module["module"] for module in answer["modules"]] == [trace["module"] for trace in expected]
    assert len(expected) == 9
    for module, trace in zip(answer["modules"], expected, strict=True):
        for found, share in zip(module["branches"], trace["branches"], strict=True):
            assert found == {
                **share,
                **{
                    k: pytest.approx(v, abs=1e-5)
                    for k, v in share.items()
                    if k in found and isinstance(v, float)
                },
            }
        assert sum(branch["gradient"] for branch in module["branches"]) == pytest.approx(1)
    # Behind the last module everything is linear: its contributions are the logit without its bias.
    with torch.inference_mode():
        logit = classifier.model(image[None])[0, 1] - classifier.model.fc.bias[1]
    last = sum(branch["contribution"] for branch in answer["modules"][-1]["branches"])
    assert last == pytest.approx(float(logit), abs=1e-4)
    assert answer["kinds"].keys() == {"1x1", "3x3", "5x5", "pool"}


def test_the_overlay_alone_is_a_picture(served: Served, pictures):
    body = pictures[0].read_bytes()
    reply = served.ask("POST", "/explain?form=png&method=grad-cam++", *multipart([("a.png", body)]))
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    whole = served.ask("POST", "/explain?method=grad-cam%2B%2B", body).json()
    assert same_picture(Image.open(BytesIO(reply.body)), opened(whole["pictures"]["overlay"]))


@pytest.mark.parametrize(
    "query", ["method=lime", "method=", "target=3", "target=-1", "target=x", "form=svg", "top=5", "version=0"]
)
def test_impossible_options(served: Served, pictures, query):
    reply = served.ask("POST", f"/explain?{query}", pictures[0].read_bytes())
    assert reply.status == (404 if query == "version=0" else 400)
    assert reply.json()["error"]


def test_bad_images_and_several_images_are_client_errors(served: Served, pictures):
    good = pictures[0].read_bytes()
    for data, status in ((b"", 400), (b"no image", 415), (good[:80], 422)):
        reply = served.ask("POST", "/explain", data)
        assert (reply.status, reply.json().keys()) == (status, {"error"})
    assert served.ask("POST", "/explain", *multipart([("a", good), ("b", good)])).status == 413


def test_declared_to_machines(served: Served, guarded: Served):
    assert "explain" in served.ask("GET", "/v2").json()["extensions"]
    assert served.ask("GET", "/v2/models/shapes").json()["explain_methods"] == list(METHODS)
    assert served.ask("GET", "/models").json()["models"][0]["explain"] == list(METHODS)
    schema = served.ask("GET", "/openapi.json").json()["paths"]["/explain"]["post"]["parameters"]
    [method] = [one["schema"] for one in schema if one["name"] == "method"]
    assert method["enum"] == list(METHODS)
    assert guarded.ask("POST", "/explain").status == 401
    assert guarded.ask("POST", "/explain", b"x", {"Authorization": f"Bearer {TOKEN}"}).status == 415


def test_engines_without_gradients_explain_nothing(classifier):
    assert usable_methods(classifier) == tuple(METHODS)
    assert usable_methods(Session.__new__(Session)) == ()


def test_a_server_without_explanations_says_501(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, "--no-explain")
    reply = server.ask("POST", "/explain", pictures[0].read_bytes())
    assert reply.status == 501
    assert "cannot be explained" in reply.json()["error"]
    assert server.ask("GET", "/models").json()["models"][0]["explain"] == []
    assert server.ask("POST", "/classify", pictures[0].read_bytes()).status == 200


def test_explanations_wait_in_the_queue_alone_and_not_many(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, max_batch=8, deadline_seconds=60.0)
    body, replies = pictures[0].read_bytes(), []

    def ask(path: str) -> None:
        replies.append((path, server.ask("POST", path, body)))

    worker = server.worker()
    subprocess.run(["kill", "-STOP", str(worker)], check=True)
    threads = []
    try:
        for number, path in enumerate(["/classify", "/classify", "/explain", "/classify", "/explain"]):
            threads.append(threading.Thread(target=ask, args=(path,)))
            threads[-1].start()
            # The first image is with the process; the others wait.
            name, count = (
                ("inception_queue_images", number) if number else ("inception_batch_images_count", 1)
            )
            end = time.monotonic() + 20
            while server.metric(name) < count:
                assert time.monotonic() < end
                time.sleep(0.02)
        refused = server.ask("POST", "/explain", body)
        assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
    finally:
        subprocess.run(["kill", "-CONT", str(worker)], check=True)
    for thread in threads:
        thread.join()
    assert {reply.status for _, reply in replies} == {200}
    assert {reply.json()["timing"]["batch"] for path, reply in replies if path == "/explain"} == {1}
    assert server.metric("inception_explanation_seconds_count") == 2
    assert server.ask("POST", "/explain", body).status == 200
