"""The preprocessing of imported weights: assumed and said, or as a person says it."""

import json

import pytest
import torch

from inception.cli.main import run
from inception.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from inception.errors import InceptionError, UsageError
from inception.nets.registry import build_network
from inception.weights.bundle import load_bundle
from inception.weights.importer import import_weights
from inception.weights.preprocessing import CAFFE, PreprocessChanges, as_grey, in_words

TORCHVISION = Preprocess(resize="shortest", crop_fraction=0.875, mean=(0.5,) * 3, std=(0.5,) * 3)


def changed(usual=TORCHVISION, **said):
    return PreprocessChanges(**said).apply(usual)


@pytest.mark.parametrize(
    "said, mean, std, value_range, color",
    [
        ({"named": "imagenet"}, IMAGENET_MEAN, IMAGENET_STD, 1.0, "RGB"),
        ({"named": "inception"}, (0.5,) * 3, (0.5,) * 3, 1.0, "RGB"),
        ({"named": "caffe"}, (104.0, 117.0, 123.0), (1.0,) * 3, 255.0, "BGR"),
        ({"named": "none"}, (0.0,) * 3, (1.0,) * 3, 1.0, "RGB"),
        ({"mean": "0.1,0.2,0.3"}, (0.1, 0.2, 0.3), (0.5,) * 3, 1.0, "RGB"),
        ({"mean": "[0.1 0.2 0.3]", "std": "0.25"}, (0.1, 0.2, 0.3), (0.25,) * 3, 1.0, "RGB"),
        (
            {"mean": "123.675,116.28,103.53", "std": "58.395,57.12,57.375"},
            (123.675, 116.28, 103.53),
            None,
            255.0,
            "RGB",
        ),
        ({"mean": "0", "std": "255"}, (0.0,) * 3, (255.0,) * 3, 255.0, "RGB"),
        ({"named": "imagenet", "std": "1"}, IMAGENET_MEAN, (1.0,) * 3, 1.0, "RGB"),
    ],
)
def test_what_is_said_is_taken(said, mean, std, value_range, color):
    result = changed(**said)
    assert (result.mean, result.value_range, result.color) == (mean, value_range, color)
    assert std is None or result.std == std
    assert (result.height, result.resize, result.crop_fraction) == (224, "shortest", 0.875)


@pytest.mark.parametrize("size, sides", [("299", (299, 299)), ("224x320", (224, 320)), ("96, 64", (96, 64))])
def test_sizes(size, sides):
    result = changed(size=size)
    assert (result.height, result.width) == sides
    assert result.mean == TORCHVISION.mean


@pytest.mark.parametrize(
    "said, text",
    [
        ({"mean": "a,b"}, "takes numbers such as"),
        ({"mean": "1,2"}, "takes 1 or 3 numbers"),
        ({"mean": "123,117,104"}, "give --std too"),
        ({"std": "0"}, "std must be positive"),
        ({"mean": "nan"}, "must be finite"),
        ({"size": "big"}, "--size takes pixels"),
        ({"size": "0"}, "height and width"),
        (
            {"named": "imagnet"},
            r"imagenet, inception, caffe, none, not 'imagnet' \(did you mean imagenet\?\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(said, text):
    with pytest.raises(UsageError, match=text):
        changed(**said)


@pytest.mark.parametrize(
    "name, content",
    [
        ("p.json", json.dumps({"mean": [0.1] * 3, "std": [0.2] * 3, "height": 96, "width": 64})),
        (
            "p.json",
            json.dumps(
                {"preprocess": {**TORCHVISION.to_dict(), "mean": [0.1] * 3, "height": 96, "width": 64}}
            ),
        ),
        ("p.toml", "mean = [0.1, 0.1, 0.1]\nheight = 96\nwidth = 64\n"),
        ("p.toml", "mean = 0.1\nheight = 96\nwidth = 64\n"),
        ("p.toml", "[preprocess]\nmean = [0.1, 0.1, 0.1]\nheight = 96\nwidth = 64\n"),
    ],
)
def test_a_file_with_fields(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    result = changed(named=str(tmp_path / name))
    assert (result.mean, result.height, result.width, result.resize) == ((0.1,) * 3, 96, 64, "shortest")


@pytest.mark.parametrize(
    "name, content, text",
    [
        ("p.json", "{", "cannot be read as JSON or TOML"),
        ("p.json", "[1]", "has no fields: the fields of preprocessing are height"),
        ("p.json", '{"image_mean": [1]}', r"has unknown fields \(image_mean\)"),
        ("p.toml", 'mean = "x"', "values this version cannot use"),
        ("p.json", '{"mean": [0.1]}', "need 3 values"),
    ],
)
def test_files_that_say_something_else(tmp_path, name, content, text):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=text):
        changed(named=str(tmp_path / name))


def test_grey_is_the_average_of_the_channels():
    assert as_grey(CAFFE).mean == pytest.approx((344 / 3,))
    assert changed(as_grey(TORCHVISION), named="imagenet").mean == pytest.approx((0.449,), abs=1e-3)
    assert changed(as_grey(TORCHVISION), mean="0.13", std="0.31").std == (0.31,)
    assert in_words(as_grey(TORCHVISION)) == "224 x 224 L, mean 0.5, std 0.5"
    assert in_words(CAFFE) == "224 x 224 BGR, mean 104 117 123, std 1 of bytes"


# The import


@pytest.fixture
def torchvisions_file(tmp_path):
    """A torchvision googlenet trained with weights=None and ImageNet's mean and deviation."""
    torch.save(build_network("googlenet_tv", num_classes=3).state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_the_default_is_said_and_how_to_change_it(torchvisions_file):
    bundle, _ = import_weights(torchvisions_file, "googlenet_tv")
    remarks = " ".join(bundle.provenance["remarks"])
    assert (
        "does not say its preprocessing: torchvision's is assumed (224 x 224 RGB, mean 0.5, std 0.5)"
        in remarks
    )
    assert "weights=None does not: --preprocess imagenet" in remarks


@pytest.mark.parametrize(
    "options",
    [
        ["--preprocess", "imagenet"],
        ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"],
    ],
)
def test_the_command_takes_it(torchvisions_file, tmp_path, capsys, options):
    out = tmp_path / "bundle"
    arguments = [
        "import",
        str(torchvisions_file),
        "--as",
        "googlenet_tv",
        "-o",
        str(out),
        "--size",
        "160",
        "--json",
    ]
    assert run([*arguments, *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["remarks"] == [
        "preprocessing as given: 160 x 160 RGB, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    ]
    preprocess = load_bundle(out).preprocess
    assert preprocess.to_dict() == said["preprocess"]
    assert (preprocess.mean, preprocess.height) == (IMAGENET_MEAN, 160)


def test_a_size_alone_leaves_the_rest_assumed(torchvisions_file):
    bundle, _ = import_weights(torchvisions_file, "googlenet_tv", preprocess=PreprocessChanges(size="160"))
    assert "is assumed (160 x 160 RGB" in " ".join(bundle.provenance["remarks"])


@pytest.mark.parametrize("said", [{"size": "8"}, {"named": "grey.json"}])
def test_what_does_not_fit_the_network_is_refused(torchvisions_file, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.json").write_text('{"color": "L", "mean": [0.5], "std": [0.5]}')
    with pytest.raises(InceptionError, match="preprocessing does not fit its network"):
        import_weights(torchvisions_file, "googlenet_tv", preprocess=PreprocessChanges(**said))


def test_a_bundles_own_description_beside_its_weights_is_believed(torchvisions_file):
    preprocess = Preprocess(height=96, width=96, mean=(0.1,) * 3)
    content = {"preprocess": preprocess.to_dict()}
    torchvisions_file.with_name("bundle.json").write_text(json.dumps(content))
    bundle, _ = import_weights(torchvisions_file, "googlenet_tv")
    assert bundle.preprocess == preprocess
    assert "remarks" not in bundle.provenance
