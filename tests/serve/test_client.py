"""`inception client` against a running server, beside `inception predict` on its bundle."""

import base64
import json
import socket
import tarfile
import threading
import zipfile

import pytest
from servers import TOKEN, Serve, Served

from inception.cli.main import run
from inception.runtime.inputs import expand_inputs
from inception.serve.client import read_images


@pytest.fixture
def ask(capsys):
    """Run `inception`: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "This is a defect" not in captured.err
        return code, captured.out, captured.err

    return call


def test_prints_what_predict_prints(served: Served, ask, bundle_path, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.write(pictures[0], "inner.png")
    paths = [pictures[0].parent, bad, tmp_path / "pictures.zip", tmp_path / "nowhere.png"]
    code, out, _ = ask("client", served.url, *paths, "--json")
    expected_code, expected, _ = ask("predict", bundle_path, *paths, "--json", "--batch-size", 1)
    assert code == expected_code == 1
    lines, others = ([json.loads(line) for line in text.splitlines()] for text in (out, expected))
    assert [line["path"] for line in lines] == [line["path"] for line in others]
    assert [line.get("top") for line in lines] == [line.get("top") for line in others]
    assert [line for line in lines if "error" in line].__len__() == 2


def test_finds_what_predict_finds(pictures, tmp_path):
    """Folders with a stray tar, shards, archives, lists, and what cannot be read."""
    mixed, shards = tmp_path / "mixed", tmp_path / "shards"
    for folder in (mixed, shards):
        folder.mkdir()
        with tarfile.open(folder / "0.tar", "w") as tar:
            tar.add(pictures[0], "cat.0.png")
            tar.add(pictures[1], "cat.1.png")
    (mixed / "loose.png").write_bytes(pictures[2].read_bytes())
    paths = [str(path) for path in (mixed, shards, shards / "0.tar", tmp_path / "nowhere.png", "a" * 300)]
    found = list(read_images(["-", pictures[0].as_posix()], [f"{path}\n" for path in paths]))
    names = [f"{mixed}/loose.png", *[f"{shards}/0.tar/cat.{n}.png" for n in (0, 1)] * 2, *paths[-2:]]
    assert [name for name, _ in found] == [*names, str(pictures[0])]
    files = [pictures[number].read_bytes() for number in (2, 0, 1, 0, 1)]
    assert [content for _, content in found[:5]] == files
    assert all("cannot be read" in content for _, content in found[5:7])
    expected = expand_inputs(["-", pictures[0].as_posix()], [f"{path}\n" for path in paths])
    assert [name for name, _ in expected] == [name for name, _ in found]


def test_table_model_and_auxiliary(served: Served, ask, pictures):
    code, out, _ = ask("client", served.url, *pictures, "--model", "second", "--top", 2)
    assert code == 0
    assert all(picture.name in out for picture in pictures)
    code, out, _ = ask("client", served.url, pictures[0], "--json", "--auxiliary")
    assert [head["head"] for head in json.loads(out)["auxiliary"]] == ["aux1", "aux2"]
    assert ask("client", served.url, pictures[0], "--auxiliary")[0] == 2


def test_errors_are_one_sentence(served: Served, ask, pictures):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    for url, code in (
        (f"http://127.0.0.1:{free}", 1),
        ("ftp://127.0.0.1", 2),
        ("http://127.0.0.1:x", 2),
        ("http://", 2),
    ):
        found, out, err = ask("client", url, pictures[0])
        assert (found, out, len(err.splitlines())) == (code, "", 1), url
    code, _, err = ask("client", served.url, pictures[0], "--model", "nobody")
    assert (code, "404" in err) == (1, True)


def test_a_token_is_shown(guarded: Served, ask, pictures, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    assert ask("client", guarded.url, pictures[0])[0] == 1
    assert ask("client", guarded.url, pictures[0], "--token-file", tmp_path / "token")[0] == 0


def test_busy_servers_are_asked_again(ask, pictures):
    """A server that says 503 once, then answers."""
    answer = json.dumps(
        {"results": [{"path": None, "top": [{"label": "x", "index": 0, "probability": 1.0}]}]}
    )
    replies = [
        "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n{answer}",
    ]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_replies() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    received = b""
                    while b"IEND" not in received:
                        received += connection.recv(65536)
                    connection.sendall(reply.encode())

        thread = threading.Thread(target=serve_replies)
        thread.start()
        code, out, _ = ask("client", f"127.0.0.1:{listener.getsockname()[1]}", pictures[0], "--json")
        thread.join()
    assert code == 0
    assert json.loads(out)["top"][0]["label"] == "x"


def test_explanations_are_those_of_the_route(served: Served, ask, pictures, tmp_path):
    """Pictures byte for byte, numbers as given; one file for one image, a folder for several."""
    one, many = tmp_path / "new" / "why.png", tmp_path / "all"
    code, out, err = ask("client", served.url, pictures[0], "--json", "--explain", one)
    assert (code, err) == (0, "")
    found = json.loads(out)
    reply = served.ask("POST", "/explain?form=png", pictures[0].read_bytes())
    assert one.read_bytes() == reply.body
    assert found["explanation"]["target"]["index"] == found["top"][0]["index"]
    assert found["explanation"]["picture"] == str(one)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    label = served.ask("GET", "/v2/models/second").json()["labels"][2]
    options = ("--model", "second", "--method", "grad-cam++", "--target", label.upper(), "--json")
    code, out, _ = ask("client", served.url, bad, *pictures[:2], *options, "--explain", many)
    assert code == 1
    first, *others = map(json.loads, out.splitlines())
    assert "error" in first and "explanation" not in first
    for line, picture, name in zip(others, pictures[:2], ("0002", "0003"), strict=True):
        query = "/explain?model=second&method=grad-cam%2B%2B&target=2"
        expected = served.ask("POST", query, picture.read_bytes()).json()
        written = many / f"{name}-{picture.stem}.png"
        assert base64.b64decode(expected["pictures"]["overlay"]) == written.read_bytes()
        names = ("target", "method", "signed", "places", "modules", "kinds")
        assert line["explanation"] == {**{key: expected[key] for key in names}, "picture": str(written)}
    assert len(list(many.iterdir())) == 2
    code, out, _ = ask("client", served.url, pictures[0], "--explain", tmp_path / "f")
    assert (code, "why" in out) == (0, True)


def test_explanations_asked_wrongly(served: Served, serve: Serve, bundle_path, ask, pictures, tmp_path):
    one = tmp_path / "why.png"
    for options in (
        (*pictures, "--explain", one),
        (pictures[0], "--method", "occlusion"),
        (pictures[0], "--target", "0"),
        (pictures[0], "--explain", one, "--target", "no such class"),
        (pictures[0], "--explain", pictures[1] / "inside"),
    ):
        code, out, err = ask("client", served.url, *options)
        assert (code, out) == (2, ""), options
        assert err.count("\n") <= 4
    assert not one.exists()
    silent = serve(bundle_path, "--no-explain")
    code, _, err = ask("client", silent.url, pictures[0], "--explain", one)
    assert (code, "501" in err, one.exists()) == (1, True, False)
