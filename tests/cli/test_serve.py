"""`inception serve`: what it refuses before it starts."""

import importlib.util

import pytest

from inception.cli import serve as module


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("starlette", reason="serving needs the extra 'serve'")
    pytest.importorskip("uvicorn", reason="serving needs the extra 'serve'")


def test_a_missing_extra_is_named(inception, tiny_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    outcome = inception("serve", tiny_path)
    assert outcome.code == 2
    assert "uvicorn" in outcome.err
    assert "pip install 'inception[serve]'" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--max-images", "100", "--max-queue", "10"],
        ["--deadline", "0"],
        ["--log-level", "loud"],
        ["--host", "no.such.host.invalid"],
        ["--token-file", "nowhere"],
    ],
)
def test_impossible_options(inception, tiny_path, arguments):
    outcome = inception("serve", tiny_path, "--port", "0", *arguments)
    assert (outcome.code, outcome.out) == (2, "")


@pytest.mark.parametrize("bundles", [["a=x", "a=y"], ["a/b", "c/d/b"], ["=x"], ["a b=x"], ["名=x"], []])
def test_names_that_cannot_be(inception, bundles):
    assert inception("serve", *bundles, "--port", "0").code == 2


@pytest.mark.parametrize("token", ["", "short", "not of ASCII: éééééééééé", "two\nlines of many characters"])
def test_tokens_that_protect_nothing(inception, tiny_path, tmp_path, token):
    (tmp_path / "token").write_text(token)
    outcome = inception("serve", tiny_path, "--port", "0", "--token-file", tmp_path / "token")
    assert outcome.code == 2
    assert "token" in outcome.err


def test_names_come_from_folders():
    from inception.serve.models import Source

    assert Source.parse("runs/roses/bundle").name == "roses"
    assert Source.parse("roses.zip").name == "roses"
    assert Source.parse("red=runs/roses/bundle").name == "red"
    assert Source.parse("red=runs/roses/bundle").path.name == "bundle"
