"""Readers of bytes from strangers, fed with damaged ones: they read them or refuse them in one sentence.

What once got through stands in `SEEDS`, and is tried first.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inception.data.sources import open_dataset
from inception.errors import InceptionError
from inception.serve.bodies import uploads
from inception.serve.settings import RequestError
from inception.weights.bundle import load_bundle
from inception.weights.importer import import_weights

EXAMPLES = settings(max_examples=150, deadline=None)
LONGEST_SENTENCE = 1500

SEEDS: dict[str, list[bytes]] = {
    "manifest": [b"[]", b"{}", b'{"schema": 1e999}', b'{"schema": NaN}', b"\xff\xfe", b"[" * 5000],
    "table": [b"sep=;", b"sep=\n\n", b"path,label\n\x00", b"path,labels\na,{", b"\xff\xfea", b"path\n" * 3],
    "multipart": [b"--x", b"--x\r\n\r\n--x--", b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--\r\n"],
}


def damaged(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Bytes with some runs at relative places replaced by others."""
    for place, length, new in edits:
        start = int(place * len(content))
        content = content[:start] + new + content[start + length :]
    return content


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.one_of(
            st.binary(max_size=8), st.sampled_from([b"1e999", b"-1", b"null", b'"', b"{", b"\0", b","])
        ),
    ),
    min_size=1,
    max_size=4,
)


def only_refusals(read: Callable[[], object], *allowed: type[Exception]) -> None:
    try:
        read()
    except (InceptionError, *allowed) as error:
        assert len(str(error)) < LONGEST_SENTENCE
        assert "\n" not in str(error).strip()


@pytest.fixture(scope="module")
def bundle(tiny_path, tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("fuzz") / "bundle"
    shutil.copytree(tiny_path, copy)
    return copy


@EXAMPLES
@given(edits=EDITS)
@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors"])
def test_bundles(bundle, name, edits):
    path = bundle / name
    content = path.read_bytes()
    head = content[:4096] if name.startswith("model") else content
    try:
        path.write_bytes(damaged(head, edits) + content[len(head) :])
        only_refusals(lambda: load_bundle(bundle))
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("content", SEEDS["manifest"], ids=repr)
def test_manifests_that_were_found(bundle, content):
    path = bundle / "bundle.json"
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        with pytest.raises(InceptionError):
            load_bundle(bundle)
    finally:
        path.write_bytes(whole)


@EXAMPLES
@given(edits=EDITS)
def test_foreign_weights(bundle, edits):
    content = (bundle / "model.safetensors").read_bytes()
    path = bundle.parent / "weights.safetensors"
    path.write_bytes(damaged(content[:4096], edits) + content[4096:])
    only_refusals(lambda: import_weights(path, "inception_small"))


TABLES = [
    b"path,label,split\na.png,cat,train\nb.png,dog,val\nc.png,cat,test\n",
    b"image,labels\na.png,\"['cat', 'dog']\"\nb.png,dog\n",
    b"path,cat,dog\na.png,1,0\nb.png,0,-1\n",
    b'{"file_name": "a.png", "label": "cat"}\n{"file_name": "b.png", "label": "dog"}\n',
    b"a.png 0\nb.png 1\n",
]


@EXAMPLES
@given(
    table=st.sampled_from(TABLES),
    edits=EDITS,
    ending=st.sampled_from(["csv", "tsv", "txt", "jsonl", "parquet"]),
)
def test_tables(tmp_path_factory, table, edits, ending):
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    for letter in "abc":
        (folder / f"{letter}.png").touch()
    path = folder / f"t.{ending}"
    path.write_bytes(damaged(table, edits))
    only_refusals(lambda: open_dataset(path))


@pytest.mark.parametrize("content", SEEDS["table"], ids=repr)
@pytest.mark.parametrize("ending", ["csv", "txt", "jsonl"])
def test_tables_that_were_found(tmp_path, content, ending):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(content)
    with pytest.raises(InceptionError):
        open_dataset(path)


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
    b"\x89PNG...\r\n--x--\r\n"
)


@EXAMPLES
@given(
    edits=EDITS,
    kind=st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data", "application/json"]),
)
@example(edits=[(0.0, 4, b"")], kind="multipart/form-data; boundary=x")
def test_bodies(edits, kind):
    body = FORM if kind != "application/json" else b'{"images": [{"b64": "AAAA"}, {"b64": "BBBB"}]}'
    only_refusals(lambda: uploads(kind, damaged(body, edits), 4), RequestError)


@pytest.mark.parametrize("body", SEEDS["multipart"], ids=repr)
def test_bodies_that_were_found(body):
    only_refusals(lambda: uploads("multipart/form-data; boundary=x", body, 4), RequestError)
