"""Damaged and hostile files of every format: a WeightsError or a result, and little memory."""

import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from writers import write_caffe, write_checkpoint, write_graph, write_old_checkpoint

from inception.errors import UsageError, WeightsError
from inception.weights.formats.recognize import read_foreign

ARRAYS = {
    f"layer{i}/weights": np.random.default_rng(i).standard_normal((3, 4)).astype(np.float32) for i in range(6)
}
MEMORY = 64 << 20


def write_onnx(path):
    onnx = pytest.importorskip("onnx")
    tensors = [
        onnx.numpy_helper.from_array(value.reshape(3, 4, 1, 1), name) for name, value in ARRAYS.items()
    ]
    nodes = [onnx.helper.make_node("Conv", ["x", name], [f"y{i}"]) for i, name in enumerate(ARRAYS)]
    path.write_bytes(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], tensors)).SerializeToString()
    )
    return path


def write_h5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in ARRAYS.items():
            file[name] = value
    return path


def write_keras(path):
    import zipfile

    write_h5(path.with_name("inner.h5"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_name("inner.h5"), "model.weights.h5")
    return path


def write_torch(path, zip_form=True):
    state = {name: torch.from_numpy(value) for name, value in ARRAYS.items()}
    torch.save(state, path, _use_new_zipfile_serialization=zip_form)
    return path


def write_safetensors(path):
    safetensors.numpy.save_file(ARRAYS, path)
    return path


LAYERS = [(name, "Convolution", [value]) for name, value in ARRAYS.items()]
WRITERS = {
    "x.pb": lambda path: write_graph(path, ARRAYS),
    "floats.pb": lambda path: write_graph(path, ARRAYS, "floats"),
    "x.index": lambda path: write_checkpoint(path.with_suffix(""), ARRAYS),
    "packed.index": lambda path: write_checkpoint(path.with_suffix(""), ARRAYS, compress=True),
    "old.ckpt": lambda path: write_old_checkpoint(path, ARRAYS),
    "oldpacked.ckpt": lambda path: write_old_checkpoint(path, ARRAYS, compress=True),
    "x.caffemodel": lambda path: write_caffe(path, LAYERS),
    "old.caffemodel": lambda path: write_caffe(path, LAYERS, legacy=True),
    "x.onnx": write_onnx,
    "x.h5": write_h5,
    "x.keras": write_keras,
    "x.pth": write_torch,
    "legacy.pth": lambda path: write_torch(path, zip_form=False),
    "x.safetensors": write_safetensors,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    cache = {}

    def original(name):
        if name not in cache:
            cache[name] = WRITERS[name](folder / name)
        return cache[name]

    return original


@pytest.mark.parametrize("name", WRITERS)
def test_the_undamaged_file_is_read(originals, name):
    foreign = read_foreign(originals(name))
    assert len(foreign.tensors) == len(ARRAYS)
    assert {tuple(value.shape)[:2] for value in foreign.tensors.values()} <= {(3, 4), (1, 1)}


def mutations(size):
    place = st.integers(0, size - 1)
    flip = st.tuples(st.just("flip"), place, st.integers(0, 7))
    change = st.tuples(st.just("byte"), place, st.sampled_from([0, 1, 127, 128, 255]))
    cut = st.tuples(st.just("cut"), place, st.just(0))
    remove = st.tuples(st.just("remove"), place, st.integers(1, 40))
    repeat = st.tuples(st.just("repeat"), place, st.integers(1, 40))
    return st.lists(st.one_of(flip, change, cut, remove, repeat), min_size=1, max_size=6)


def damaged(content, steps):
    data = bytearray(content)
    for kind, place, amount in steps:
        at = min(place, max(len(data) - 1, 0))
        if not data:
            break
        if kind == "flip":
            data[at] ^= 1 << amount
        elif kind == "byte":
            data[at] = amount
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + amount]
        else:
            data[at:at] = data[at : at + amount] * 3
    return bytes(data)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_a_weights_error_or_harmless(originals, tmp_path_factory, name, data):
    original = originals(name)
    content = original.read_bytes()
    steps = data.draw(mutations(len(content)))
    path = original.with_name(f"damaged-{name}")
    path.write_bytes(damaged(content, steps))
    beside = original.with_suffix(".data-00000-of-00001")
    if beside.is_file():
        path.with_suffix(".data-00000-of-00001").write_bytes(beside.read_bytes())
    tracemalloc.start()
    try:
        foreign = read_foreign(path)
        assert sum(value.nbytes for value in foreign.tensors.values()) < MEMORY
    except WeightsError as error:
        assert "\n" not in str(error)
        assert path.stem in str(error)
    except UsageError as error:
        assert "is missing" in str(error) or "are missing" in str(error)  # a data file's number was damaged
    finally:
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        tracemalloc.stop()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), ending=st.sampled_from([n.rpartition(".")[2] for n in WRITERS]))
def test_arbitrary_bytes(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"arbitrary.{ending}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="arbitrary"):
        read_foreign(path)


def test_messages_nested_without_end_are_only_read_as_deep_as_the_format(tmp_path):
    from writers import text

    message = b""
    for _ in range(3000):
        message = text(1, message)
    (tmp_path / "deep.pb").write_bytes(message)
    with pytest.raises(WeightsError, match="deep"):
        read_foreign(tmp_path / "deep.pb")


def test_a_storage_larger_than_the_file(tmp_path):
    content = write_torch(tmp_path / "x.pth", zip_form=False).read_bytes()
    assert content.count(b"K\x0c") >= len(ARRAYS)  # each storage declares its 12 numbers
    (tmp_path / "x.pth").write_bytes(content.replace(b"K\x0c", b"J\xff\xff\xff\x7f"))
    with pytest.raises(WeightsError, match="x"):
        read_foreign(tmp_path / "x.pth")
