"""`inception embed`: files, neighbours, duplicates."""

import csv
import sys

import numpy as np
import pytest
from shapes import COLOURS, shape_picture

from inception.evaluate.embeddings import features
from inception.runtime.loading import load


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for label in COLOURS:
        for index in range(3):
            shape_picture(label, index).save(place / f"{label}{index}.png")
    return place


def test_npy_with_the_paths_of_its_rows(inception, tiny_path, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"")
    outcome = inception("embed", tiny_path, folder, "-o", tmp_path / "f.npy", "--endpoint", "Mixed_4b")
    assert outcome.code == 1
    assert "left out" in outcome.err
    assert "9 images" in outcome.err
    vectors = np.load(tmp_path / "f.npy")
    with (tmp_path / "f.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in rows] == list(range(9))
    assert vectors.dtype == np.float32
    classifier = load(tiny_path, "cpu")
    for row in (0, 5):
        from PIL import Image

        picture = classifier.preprocess.apply(Image.open(rows[row]["path"]).convert("RGB"))[None]
        assert np.allclose(vectors[row], features(classifier, picture, "inception4a")[0], atol=1e-4)


def test_parquet_is_the_same(inception, tiny_path, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="writes with pyarrow")
    assert inception("embed", tiny_path, folder, "-o", tmp_path / "f.parquet").code == 0
    assert inception("embed", tiny_path, folder, "-o", tmp_path / "f.npy").code == 0
    again = inception("embed", tiny_path, folder, "-o", tmp_path / "g.parquet", "--neighbors", "1", "--json")
    assert len(again.lines()) == 9
    vectors = np.load(tmp_path / "f.npy")
    for name in ("f.parquet", "g.parquet"):
        table = parquet.read_table(tmp_path / name)
        assert table.column_names == ["path", "embedding"]
        assert np.allclose(np.array(table["embedding"].to_pylist()), vectors, atol=1e-5)
        assert table.schema.metadata[b"endpoint"] == b"features"


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
def test_names_that_are_no_text_are_escaped(inception, tiny_path, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="writes with pyarrow")
    shape_picture("jade", 1).save(tmp_path / "\udcff.png", "PNG")
    outcome = inception("embed", tiny_path, tmp_path / "\udcff.png", "-o", tmp_path / "f.parquet")
    assert outcome.code == 0
    [path] = parquet.read_table(tmp_path / "f.parquet")["path"].to_pylist()
    assert path == f"{tmp_path}/\\udcff.png"


def test_neighbours_and_queries(inception, trained, folder):
    rows = inception("embed", trained.bundle, folder, "--neighbors", "2", "--json").lines()
    assert len(rows) == 9
    for row in rows:
        assert row["path"] not in [near["path"] for near in row["neighbors"]]
        similarities = [near["similarity"] for near in row["neighbors"]]
        assert similarities == sorted(similarities, reverse=True)
    asked = inception(
        "embed", trained.bundle, folder, "--neighbors", "1", "--query", folder / "jade1.png", "--json"
    ).lines()
    assert [row["path"] for row in asked] == [str(folder / "jade1.png")]
    assert asked[0]["neighbors"][0]["path"].endswith("jade1.png")
    assert asked[0]["neighbors"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert "nearest" in inception("embed", trained.bundle, folder, "--neighbors", "1").out


def test_duplicates(inception, tiny_path, folder):
    (folder / "copy.png").write_bytes((folder / "amber0.png").read_bytes())
    [group] = inception("embed", tiny_path, folder, "--duplicates", "1", "--json").lines()
    assert sorted(path.rsplit("/", 1)[1] for path in group["duplicates"]) == ["amber0.png", "copy.png"]
    assert "copy.png" in inception("embed", tiny_path, folder, "--duplicates", "1").out
    (folder / "copy.png").unlink()
    none = inception("embed", tiny_path, folder, "--duplicates", "1")
    assert (none.code, none.out) == (0, "")
    assert "no images are alike enough" in none.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "-o FILE.npy"),
        (["-o", "x.txt"], ".npy or .parquet"),
        (["--query", "y.png", "-o", "x.npy"], "add --neighbors"),
        (["--endpoint", "inception4z", "-o", "x.npy"], "did you mean"),
        (["--neighbors", "50"], "there are 8 images to be near to"),
        (["--pool", "middle", "-o", "x.npy"], "middle"),
    ],
)
def test_wrong_requests(inception, tiny_path, folder, options, message):
    outcome = inception("embed", tiny_path, folder, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_without_pyarrow_the_extra_is_named(inception, tiny_path, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    outcome = inception("embed", tiny_path, folder, "-o", tmp_path / "f.parquet")
    assert (outcome.code, outcome.out) == (2, "")
    assert "pip install 'inception[embed]'" in outcome.err


def test_nothing_readable_and_nowhere_to_write(inception, tiny_path, folder, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in inception("embed", tiny_path, folder, "-o", tmp_path / "file/x.npy").err
    outcome = inception("embed", tiny_path, tmp_path / "file", "--neighbors", "1")
    assert outcome.code == 2
    assert "none of the images can be read" in outcome.err
