"""`inception explain` and `inception trace` as users run them."""

import pytest
from PIL import Image
from shapes import shape_picture

from inception.data.preprocess import Preprocess
from inception.explain.attribution import METHODS
from inception.nets.registry import build_network
from inception.weights.bundle import Bundle, save_bundle


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "amber.png"
    shape_picture("amber", 1).save(path)
    return path


def test_a_sheet_and_one_json_line_for_each_image_and_method(inception, tiny_path, picture, tmp_path):
    output = tmp_path / "sheet.png"
    outcome = inception(
        "explain", tiny_path, picture, "-o", output, "--json", "--device", "cpu",
        "--method", "grad-cam", "--method", "occlusion", "--curves", "--sanity", "--target", "jade",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    records = outcome.lines()
    assert [record["method"] for record in records] == ["grad-cam", "occlusion"]
    assert records[0]["path"] == str(picture)
    assert records[0]["target"]["label"] == "jade"
    assert {"deletion", "insertion", "random_deletion"} <= records[0]["trust"].keys()
    assert records[0]["randomised"][0]["down_to"] == "classifier"
    with Image.open(output) as sheet:
        assert sheet.width > 3 * 96


def test_the_whole_sheet_as_a_page(inception, tiny_path, picture, tmp_path):
    output = tmp_path / "sheet.html"
    outcome = inception("explain", tiny_path, picture, "-o", output, "--sheet", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "random map" in outcome.out and "Likeness of the map" in outcome.out
    text = output.read_text("utf-8")
    for method in METHODS:
        assert f"<b>{method}</b>" in text
    assert "random map" in text
    assert inception("explain", tiny_path, picture, "-o", tmp_path / "x.jpg").code == 2


def test_a_bad_image_does_not_stop_the_rest(inception, tiny_path, picture, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    outcome = inception("explain", tiny_path, bad, picture, "-o", tmp_path / "x.png", "--against", "violet")
    assert outcome.code == 1
    assert "left out" in outcome.err
    assert (tmp_path / "x.png").exists()
    assert inception("explain", tiny_path, bad, "-o", tmp_path / "y.png").code == 1
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "mauve"], "no class of the 3 is called 'mauve'"),
        (["--target", "jade", "--against", "jade"], "another class"),
        (["--head", "aux1"], "no auxiliary heads"),
        (["--layer", "mixed9z"], "no layer is called"),
        (["--method", "guess"], "guess"),
    ],
)
def test_wrong_requests(inception, tiny_path, picture, tmp_path, arguments, message):
    outcome = inception("explain", tiny_path, picture, "-o", tmp_path / "x.png", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_trace_prints_a_table_json_and_pictures(inception, tiny_path, picture, tmp_path):
    bars, maps = tmp_path / "bars.png", tmp_path / "maps.png"
    outcome = inception("trace", tiny_path, picture, "--json", "-o", bars, "--maps", maps)
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["modules"][0]["module"] == "inception3a"
    assert found["by_kind"].keys() == {"1x1", "3x3", "5x5", "pool"}
    assert bars.exists() and maps.exists()
    table = inception("trace", tiny_path, picture)
    assert "b3x3_reduce > b3x3" in table.out
    assert inception("trace", tiny_path, picture, "-o", tmp_path / "x.jpg").code == 2
    assert inception("trace", tiny_path, tmp_path / "gone.png").code == 1


def test_a_network_without_branches_says_so(inception, picture, tmp_path):
    network = build_network("lenet5", num_classes=2)
    path = tmp_path / "lenet"
    save_bundle(
        Bundle("lenet5", network.arguments, ("a", "b"), Preprocess(32, 32), network.state_dict()), path
    )
    outcome = inception("trace", path, picture)
    assert outcome.code == 0
    assert "has no branches" in outcome.err
    assert inception("trace", path, picture, "-o", tmp_path / "x.png").code == 2
