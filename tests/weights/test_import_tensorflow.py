"""TensorFlow's graphs and checkpoints, written byte by byte here, against networks with the same weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peers import TOLERANCE, difference, images, liven, logits
from writers import crc32c as slow_crc32c
from writers import snappy, table, write_checkpoint, write_graph, write_old_checkpoint

from inception.errors import UsageError, WeightsError
from inception.nets.registry import build_network
from inception.weights.formats import sstable
from inception.weights.formats.crc32c import crc32c
from inception.weights.formats.tensorflow import read_checkpoint, read_graph
from inception.weights.importer import import_weights


def tensorflow_layout(value: torch.Tensor) -> np.ndarray:
    """H x W x I x O, and I x O."""
    axes = (2, 3, 1, 0) if value.dim() == 4 else (1, 0) if value.dim() == 2 else range(value.dim())
    return np.ascontiguousarray(value.permute(*axes).numpy())


# Google's graph of 2015 (inception5h)


def inception5h_name(ours: str) -> str:
    layer, kind = ours.removesuffix(".weight").removesuffix(".bias"), ours.rpartition(".")[2][0]
    outside = {
        "conv1.conv": "conv2d0",
        "conv2.conv": "conv2d1",
        "conv3.conv": "conv2d2",
        "fc": "softmax2",
        "aux1.conv.conv": "head0_bottleneck",
        "aux1.fc1": "nn0",
        "aux1.fc2": "softmax0",
        "aux2.conv.conv": "head1_bottleneck",
        "aux2.fc1": "nn1",
        "aux2.fc2": "softmax1",
    }
    if layer in outside:
        return f"{outside[layer]}_{kind}"
    module, branch, _ = layer.split(".")
    branches = {"b3x3_reduce": "3x3_bottleneck", "b5x5_reduce": "5x5_bottleneck", "pool_proj": "pool_reduce"}
    return f"mixed{module.removeprefix('inception')}_{branches.get(branch, branch[1:])}_{kind}"


@pytest.fixture(scope="module")
def released():
    return liven(build_network("googlenet_5h", aux_logits=True))


@pytest.fixture(scope="module")
def released_arrays(released):
    arrays = {}
    for name, value in released.state_dict().items():
        # TensorFlow flattens the 4x4 map of an auxiliary head as H, W, C.
        flat = name.endswith("fc1.weight")
        moved = value.reshape(-1, 128, 4, 4).permute(0, 2, 3, 1).flatten(1) if flat else value
        arrays[inception5h_name(name)] = tensorflow_layout(moved)
    return arrays


def test_the_released_graph(released, released_arrays, tmp_path):
    bundle, report = import_weights(write_graph(tmp_path / "graph.pb", released_arrays), "googlenet_5h")
    assert report.unexpected == ()
    assert bundle.build().aux_taps
    assert (bundle.provenance["tool"], bundle.provenance["format"]) == ("tensorflow", "graph")
    assert (bundle.preprocess.mean, bundle.preprocess.value_range) == ((117.0,) * 3, 255.0)
    assert len(bundle.labels) == 1008
    for name, value in released.state_dict().items():
        assert torch.equal(bundle.state_dict[name], value), name
    dropped, _ = import_weights(tmp_path / "graph.pb", "googlenet_5h", background="drop")
    assert len(dropped.labels) == 1000
    x = images(224, scale=60.0)
    with torch.no_grad():
        expected = released.eval()(x)
    assert difference(logits(dropped, x), expected[:, 1:1001]) < TOLERANCE


@pytest.mark.shared
def test_the_real_released_weights_survive_the_graph_form(shared, tmp_path):
    from safetensors.numpy import load_file

    stored = load_file(shared / "weights" / "inception5h.safetensors")
    arrays = {
        k: np.ascontiguousarray(v.transpose(1, 2, 3, 0)) if v.ndim == 4 else v for k, v in stored.items()
    }
    # In the graph linear layers are I x O; in the repacked file they are 1x1 convolutions.
    arrays = {k: v[0, 0] if k.startswith("softmax") and v.ndim == 4 else v for k, v in arrays.items()}
    ours, _ = import_weights(write_graph(tmp_path / "graph.pb", arrays), "googlenet_5h")
    expected, _ = import_weights(shared / "weights" / "inception5h.safetensors", "googlenet_5h")
    assert all(torch.equal(value, ours.state_dict[name]) for name, value in expected.state_dict.items())


@pytest.mark.parametrize("form", ["content", "floats"])
def test_every_form_of_a_constant(tmp_path, form):
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([3])}
    tensors = read_graph(write_graph(tmp_path / "x.pb", values, form)).tensors
    assert all(np.array_equal(tensors[name].numpy(), value) for name, value in values.items())
    half = {"h": np.array([[1.5, -2.25]], np.float16)}
    assert read_graph(write_graph(tmp_path / "h.pb", half, "halves")).tensors["h"].tolist() == [[1.5, -2.25]]


def test_a_last_value_stands_for_the_rest(tmp_path):
    from writers import const_node, number, text, tf_shape

    tensor = number(1, 1) + text(2, tf_shape((2, 2))) + text(5, np.float32([1, 7]).tobytes())
    (tmp_path / "x.pb").write_bytes(const_node("gamma", tensor))
    assert read_graph(tmp_path / "x.pb").tensors["gamma"].tolist() == [[1, 7], [7, 7]]
    for shape in ((1 << 15, 1 << 15), (1 << 39,), (3, -1), (1 << 11, 1 << 10)):
        tensor = number(1, 1) + text(2, tf_shape(shape)) + text(5, np.float32([1]).tobytes())
        (tmp_path / "x.pb").write_bytes(const_node("huge", tensor))
        with pytest.raises(WeightsError, match="huge"):
            read_graph(tmp_path / "x.pb")


# TF-slim's checkpoints


def slim_v1_name(ours: str) -> str:
    """TF-slim's names as its inception_v1.py makes them, slip included."""
    roles = {
        "conv.weight": "weights",
        "bn.bias": "BatchNorm/beta",
        "bn.running_mean": "BatchNorm/moving_mean",
        "bn.running_var": "BatchNorm/moving_variance",
    }
    if ours.startswith("fc"):
        return f"InceptionV1/Logits/Conv2d_0c_1x1/{'weights' if ours.endswith('weight') else 'biases'}"
    layer, *middle, group, kind = ours.split(".")
    scope = {"conv1": "Conv2d_1a_7x7", "conv2": "Conv2d_2b_1x1", "conv3": "Conv2d_2c_3x3"}.get(layer)
    if scope is None:
        block, letter = layer.removeprefix("inception")
        branch = int(middle[0].removeprefix("branch")) - 1
        last = branch == 3 or middle[1:] == ["1"]
        conv = "Conv2d_0b_1x1" if branch == 3 else "Conv2d_0b_3x3" if last else "Conv2d_0a_1x1"
        if (block, letter, branch, last) == ("5", "a", 2, True):
            conv = "Conv2d_0a_3x3"
        scope = f"Mixed_{block}{chr(ord(letter) + 1)}/Branch_{branch}/{conv}"
    return f"InceptionV1/{scope}/{roles[f'{group}.{kind}']}"


@pytest.fixture(scope="module")
def slim_v1():
    network = liven(build_network("googlenet_tv", num_classes=1001, aux_logits=False, padding="same"))
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("bn.weight"):  # TF-slim has no gamma
                value.fill_(1.0)
    arrays = {}
    for name, value in network.state_dict().items():
        if not name.endswith(("bn.weight", "num_batches_tracked")):
            array = tensorflow_layout(value)
            arrays[slim_v1_name(name)] = array[None, None] if name == "fc.weight" else array
    return network, arrays


def check_slim_v1(bundle, network):
    assert bundle.provenance["tool"] == "slim"
    assert bundle.arguments["padding"] == "same"
    assert (len(bundle.labels), bundle.labels[0]) == (1000, "tench")
    x = images(96)
    with torch.no_grad():
        assert difference(logits(bundle, x), network(x)[:, 1:]) < TOLERANCE


def test_a_checkpoint_of_version_2(slim_v1, tmp_path):
    network, arrays = slim_v1
    index = write_checkpoint(
        tmp_path / "model.ckpt-7", {**arrays, "global_step": np.array(7)}, checksum=False
    )
    for path in (index, tmp_path / "model.ckpt-7", tmp_path / "model.ckpt-7.data-00000-of-00001"):
        bundle, report = import_weights(path, "googlenet_tv")
        assert report.unexpected == ("global_step",)
    check_slim_v1(bundle, network)


def test_a_checkpoint_of_version_1(slim_v1, tmp_path):
    network, arrays = slim_v1
    write_old_checkpoint(tmp_path / "inception_v1.ckpt", arrays)
    bundle, report = import_weights(tmp_path / "inception_v1.ckpt", "googlenet_tv")
    assert report.unexpected == ()
    check_slim_v1(bundle, network)


def test_a_frozen_graph_of_slim(slim_v1, tmp_path):
    network, arrays = slim_v1
    bundle, _ = import_weights(write_graph(tmp_path / "frozen.pb", arrays), "googlenet_tv")
    check_slim_v1(bundle, network)


def test_small_checkpoints_with_checksums_compression_and_averages(tmp_path):
    arrays = {
        "a/weights": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a/weights/ExponentialMovingAverage": np.ones((3, 4), np.float32),
        "zeros": np.zeros(1000, np.float32),
    }
    for form, path in enumerate(
        (
            write_checkpoint(tmp_path / "new", arrays),
            write_checkpoint(tmp_path / "packed", arrays, compress=True),
            write_old_checkpoint(tmp_path / "old", arrays),
            write_old_checkpoint(tmp_path / "oldpacked", arrays, compress=True),
        )
    ):
        foreign = read_checkpoint(path)
        assert set(foreign.tensors) == {"a/weights", "zeros"}, form
        assert torch.equal(foreign.tensors["a/weights"], torch.ones(3, 4))
        assert "moving averages of 1 variables" in foreign.notes[1]


def test_a_flipped_bit_in_the_data_is_found(tmp_path):
    index = write_checkpoint(tmp_path / "m", {"w": np.arange(40, dtype=np.float32)})
    data = tmp_path / "m.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[50] ^= 4
    data.write_bytes(content)
    with pytest.raises(WeightsError, match="variable w does not match its checksum"):
        read_checkpoint(index)
    data.unlink()
    with pytest.raises(UsageError, match=r"m\.data-00000-of-00001 is missing"):
        read_checkpoint(index)


@given(st.binary(max_size=300))
def test_checksum_and_compression(data):
    assert crc32c(data) == slow_crc32c(data)
    assert sstable.unsnappy(memoryview(snappy(data * 3))) == data * 3


def test_the_checksum_of_long_data():
    data = np.random.default_rng(0).bytes(300_001)
    assert crc32c(data) == slow_crc32c(data)
    assert crc32c(b"123456789") == 0xE3069283  # the polynomial's published check value


def test_tables_give_back_what_was_put_in():
    entries = [(b"a%03d" % i, bytes([i]) * i) for i in range(40)]
    for compress in (False, True):
        content = memoryview(table(entries, per_block=7, compress=compress))
        assert [(key, bytes(value)) for key, value in sstable.entries(content)] == entries
