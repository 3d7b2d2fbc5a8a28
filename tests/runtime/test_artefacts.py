"""Networks of other engines in a bundle that somebody sent: nothing outside the bundle is read."""

import random

import numpy as np
import pytest

import inception
from inception.errors import BundleError
from inception.runtime import optimize
from inception.runtime.artefacts import check_onnx, check_openvino
from inception.runtime.forms import Form, graph_of
from inception.runtime.opening import open_engine
from inception.runtime.plan import Plan
from inception.weights.bundle import load_bundle

onnx = pytest.importorskip("onnx", reason="needs the extra `runtime`")
openvino = pytest.importorskip("openvino", reason="needs the extra `runtime`")
pytest.importorskip("onnxruntime", reason="needs the extra `runtime`")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


@pytest.fixture(scope="module")
def graph(tiny_bundle) -> bytes:
    return graph_of(tiny_bundle)


@pytest.fixture(scope="module")
def ir(graph) -> dict[str, bytes]:
    return optimize.serialized(openvino.Core().read_model(graph))


def planned(tiny_path, folder, engine: str, files: dict[str, bytes]):
    """The tiny bundle with a plan of these files, whose checksums are right."""
    optimize.write_optimized(load_bundle(tiny_path), Plan(engine, "float32", 1, 1), files, folder / engine)
    return folder / engine


def external_tensor(location: str):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "3")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def leaking(location: str, place: str) -> bytes:
    """A network that answers with the bytes of another file."""
    nodes, tensor, initializers = [], external_tensor(location), []
    if place == "constant":
        nodes = [helper.make_node("Constant", [], ["w"], value=tensor)]
    elif place == "sparse":
        indices = numpy_helper.from_array(np.arange(3), "i")
        sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[3])
        nodes = [helper.make_node("Constant", [], ["w"], sparse_value=sparse)]
    elif place == "branch":
        inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("w", 2, [3])], [tensor])
        nodes = [helper.make_node("If", ["yes"], ["w"], then_branch=inner, else_branch=inner)]
        initializers = [numpy_helper.from_array(np.array(True), "yes")]
    else:
        initializers = [tensor]
    nodes += [
        helper.make_node("GlobalAveragePool", ["images"], ["map"]),
        helper.make_node("Flatten", ["map"], ["flat"]),
        helper.make_node("Cast", ["w"], ["numbers"], to=1),
        helper.make_node("Add", ["flat", "numbers"], ["logits"]),
    ]
    value = helper.make_tensor_value_info
    network = helper.make_graph(
        nodes, "g", [value("images", 1, ["b", 3, 32, 32])], [value("logits", 1, ["b", 3])], initializers
    )
    return bytes(helper.make_model(network, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


@pytest.mark.parametrize("place", ["initializer", "constant", "sparse", "branch"])
@pytest.mark.parametrize("location", ["secret", "../secret", "/etc/passwd", ""])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_in_other_files_are_refused(tiny_path, tmp_path, monkeypatch, ir, engine, location, place):
    (tmp_path / "secret").write_bytes(bytes([9, 5, 7]))
    monkeypatch.chdir(tmp_path)
    model = leaking(location, place)
    files = {"model.onnx": model} if engine == "onnxruntime" else {**ir, "model.xml": model}
    with pytest.raises(BundleError, match=r"do not trust it|not a network that optimize writes") as caught:
        inception.load(planned(tiny_path, tmp_path, engine, files))
    if place == "initializer" and engine == "onnxruntime":
        assert f"takes its weights from another file ({location!r})" in str(caught.value)


@pytest.mark.parametrize("form", [Form(), Form(response_norm="operator"), Form(blocks=True)])
@pytest.mark.parametrize("network", ["googlenet", "inception_v3", "inception_resnet_v1", "nin"])
def test_what_optimize_writes_is_accepted(network, form):
    from inception.data.preprocess import Preprocess
    from inception.nets.registry import build_network
    from inception.weights.bundle import Bundle

    model = build_network(network, num_classes=3, width=0.1) if network != "nin" else build_network(network)
    side = model.image_size
    labels = tuple(map(str, range(model.num_classes)))
    bundle = Bundle(network, model.arguments, labels, Preprocess(height=side, width=side), model.state_dict())
    written = graph_of(bundle, form)
    check_onnx(written)
    files = optimize.serialized(openvino.Core().read_model(written))
    check_openvino(files["model.xml"], len(files["model.bin"]))


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 20, b"ORTM" * 100, b"<net/>", b"\x3a\x00"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_bytes_that_are_no_network(tiny_path, tmp_path, ir, engine, data):
    files = {"model.onnx": data} if engine == "onnxruntime" else {**ir, "model.xml": data}
    with pytest.raises(BundleError, match=r"optimise (it|the bundle) again") as caught:
        inception.load(planned(tiny_path, tmp_path, engine, files)).predict(np.zeros((40, 40, 3), np.uint8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "old, new, reason",
    [
        (b'offset="0"', b'offset="-8"', "a constant has no place"),
        (b'offset="0"', b'offset="18446744073709551612"', "a constant has no place"),
        (b'offset="0"', b'offset="999999999"', "a constant reaches beyond model.bin"),
        (b'offset="0"', b'offset="0" path="/etc/passwd"', "takes its weights from another file"),
        (b"<layers>", b"<body/><layers>", "a network within"),
        (b"<net ", b'<!DOCTYPE net [<!ENTITY a "b">]><net ', "declarations"),
        (b"<net ", b"<set ", "not well-formed|mismatched"),
    ],
)
def test_an_openvino_network_that_was_changed(ir, old, new, reason):
    assert old in ir["model.xml"]
    with pytest.raises(BundleError, match=reason):
        check_openvino(ir["model.xml"].replace(old, new, 1), len(ir["model.bin"]))


def test_the_text_of_a_network_may_not_be_hidden_by_its_encoding(ir):
    hidden = ir["model.xml"].decode().replace("<net ", '<!DOCTYPE net [<!ENTITY a "b">]><net ')
    with pytest.raises(BundleError):
        check_openvino(hidden.encode("utf-16"), len(ir["model.bin"]))


def test_a_plan_of_a_network_with_other_classes_is_refused(tiny_bundle, tiny_path, tmp_path):
    from dataclasses import replace

    import torch

    from inception.nets.registry import build_network

    torch.manual_seed(0)
    other = build_network("googlenet_bn", num_classes=4, width=0.05, stem="small")
    graph = graph_of(replace(tiny_bundle, labels=tuple("abcd"), state_dict=other.state_dict()))
    session = inception.load(planned(tiny_path, tmp_path, "onnxruntime", {"model.onnx": graph}))
    with pytest.raises(BundleError, match="of another network than the bundle"):
        session.predict(np.zeros((40, 40, 3), np.uint8))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_networks_that_were_changed_anywhere_answer_or_are_refused(graph, ir, engine, capfd):
    rng = random.Random(7)
    data = graph if engine == "onnxruntime" else ir["model.xml"]
    pixels = np.zeros((1, 3, 32, 32), np.uint8)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        files = {"model.onnx": bytes(changed), **ir, "model.xml": bytes(changed)}
        try:
            answer = open_engine(Plan(engine, "float32", 1, 1), files)(pixels)
            assert len(answer) <= 3
        except BundleError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
