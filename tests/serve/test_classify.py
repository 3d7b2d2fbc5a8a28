"""`/classify` gives what `inception predict` gives, to the last bit."""

import pytest
import torch
from servers import Served, multipart

from inception.runtime.loading import load


@pytest.fixture(scope="module")
def classifier(bundle_path):
    return load(bundle_path, "cpu")


def test_one_image_is_its_body(served: Served, classifier, pictures):
    for picture in pictures:
        reply = served.ask("POST", "/classify", picture.read_bytes(), {"Content-Type": "image/png"})
        [expected] = classifier.predict(picture)
        assert reply.status == 200
        [result] = reply.json()["results"]
        assert result == {"path": None, "top": expected.to_dict()["top"]}


def test_several_images_are_a_form(served: Served, classifier, pictures):
    files = [(picture.name, picture.read_bytes()) for picture in pictures]
    reply = served.ask("POST", "/classify?top=2", *multipart(files))
    expected = [prediction.to_dict() for prediction in classifier.predict(pictures, top=2)]
    assert reply.json()["results"] == [
        {**answer, "path": name} for answer, (name, _) in zip(expected, files, strict=True)
    ]
    assert reply.json()["timing"]["batch"] == 3


def test_unknown_is_as_predict_says(served: Served, classifier, pictures):
    reply = served.ask("POST", "/classify?unknown=1", pictures[0].read_bytes())
    [expected] = classifier.predict(pictures[0], unknown=True)
    assert reply.json()["results"][0]["top"] == expected.to_dict()["top"]
    assert reply.json()["results"][0]["top"][0]["label"] == "unknown"


def test_auxiliary_heads_answer_as_in_training_without_dropout(served: Served, classifier, pictures):
    reply = served.ask("POST", "/classify?auxiliary=1", pictures[0].read_bytes()).json()["results"][0]
    [expected] = classifier.predict(pictures[0])
    assert reply["top"] == expected.to_dict()["top"]
    model, preprocess = classifier.model, classifier.preprocess
    from PIL import Image

    batch = preprocess.apply(Image.open(pictures[0]).convert("RGB"))[None]
    model.training = True  # the network alone, none of its layers
    with torch.inference_mode():
        output = model(preprocess.normalize(batch))
    model.eval()
    assert [head["stage"] for head in reply["auxiliary"]] == ["inception4a", "inception4d"]
    for head, logits in zip(reply["auxiliary"], output.aux, strict=True):
        probabilities = torch.softmax(logits[0], 0)
        for score in head["top"]:
            assert score["probability"] == pytest.approx(float(probabilities[score["index"]]), abs=1e-6)


def test_a_bad_image_among_good_ones_has_its_own_error(served: Served, pictures):
    files = [("good.png", pictures[0].read_bytes()), ("bad.png", b"no image")]
    reply = served.ask("POST", "/classify", *multipart(files))
    assert reply.status == 200
    good, bad = reply.json()["results"]
    assert "top" in good
    assert bad.keys() == {"path", "error"}
    assert bad["path"] == "bad.png"


@pytest.mark.parametrize("damage, status", [("empty", 400), ("format", 415), ("cut", 422)])
def test_a_bad_image_alone_is_a_client_error(served: Served, pictures, damage, status):
    data = {"empty": b"", "format": b"no image", "cut": pictures[0].read_bytes()[:80]}[damage]
    reply = served.ask("POST", "/classify", data)
    assert reply.status == status
    assert reply.json()["error"]
    assert reply.json()["results"] == [{"path": None, "error": reply.json()["error"]}]
    form = served.ask("POST", "/classify", *multipart([("a", data), ("b", data)]))
    assert form.status == status


@pytest.mark.parametrize("query", ["top=0", "top=1001", "top=x", "auxiliary=2", "unknown=", "tpo=5", "top=²"])
def test_impossible_options(served: Served, pictures, query):
    from urllib.parse import quote

    reply = served.ask("POST", f"/classify?{quote(query, safe='=')}", pictures[0].read_bytes())
    assert reply.status == 400
    assert reply.json()["error"]


def test_other_models_and_versions(served: Served, pictures):
    body = pictures[0].read_bytes()
    first = served.ask("POST", "/classify", body).json()
    assert first["model"] == "shapes"
    other = served.ask("POST", f"/classify?model=second&version={first['version']}", body).json()
    assert (other["model"], other["results"]) == ("second", first["results"])
    assert served.ask("POST", "/classify?model=third", body).status == 404
    assert served.ask("POST", "/classify?version=0", body).status == 404


@pytest.mark.parametrize(
    "body, headers",
    [
        (b"", {"Content-Type": "multipart/form-data"}),
        (b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}),
        (b"nonsense", {"Content-Type": "multipart/form-data; boundary=edge"}),
        (b"--edge\r\nno header", {"Content-Type": "multipart/form-data; boundary=edge"}),
        (
            b'--edge\r\nContent-Disposition: form-data; name="top"\r\n\r\n5\r\n--edge--\r\n',
            {"Content-Type": "multipart/form-data; boundary=edge"},
        ),
        (
            multipart([("a", b"x")])[0].removesuffix(b"--edge--\r\n"),
            {"Content-Type": "multipart/form-data; boundary=edge"},
        ),
        (b"x", {"Content-Type": f"multipart/form-data; boundary={'e' * 1000}"}),
        (
            b"--edge\r\n" + b"X: y\r\n" * 50 + b"\r\n\r\n--edge--\r\n",
            {"Content-Type": "multipart/form-data; boundary=edge"},
        ),
        (
            b"--edge\r\nX: " + b"y" * 5000 + b"\r\n\r\n\r\n--edge--\r\n",
            {"Content-Type": "multipart/form-data; boundary=edge"},
        ),
    ],
)
def test_malformed_forms(served: Served, body, headers):
    reply = served.ask("POST", "/classify", body, headers)
    assert reply.status == 400
    assert reply.json()["error"]
