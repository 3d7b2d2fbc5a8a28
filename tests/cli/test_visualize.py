"""`inception visualize` and `inception dream` as users run them."""

import pytest
from PIL import Image
from shapes import shape_picture

QUICK = ("--steps", 2, "--device", "cpu", "--precision", "float32")


def test_pictures_side_by_side(inception, tiny_path, tmp_path):
    output = tmp_path / "channels.png"
    outcome = inception("visualize", tiny_path, "mixed4a:3", "logits:jade", "-o", output, *QUICK, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json()["targets"] == ["mixed4a:3", "logits:1"]
    with Image.open(output) as sheet:
        assert sheet.width > 256  # small pictures are enlarged by a whole factor


def test_the_same_seed_writes_the_same_file(inception, tiny_path, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        inception("visualize", tiny_path, "mixed4a:3", "-o", tmp_path / f"{name}.png", *QUICK, "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_diversity_and_interpolation(inception, tiny_path, tmp_path):
    outcome = inception(
        "visualize", tiny_path, "mixed4a:3", "--diversity", 3, "-o", tmp_path / "d.png", *QUICK, "--json"
    )
    assert len(outcome.json()["targets"]) == 3
    outcome = inception(
        "visualize",
        tiny_path,
        "mixed4a:3",
        "--to",
        "mixed4a:5",
        "--count",
        4,
        "-o",
        tmp_path / "i.png",
        *QUICK,
    )
    assert outcome.code == 0, outcome.err


def test_a_gallery_with_examples(inception, tiny_path, shapes, tmp_path):
    page = tmp_path / "gallery.html"
    arguments = ("visualize", tiny_path, "mixed3a:0-2", "-o", page, *QUICK, "--examples", shapes / "test")
    assert inception(*arguments).code == 0
    assert len(list((tmp_path / "gallery-pictures").rglob("*.png"))) == 3
    text = page.read_text("utf-8")
    assert text.count('class="example"') == 12
    assert inception(*arguments).code == 0
    assert page.read_text("utf-8") == text


@pytest.mark.parametrize(
    "arguments",
    [
        ("mixed4a:3", "-o", "x.jpg"),
        ("mixed4a:999", "-o", "x.png"),
        ("mixed9:1", "-o", "x.png"),
        ("logits:mauve", "-o", "x.png"),
        ("mixed4a", "-o", "x.html", "--diversity", "2"),
        ("mixed4a:3", "-o", "x.png", "--examples", "x"),
        ("mixed4a:3", "mixed4a:4", "-o", "x.png", "--to", "mixed4a:5"),
        ("mixed4a:3", "-o", "x.png", "--size", "8"),
    ],
)
def test_wrong_requests(inception, tiny_path, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    outcome = inception("visualize", tiny_path, *arguments, "--steps", 1)
    assert outcome.code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "amber.png"
    shape_picture("amber", 1).resize((48, 40)).save(path)
    return path


def test_dreams(inception, tiny_path, picture, tmp_path):
    settings = ("--octaves", 1, *QUICK)
    outcome = inception("dream", picture, "-b", tiny_path, "-o", tmp_path / "dream.png", *settings)
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "dream.png") as dreamt, Image.open(picture) as original:
        assert dreamt.size == original.size
        assert dreamt.tobytes() != original.tobytes()
    mixed = ("--target", "mixed3b", "--target", "mixed4a:3")
    assert inception("dream", picture, "-b", tiny_path, "-o", tmp_path / "m.jpg", *settings, *mixed).code == 0
    guided = ("--guide", picture, "--target", "mixed3b")
    assert (
        inception("dream", picture, "-b", tiny_path, "-o", tmp_path / "g.png", *settings, *guided).code == 0
    )
    moving = ("--frames", 3, "--max-side", 40)
    assert (
        inception("dream", picture, "-b", tiny_path, "-o", tmp_path / "z.gif", *settings, *moving).code == 0
    )
    with Image.open(tmp_path / "z.gif") as gif:
        assert (gif.n_frames, max(gif.size)) == (3, 40)


def test_wrong_dreams(inception, tiny_path, picture, tmp_path):
    assert inception("dream", picture, "-b", tiny_path, "-o", tmp_path / "x.bmp").code == 2
    assert inception("dream", tmp_path / "gone.png", "-b", tiny_path, "-o", tmp_path / "x.png").code == 1
    guided = ("--guide", picture, "--target", "mixed3b:1")
    assert inception("dream", picture, "-b", tiny_path, "-o", tmp_path / "x.png", *guided).code == 2
