"""Images in JSON: every spelling gives the bytes, and what is none is refused in one sentence."""

import base64
import json
import os

import pytest

from inception.serve.bodies import uploads
from inception.serve.inference import parse_request
from inception.serve.json_images import MAX_UNICODE_BYTES, TAKEN
from inception.serve.settings import RequestError, Settings

DATA = bytes(range(256)) * 3
TEXT = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


def read(document: object, kind: str = "application/json", most: int = 4) -> list[tuple[str | None, bytes]]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return [(image.name, image.data) for image in uploads(kind, body, most)]


def refusal(document: object, **options: object) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        read(document, **options)  # type: ignore[arg-type]
    assert "Traceback" not in str(caught.value)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        {"image": TEXT},
        {"Image": TEXT},
        {"b64": TEXT},
        {"image_base64": TEXT},
        {"imageData": TEXT},
        {"inputs": TEXT},
        {"image": f"data:image/png;base64,{TEXT}"},
        {"image": f"data:image/jpeg;charset=utf-8;base64,{TEXT}"},
        {"image": f"data:;base64,{TEXT}"},
        {"image_url": {"url": f"DATA:image/png;base64,{TEXT}"}},
        {"image": {"b64": TEXT}},
        {"images": [TEXT]},
        {"images": TEXT},
        {"instances": [{"b64": TEXT}]},
        {"instances": [{"image_bytes": {"b64": TEXT}}]},
        {"instances": [{"content": TEXT}]},
        [TEXT],
        TEXT,
        {"image": base64.encodebytes(DATA).decode()},
        {"image": URL_SAFE},
    ],
)
def test_every_spelling_gives_the_bytes(document):
    assert read(document) == [(None, DATA)]


@pytest.mark.parametrize(
    "kind", ["", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain"]
)
def test_json_is_known_by_how_it_begins(kind):
    assert read(b' \n{"image": "' + TEXT.encode() + b'"}', kind=kind) == [(None, DATA)]
    assert read(b'\xef\xbb\xbf{"image": "' + TEXT.encode() + b'"}', kind=kind) == [(None, DATA)]


def test_names_and_order_are_kept():
    images = [{"name": "b.png", "image": TEXT}, {"filename": "a.png", "b64": TEXT}, TEXT]
    assert [name for name, _ in read({"images": images})] == ["b.png", "a.png", None]


def test_an_image_stays_an_image_whatever_its_announced_type():
    assert read(b"\x89PNG\r\n\x1a\n...", kind="application/json") == [(None, b"\x89PNG\r\n\x1a\n...")]


@pytest.mark.parametrize(
    "document, status, words",
    [
        ({"image": TEXT[:-1]}, 400, "not valid base64"),
        ({"image": "photo.jpg"}, 400, "not valid base64"),
        ({"image": "é"}, 400, "not valid base64"),
        ({"image": "data:image/svg+xml,%3Csvg/%3E"}, 400, "the data URL holds no base64"),
        ({"image": "https://example.org/a.jpg"}, 400, "URLs are not fetched"),
        ({"url": "https://example.org/a.jpg"}, 400, "URLs are not fetched"),
        ({"image": None}, 400, TAKEN),
        ({"image": 5}, 400, TAKEN),
        ({"image": [1, 2]}, 400, TAKEN),
        ({"picture": TEXT}, 400, TAKEN),
        ({"requests": [{"image": {"content": TEXT}}]}, 400, TAKEN),
        ({}, 400, TAKEN),
        ({"image": TEXT, "b64": TEXT}, 400, "more than one may hold the image"),
        ({"image": TEXT, "top_k": 3}, 400, "'top_k' beside the image; options belong in the URL's query"),
        ({"images": [TEXT], "top": 3}, 400, "'top' beside the image"),
        ({"images": []}, 400, "the request holds no image"),
        ({"images": [TEXT] * 5}, 413, "the request has more than 4 images"),
        ({"image": {"b64": {"b64": {"b64": {"b64": TEXT}}}}}, 400, TAKEN),
        ({"instances": [[[0] * 50] * 50]}, 400, "2,552 values, more than its images can have"),
        ({"inputs": [{"name": "images", "datatype": "UINT8", "data": []}]}, 400, "/infer"),
        (b'{"image": "', 400, TAKEN),
        (b"image=" + TEXT.encode(), 400, TAKEN),
        (b"{" + b"[" * 10_000, 400, "values"),
    ],
)
def test_what_is_refused(document, status, words):
    found, text = refusal(document)
    assert found == status
    assert words in text
    assert "\n" not in text
    assert len(text) < 250


def test_long_json_beyond_ascii_is_refused_before_it_is_parsed():
    body = '{"image": "' + "A" * MAX_UNICODE_BYTES + '", "name": "ü"}'
    assert refusal(body.encode())[0] == 413


def test_inference_requests_read_base64_in_the_same_ways():
    source = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.encodebytes(DATA).decode()],
    }
    body = json.dumps({"inputs": [source]}).encode()
    assert parse_request(body, None, (3, 8, 8), Settings()).images == (DATA,)


def test_a_server_takes_json(served, pictures):
    data = pictures[0].read_bytes()
    body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
    plain = served.ask("POST", "/classify?top=2", data)
    for headers in ({"Content-Type": "application/json"}, {}):
        reply = served.ask("POST", "/classify?top=2", body, headers)
        assert reply.status == 200
        assert reply.json()["results"] == plain.json()["results"]


def test_a_server_explains_json(served, pictures):
    body = json.dumps({"image": base64.b64encode(pictures[0].read_bytes()).decode()}).encode()
    assert served.ask("POST", "/explain?form=png", body).body.startswith(b"\x89PNG")


def test_who_sends_no_image_is_told_how_images_are_sent(served, pictures):
    text = base64.b64encode(pictures[0].read_bytes())
    reply = served.ask("POST", "/classify", text, {"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status == 415
    assert TAKEN in reply.json()["error"]
    wrong = served.ask("POST", "/classify", json.dumps({"image": "photo.jpg"}).encode())
    assert (wrong.status, "not valid base64" in wrong.json()["error"]) == (400, True)


def test_the_limit_of_bodies_holds_for_json(served):
    limit = served.ask("GET", "/models").json()["limits"]["max_body_bytes"]
    body = json.dumps({"image": base64.b64encode(os.urandom(limit * 3 // 4)).decode()}).encode()
    assert len(body) > limit
    assert served.ask("POST", "/classify", body).status == 413
