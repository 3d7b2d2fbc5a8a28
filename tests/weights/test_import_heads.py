"""Heads as people change them: one linear layer is taken whatever its name, more is refused by name."""

import pytest
import torch
from torch import nn

from inception.errors import UsageError, WeightsError
from inception.nets.registry import build_network
from inception.weights.heads import plain_head
from inception.weights.importer import import_weights

STATE = build_network("googlenet_bn", num_classes=4).state_dict()
WEIGHT, BIAS = STATE["fc.weight"], STATE["fc.bias"]
FEATURES = {name: value for name, value in STATE.items() if not name.startswith("fc.")}


def head(prefix, module=None):
    """The head's tensors, or those of `module`, under a prefix."""
    tensors = {"weight": WEIGHT, "bias": BIAS} if module is None else module.state_dict()
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def imported(tmp_path, tensors, labels=None, **options):
    torch.save(tensors, tmp_path / "w.pth")
    path = None
    if labels is not None:
        path = tmp_path / "labels.txt"
        path.write_text("\n".join(labels))
    return import_weights(tmp_path / "w.pth", "googlenet_bn", path, **options)[0]


def remarks(bundle):
    return " ".join(bundle.provenance["remarks"])


@pytest.mark.parametrize(
    "name",
    ["fc.1", "fc.0", "fc.linear", "fc.1.0", "head", "classifier", "head.fc", "classifier.1", "last_linear"],
)
def test_one_linear_layer_of_any_name_is_the_head(tmp_path, name):
    bundle = imported(tmp_path, FEATURES | head(name))
    assert torch.equal(bundle.state_dict["fc.weight"], WEIGHT)
    assert torch.equal(bundle.state_dict["fc.bias"], BIAS)
    assert f"the head {name} is " in remarks(bundle)


@pytest.mark.parametrize("prefix", ["backbone", "model", "cnn", "feature_extractor", "module.net"])
@pytest.mark.parametrize("name", ["fc", "classifier", "head", "head.1", "output_layer"])
def test_a_head_beside_the_prefix_joins(tmp_path, prefix, name):
    tensors = {f"{prefix}.{key}": value for key, value in FEATURES.items()} | head(name)
    tensors |= {"criterion.weight": torch.ones(4), "metric.total": torch.tensor(3)}
    bundle = imported(tmp_path, tensors)
    assert torch.equal(bundle.state_dict["fc.weight"], WEIGHT)
    assert f"the prefix {prefix}. was taken off" in remarks(bundle)
    assert "left out, as no part of the network: criterion.weight, metric.total" in remarks(bundle)


def test_a_head_without_bias_gets_zeros(tmp_path):
    bundle = imported(tmp_path, FEATURES | {"fc.weight": WEIGHT})
    assert not bundle.state_dict["fc.bias"].any()
    assert "the head fc has no bias: zeros were taken" in remarks(bundle)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_head_under_weight_norm_is_the_same_layer(tmp_path, norm):
    layer = nn.Linear(1024, 4)
    with torch.no_grad():
        layer.weight *= 3
    expected = layer.weight.detach().clone()
    bundle = imported(tmp_path, FEATURES | head("fc", norm(layer)))
    torch.testing.assert_close(bundle.state_dict["fc.weight"], expected)


def mlp(*more):
    return nn.Sequential(nn.Linear(1024, 64), *more, nn.ReLU(), nn.Linear(64, 4))


@pytest.mark.parametrize(
    "tensors, text",
    [
        (head("fc", mlp()), r"more than one linear layer \(fc\.0 64x1024, fc\.2 4x64\)"),
        (head("classifier", mlp()), r"classifier\.0 64x1024, classifier\.2 4x64"),
        (
            head("fc", nn.Sequential(nn.BatchNorm1d(1024), nn.Linear(1024, 4))),
            r"fc\.1 4x1024, and fc\.0\.weight",
        ),
        (head("fc") | head("classifier", nn.Linear(4, 2)), r"fc 4x1024, classifier 2x4"),
        (head("fc") | head("neck", nn.BatchNorm1d(1024)), r"fc 4x1024, and neck\.weight"),
        (head("head_color") | head("head_shape"), r"not one, but several \(head_color 4x1024, head_shape"),
    ],
)
def test_more_than_a_linear_layer_is_refused_by_name(tmp_path, tensors, text):
    with pytest.raises(WeightsError, match=rf"{text}.*--partial takes the features with a fresh head"):
        imported(tmp_path, FEATURES | tensors)


@pytest.mark.parametrize("tensors", [head("fc", mlp()), head("fc") | head("neck", nn.BatchNorm1d(1024))])
def test_partial_takes_the_features_below_such_a_head(tmp_path, tensors):
    bundle = imported(tmp_path, FEATURES | tensors, ["a", "b", "c"], partial="")
    assert "left out: the head is more than" in remarks(bundle)
    assert bundle.labels == ("a", "b", "c")
    assert bundle.provenance["partial"]["fresh"] == ["fc.weight", "fc.bias"]


def test_what_does_not_fit_is_listed_head_first(tmp_path):
    with pytest.raises(WeightsError, match=r"2 missing \(fc\.weight, fc\.bias\); only the head does not fit"):
        imported(tmp_path, FEATURES)
    tensors = {name: value for name, value in FEATURES.items() if "3a" not in name}
    with pytest.raises(WeightsError, match=r"missing \(fc\.weight, fc\.bias, inception3a"):
        imported(tmp_path, tensors)


# One output


def one_logit():
    generator = torch.Generator().manual_seed(3)
    return {"fc.weight": torch.randn(1, 1024, generator=generator), "fc.bias": torch.tensor([0.7])}


def test_one_output_becomes_two_classes_exactly(tmp_path):
    bundle = imported(tmp_path, FEATURES | one_logit(), ["healthy", "sick"])
    assert bundle.labels == ("healthy", "sick")
    assert torch.equal(bundle.state_dict["fc.weight"][0], torch.zeros(1024))
    network = bundle.build()
    features = torch.randn(3, 1024)
    with torch.no_grad():
        ours = network.fc(features).softmax(1)
        theirs = (features @ one_logit()["fc.weight"][0] + 0.7).sigmoid()
    torch.testing.assert_close(ours[:, 1], theirs)
    assert "first label stands for 0" in remarks(bundle)


@pytest.mark.parametrize("labels", [None, ["sick"], ["a", "b", "c"]])
def test_one_output_without_two_labels_is_refused(tmp_path, labels):
    with pytest.raises(WeightsError, match=r"one output.*--labels a file of two lines"):
        imported(tmp_path, FEATURES | one_logit(), labels)


# Channels


def first_convolution(channels):
    return {"conv1.conv.weight": torch.randn(64, channels, 7, 7)}


def test_a_grey_network_gets_grey_preprocessing(tmp_path):
    bundle = imported(tmp_path, STATE | first_convolution(1))
    assert bundle.arguments["in_chans"] == 1
    assert bundle.preprocess.color == "L"
    assert bundle.preprocess.mean == pytest.approx((0.449,), abs=1e-3)
    assert "takes 1 channel: images are made grey" in remarks(bundle)
    assert bundle.build()(torch.randn(2, 1, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_other_channels_are_refused_by_number(tmp_path, channels):
    with pytest.raises(WeightsError, match=f"first convolution takes {channels} channels: bundles answer"):
        imported(tmp_path, STATE | first_convolution(channels))


def test_no_labels_of_imagenet_for_a_fresh_head(tmp_path):
    assert imported(tmp_path, FEATURES, partial="").labels[0] == "class 0"
    with pytest.raises(UsageError, match="no label file"):
        import_weights(tmp_path / "w.pth", "googlenet_bn", tmp_path / "none.txt")


# Keras's, ONNX's


def dense(name, inputs, outputs):
    return {f"{name}/kernel": torch.randn(inputs, outputs), f"{name}/bias": torch.randn(outputs)}


@pytest.mark.parametrize("name", ["dense_0", "predictions", "output", "my_classifier"])
def test_keras_heads_of_any_name(name):
    tensors = dense(name, 2048, 5)
    found, _ = plain_head(tensors, "predictions", (), keras=True)
    assert set(found) == {"predictions/kernel", "predictions/bias"}
    assert torch.equal(found["predictions/kernel"], tensors[f"{name}/kernel"])


@pytest.mark.parametrize(
    "tensors, text",
    [
        (dense("dense_0", 2048, 64) | dense("dense_1", 64, 5), "more than one linear layer"),
        (
            dense("dense_0", 2048, 5) | {"batch_normalization_94/gamma": torch.ones(2048)},
            "batch_normalization_94",
        ),
    ],
)
def test_keras_heads_of_more_layers_are_refused(tensors, text):
    with pytest.raises(WeightsError, match=text):
        plain_head(tensors, "predictions", (), keras=True)


def test_a_layer_behind_the_last_one_of_an_onnx_file_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    state = build_network("lenet5", num_classes=4).state_dict()
    layers = [name.removesuffix(".weight") for name in state if name.endswith("weight")]
    arrays = {f"w{i}": state[f"{layer}.weight"].numpy() for i, layer in enumerate(layers)}
    arrays |= {f"b{i}": state[f"{layer}.bias"].numpy() for i, layer in enumerate(layers)}
    arrays |= {"w9": torch.randn(2, 4).numpy(), "b9": torch.randn(2).numpy()}

    def write(numbers):
        nodes = [
            onnx.helper.make_node(
                "Conv" if arrays[f"w{i}"].ndim == 4 else "Gemm",
                [f"x{n}", f"w{i}", f"b{i}"],
                [f"x{n + 1}"],
                **({} if arrays[f"w{i}"].ndim == 4 else {"transB": 1}),
            )
            for n, i in enumerate(numbers)
        ]
        tensors = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
        graph = onnx.helper.make_graph(nodes, "g", [], [], tensors)
        (tmp_path / "w.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        return import_weights(tmp_path / "w.onnx", "lenet5")

    assert write(range(len(layers)))[1].complete
    with pytest.raises(WeightsError, match="w9 comes behind the network's last"):
        write([*range(len(layers)), 9])
