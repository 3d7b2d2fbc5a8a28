"""Foreign weights: Google's, torchvision's, and files that are something else."""

import pickle
import re
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torchvision.models import GoogLeNet, GoogLeNet_Weights

from inception.errors import UsageError, WeightsError
from inception.evaluate.measure import evaluate_bundle
from inception.nets.registry import build_network
from inception.runtime.classifier import Classifier
from inception.weights.bundle import load_bundle, save_bundle
from inception.weights.importer import describe, import_weights


@pytest.fixture(scope="module")
def torchvision_model() -> GoogLeNet:
    torch.manual_seed(11)
    model = GoogLeNet(num_classes=7, aux_logits=True, init_weights=False).eval()
    for module in model.modules():  # statistics as if it had been trained
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.fixture
def torchvision_file(torchvision_model, tmp_path):
    torch.save(torchvision_model.state_dict(), tmp_path / "googlenet.pth")
    return tmp_path / "googlenet.pth"


def small_state() -> dict[str, torch.Tensor]:
    return build_network("googlenet_bn", num_classes=4).state_dict()


@pytest.fixture
def bn_state() -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in small_state().items()}


def write(state, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def test_torchvisions_file_gives_torchvisions_logits(torchvision_model, torchvision_file, tmp_path):
    bundle, report = import_weights(torchvision_file, "googlenet_tv")
    assert report.complete
    assert report.unexpected == ()
    save_bundle(bundle, tmp_path / "bundle")
    network = load_bundle(tmp_path / "bundle").build()
    assert network.aux_taps
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = torchvision_model(images)
        assert torch.allclose(network(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert bundle.provenance["imported_from"] == "googlenet.pth"
    assert len(bundle.provenance["source_sha256"]) == 64


def test_torchvisions_preprocessing_is_its_transform(torchvision_file):
    bundle, _ = import_weights(torchvision_file, "googlenet_tv")
    transform = GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    picture = torch.randint(0, 256, (3, 300, 260), dtype=torch.uint8)
    from torchvision.transforms.functional import to_pil_image

    image = to_pil_image(picture)
    ours = bundle.preprocess.normalize(bundle.preprocess.apply(image)[None])
    theirs = transform(image)[None]
    # torchvision's weights come with transform_input, which undoes ImageNet's normalisation.
    model = GoogLeNet(num_classes=2, aux_logits=False, transform_input=True, init_weights=False)
    assert torch.allclose(ours, model._transform_input(theirs), atol=2e-6)


def test_without_auxiliary_heads_the_network_has_none(torchvision_model, tmp_path):
    state = {k: v for k, v in torchvision_model.state_dict().items() if not k.startswith("aux")}
    bundle, report = import_weights(write({"state_dict": state}, tmp_path / "plain.pt"), "googlenet_tv")
    assert report.complete
    assert not bundle.build().aux_taps
    assert not any(name.startswith("aux") for name in bundle.state_dict)


def test_half_precision_becomes_float32(bn_state, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in bn_state.items()}
    bundle, _ = import_weights(write(half, tmp_path / "half.safetensors"), "googlenet_bn")
    assert {v.dtype for v in bundle.state_dict.values()} == {torch.float32, torch.int64}
    assert torch.equal(bundle.state_dict["conv1.conv.weight"], half["conv1.conv.weight"].float())


def test_missing_unexpected_and_mis_shaped_tensors_are_named(bn_state, tmp_path):
    del bn_state["conv2.conv.weight"]
    bn_state["inception3a.b1x1.conv.weight"] = torch.zeros(2, 3, 1, 1)
    bn_state["optimizer.state"] = torch.zeros(1)
    path = write(bn_state, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError) as caught:
        import_weights(path, "googlenet_bn")
    message = str(caught.value)
    assert "1 missing (conv2.conv.weight)" in message
    assert "1 mis-shaped (inception3a.b1x1.conv.weight [2, 3, 1, 1] for [64, 192, 1, 1])" in message
    assert "1 unexpected (optimizer.state)" in message
    assert "\n" not in message


def test_unexpected_tensors_alone_are_reported_not_refused(bn_state, tmp_path):
    bn_state["extra"] = torch.zeros(1)
    bundle, report = import_weights(write(bn_state, tmp_path / "more.safetensors"), "googlenet_bn")
    assert report.unexpected == ("extra",)
    assert "extra" in describe(report)
    assert "extra" not in bundle.state_dict


def test_weights_of_another_network_are_refused_in_one_short_sentence(bn_state, tmp_path):
    path = write(bn_state, tmp_path / "bn.safetensors")
    with pytest.raises(WeightsError, match=r"does not fill googlenet: .* missing .* and \d+ more") as caught:
        import_weights(path, "googlenet")
    assert len(str(caught.value)) < 1500


class Malice:
    """A pickle that would touch a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (exec, (f"open({str(self.target)!r}, 'w').close()",))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol, writer):
    target, path = tmp_path / "pwned", tmp_path / "evil.pth"
    content = {"fc.weight": torch.zeros(2, 2), "x": Malice(target)}
    if writer == "torch":
        torch.save(content, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(WeightsError, match="cannot be read as plain tensors"):
        import_weights(path, "googlenet")
    assert not target.exists()
    # It is a real one: plain unpickling would have run it.
    script = f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"
    if writer == "pickle":
        subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
        assert target.exists()


@pytest.mark.parametrize(
    "name, content",
    [
        ("cut.safetensors", "half"),
        ("text.safetensors", b"just text"),
        ("empty.safetensors", b""),
        ("text.pth", b"just text"),
        ("empty.pth", b""),
        ("cut.pth", "half"),
        ("list.pth", [1, 2, 3]),
        ("numbers.pt", {"epoch": 3}),
    ],
)
def test_damaged_files_and_other_files_are_weights_errors(bn_state, tmp_path, name, content):
    path = tmp_path / name
    if content == "half":
        write(bn_state, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=re.escape(name)) as caught:
        import_weights(path, "googlenet_bn")
    assert "\n" not in str(caught.value)


def test_wrong_requests_are_usage_errors(bn_state, tmp_path):
    with pytest.raises(UsageError, match=r"\.doc files are not read; give one of \.safetensors"):
        (tmp_path / "model.doc").write_bytes(b"\x01\x02")
        import_weights(tmp_path / "model.doc", "googlenet")
    with pytest.raises(UsageError, match="there is no weights file at"):
        import_weights(tmp_path / "nowhere.pth", "googlenet")
    with pytest.raises(UsageError, match="did you mean googlenet_tv"):
        import_weights(write(bn_state, tmp_path / "bn.pth"), "googlenet_vt")


@pytest.mark.parametrize(
    "classifier", [torch.tensor(3.0), torch.zeros(0, 1024), torch.zeros(1, 1).expand(10**12, 1)]
)
def test_an_odd_classifier_is_refused_without_taking_memory(bn_state, tmp_path, classifier):
    bn_state["fc.weight"] = classifier
    with pytest.raises((WeightsError, UsageError), match=r"fc\.weight|larger than the weights"):
        import_weights(write(bn_state, tmp_path / "odd.pth"), "googlenet_bn")


def test_labels_come_from_the_option_the_neighbour_or_numbers(bn_state, tmp_path):
    path = write(bn_state, tmp_path / "bn.safetensors")

    def labels(option=None):
        return import_weights(path, "googlenet_bn", option)[0].labels

    assert labels() == ("class 0", "class 1", "class 2", "class 3")
    (tmp_path / "bn.labels.txt").write_text("(background)\na\n\n b \nc\nd\n")
    assert labels() == ("a", "b", "c", "d")
    (tmp_path / "bn.labels.txt").write_text("a\nb\nc\nd\ne\n")
    with pytest.raises(UsageError, match="has 5 labels, the network has 4 outputs"):
        labels()
    (tmp_path / "bn.synsets.txt").write_text("s\nt\nu\nv\n")
    assert labels() == ("s", "t", "u", "v")
    (tmp_path / "mine.txt").write_text("玫瑰\nx\ny\nz\n", encoding="utf-8")
    assert labels(tmp_path / "mine.txt") == ("玫瑰", "x", "y", "z")


@pytest.mark.parametrize("content", [b"a\nb\n", b"\xff\xfe\x00", None])
def test_unusable_label_files_are_usage_errors(bn_state, tmp_path, content):
    path, labels = write(bn_state, tmp_path / "bn.safetensors"), tmp_path / "mine.txt"
    if content is not None:
        labels.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.txt"):
        import_weights(path, "googlenet_bn", labels)


def test_torchvisions_thousand_classes_have_their_names():
    from inception.weights.importer import read_labels

    labels = read_labels(None, 1000, imagenet_order=True)
    assert labels[0] == "tench"
    assert labels[999] == "toilet tissue"


@pytest.mark.shared
def test_googles_released_network_recognises_photographs(shared):
    bundle, report = import_weights(shared / "weights" / "inception5h.safetensors", "googlenet_5h")
    assert report.missing == report.mis_shaped == ()
    assert all(name.startswith(("head", "nn", "softmax")) for name in report.unexpected)
    assert len(bundle.labels) == 1008
    assert bundle.labels[0] == "(dummy)"
    assert bundle.labels[1007] == "(unused 1007)"
    archive = shared / "data" / "imagenet-samples.zip"
    evaluation = evaluate_bundle(Classifier(bundle, "cpu"), archive).evaluation
    assert evaluation.n == 100
    assert evaluation.top1 >= 0.88
    assert evaluation.top5 >= 0.98
