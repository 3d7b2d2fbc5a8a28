"""torchvision's and timm's own files: every name has its place, and the logits are theirs."""

import json

import pytest
import safetensors.torch
import torch
import torchvision
from peers import TOLERANCE, difference, images, liven, logits

from inception.errors import UsageError, WeightsError
from inception.nets.registry import build_network
from inception.weights.importer import import_weights
from inception.weights.sources.choose import SOURCES, find

CLASSES = 9


def torchvision_model(name, **options):
    options = {"init_weights": False} | options if name != "alexnet" else options
    return getattr(torchvision.models, name)(num_classes=CLASSES, **options)


@pytest.fixture(scope="module")
def inception_v3():
    return liven(torchvision_model("inception_v3", aux_logits=True))


@pytest.mark.parametrize("zip_form", [True, False], ids=["zip", "legacy"])
def test_torchvisions_inception_v3(inception_v3, tmp_path, zip_form):
    path = tmp_path / "v3.pth"
    torch.save(inception_v3.state_dict(), path, _use_new_zipfile_serialization=zip_form)
    bundle, report = import_weights(path, "inception_v3")
    assert report.complete
    assert report.unexpected == ()
    assert bundle.build().aux_taps
    assert bundle.provenance["tool"] == "torchvision"
    assert bundle.preprocess.mean == (0.5,) * 3
    x = images(171)
    assert difference(logits(bundle, x), inception_v3(x).detach()) < TOLERANCE


@pytest.mark.parametrize("name, network", [("alexnet", "alexnet_tv"), ("vgg11_bn", "vgg11_bn")])
def test_torchvisions_classics(tmp_path, name, network):
    theirs = liven(torchvision_model(name))
    torch.save(theirs.state_dict(), tmp_path / "classic.pth")
    bundle, report = import_weights(tmp_path / "classic.pth", network)
    assert report.unexpected == ()
    assert bundle.preprocess.crop_fraction == 0.875
    x = images(96)
    assert difference(logits(bundle, x), theirs(x).detach()) < TOLERANCE


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_timms_safetensors(tmp_path, name):
    timm = pytest.importorskip("timm")
    theirs = liven(timm.create_model(name, num_classes=CLASSES))
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    bundle, report = import_weights(path, name)
    assert report.unexpected == ()
    assert bundle.provenance["tool"] == "timm"
    assert bundle.preprocess.interpolation == "bicubic"
    x = images(139)
    assert difference(logits(bundle, x), theirs(x).detach()) < TOLERANCE


def test_timms_config_beside_the_weights_is_believed(inception_v3, tmp_path):
    state = {k: v for k, v in inception_v3.state_dict().items() if not k.startswith("Aux")}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    config = {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "input_size": [3, 320, 299],
    }
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    preprocess = import_weights(tmp_path / "model.safetensors", "inception_v3")[0].preprocess
    assert (preprocess.height, preprocess.width, preprocess.crop_fraction) == (320, 299, 0.9)
    assert preprocess.mean == (0.485, 0.456, 0.406)
    (tmp_path / "config.json").write_text('{"architectures": ["other"]}')
    assert import_weights(tmp_path / "model.safetensors", "inception_v3")[0].preprocess.mean == (0.5,) * 3


def peers():
    yield from (("googlenet_tv", "googlenet"), ("inception_v3", "inception_v3"), ("alexnet_tv", "alexnet"))
    yield from ((name, name) for name in SOURCES if name.startswith("vgg"))


@pytest.mark.parametrize("network, name", list(peers()))
def test_every_name_of_torchvision_has_its_place(network, name):
    with torch.device("meta"):
        theirs, ours = torchvision_model(name).state_dict(), build_network(network, num_classes=CLASSES)
    source = next(source for source in SOURCES[network] if source.tool == "torchvision")
    found = {key: find(source, source.layers, key, theirs) for key in ours.state_dict()}
    assert sorted(found.values()) == sorted(theirs)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert all(theirs[found[key]].shape == shape for key, shape in shapes.items())


def test_cadenes_background_is_dropped_unless_it_is_to_be_kept(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = liven(timm.create_model("inception_v4", num_classes=1001))
    torch.save(theirs.state_dict(), tmp_path / "v4.pth")
    bundle, _ = import_weights(tmp_path / "v4.pth", "inception_v4")
    assert len(bundle.labels) == 1000
    assert bundle.labels[0] == "tench"
    assert "output 0 of 1001 (background) dropped" in bundle.provenance["remarks"]
    weight = theirs.state_dict()["last_linear.weight"]
    assert torch.equal(bundle.state_dict["fc.weight"], weight[1:])
    kept, _ = import_weights(tmp_path / "v4.pth", "inception_v4", background="keep")
    assert kept.labels[:2] == ("(background)", "tench")
    assert torch.equal(kept.state_dict["fc.weight"], weight)


def test_nothing_to_drop_is_said(inception_v3, tmp_path):
    torch.save(inception_v3.state_dict(), tmp_path / "v3.pth")
    with pytest.raises(UsageError, match="9 outputs: only of 1001 or 1008"):
        import_weights(tmp_path / "v3.pth", "inception_v3", background="drop")
    with pytest.raises(UsageError, match="from 'torchvison': did you mean torchvision"):
        import_weights(tmp_path / "v3.pth", "inception_v3", tool="torchvison")


# Incomplete files


@pytest.fixture
def cut_file(inception_v3, tmp_path):
    """A V3 without what lies behind Mixed_6a."""
    kept = ("Conv2d", "Mixed_5", "Mixed_6a")
    state = {k: v for k, v in inception_v3.state_dict().items() if k.startswith(kept)}
    torch.save(state, tmp_path / "cut.pth")
    return tmp_path / "cut.pth"


def test_an_incomplete_file_is_refused_unless_it_is_meant(cut_file):
    with pytest.raises(
        WeightsError, match=r"does not fill inception_v3: \d+ missing \(fc\.weight, fc\.bias, Mixed_6b"
    ):
        import_weights(cut_file, "inception_v3")
    with pytest.raises(WeightsError, match=r"up to Mixed_6c: \d+ tensors are missing .*Mixed_6b"):
        import_weights(cut_file, "inception_v3", partial="mixed_6c")
    with pytest.raises(UsageError, match="no stage is called"):
        import_weights(cut_file, "inception_v3", partial="Mixed_9z")


@pytest.mark.parametrize("up_to", ["Mixed_6a", "mixed3", ""])
def test_an_incomplete_file_up_to_a_stage(inception_v3, cut_file, up_to):
    bundle, report = import_weights(cut_file, "inception_v3", partial=up_to)
    assert not report.complete
    partial = bundle.provenance["partial"]
    assert partial["up_to"] == (up_to or None)
    assert set(partial["fresh"]) == set(report.missing)
    assert all(name.startswith(("Mixed_6", "Mixed_7", "fc.")) for name in partial["fresh"])
    x = images(139)
    with torch.no_grad():
        ours = bundle.build()(x, return_endpoints=["Mixed_6a"])["Mixed_6a"]
        expected = inception_v3
        for stage in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1"):
            x = getattr(expected, stage)(x)
        for stage in ("Conv2d_4a_3x3", "maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a"):
            x = getattr(expected, stage)(x)
    assert difference(ours, x) < TOLERANCE
    again, _ = import_weights(cut_file, "inception_v3", partial=up_to)
    assert all(torch.equal(value, again.state_dict[name]) for name, value in bundle.state_dict.items())


def test_a_file_of_another_network_has_nothing_to_give(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no tensor of this network"):
        import_weights(tmp_path / "other.pth", "inception_v3", partial="")


def test_the_command_says_what_it_did(cut_file, tmp_path, capsys):
    from inception.cli.main import run

    arguments = ["import", str(cut_file), "--as", "inception_v3", "-o", str(tmp_path / "bundle"), "--json"]
    assert run(arguments) == 1
    capsys.readouterr()
    assert run([*arguments, "--partial", "Mixed_6a"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert content["missing"][0].startswith("Mixed_6b")
    assert any("fresh" in remark for remark in content["remarks"])
    assert "missing" in err
    assert run([*arguments[:-1], "--partial", "-o", str(tmp_path / "again")]) == 0


def test_a_compressed_archive_is_refused(inception_v3, tmp_path):
    import zipfile

    torch.save({"x": torch.zeros(4)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match="compressed archive"):
        import_weights(tmp_path / "small.pth", "inception_v3")
