"""FID, KID and Inception Score, and their network, against torch-fidelity and pytorch-fid."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inception.errors import DataError, UsageError, WeightsError
from inception.evaluate.generative import (
    feature_statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    load_statistics,
    save_statistics,
)
from inception.evaluate.inception2015 import (
    Extractor,
    build_network_2015,
    load_network_2015,
    network_input,
    resize_tensorflow,
)

SIZES = ((32, 32), (64, 48), (299, 299), (500, 375))


def pictures(count: int = 12, seed: int = 0) -> list[Image.Image]:
    """Smooth coloured noise of several sizes."""
    generator = np.random.default_rng(seed)
    made = []
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        made.append(small.resize(SIZES[index % len(SIZES)], Image.Resampling.BICUBIC))
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random weights under torchvision's names, as pytorch-fid and torch-fidelity keep the real ones."""
    torch.manual_seed(11)
    network = build_network_2015()
    generator = torch.Generator().manual_seed(12)
    for name, value in network.state_dict().items():
        if name.endswith(("bn.running_mean", "bn.bias")):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif name.endswith(("bn.running_var", "bn.weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    for name, value in network.Mixed_7c.state_dict().items():
        if name.endswith(("bn.weight", "bn.bias")):
            value.mul_(0.1)  # features of about 1, as the real weights give
    torch.nn.init.normal_(network.fc.weight, std=0.5)
    torch.nn.init.normal_(network.fc.bias)
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    return load_network_2015(weights)


def items(images):
    return [(f"{index}.png", lambda image=image: image) for index, image in enumerate(images)]


def test_features_and_logits_are_torch_fidelitys(weights, network):
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is compared with"
    )
    theirs = module.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    ours = Extractor(network, "tensorflow", "cpu").activations(items(pictures(4)))
    for index, picture in enumerate(pictures(4)):
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        with torch.no_grad():
            features, logits = theirs(pixels)
        scale = float(features.abs().max())
        assert np.abs(ours.features[index] - features[0].numpy()).max() < 1e-5 * scale
        assert np.abs(ours.logits[index] - logits[0].numpy()).max() < 1e-5 * float(logits.abs().max())


def test_features_are_pytorch_fids(weights, network, monkeypatch):
    module = pytest.importorskip("pytorch_fid.inception", reason="pytorch-fid is compared with")
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = module.InceptionV3().eval()
    ours = Extractor(network, "torch", "cpu").activations(items(pictures(4)))
    for index, picture in enumerate(pictures(4)):
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            [features] = theirs(pixels)
        scale = float(features.abs().max())
        assert np.abs(ours.features[index] - features.flatten().numpy()).max() < 1e-5 * scale


def test_the_tensorflow_resize_is_that_of_torch_fidelity():
    module = pytest.importorskip(
        "torch_fidelity.interpolate_compat_tensorflow", reason="torch-fidelity is compared with"
    )
    for height, width in ((7, 9), (299, 299), (400, 32), (1, 1)):
        pixels = torch.rand(1, 3, height, width) * 255
        theirs = module.interpolate_bilinear_2d_like_tensorflow1x(pixels, (299, 299), align_corners=False)
        assert (resize_tensorflow(pixels) - theirs).abs().max() < 1e-3


def test_the_three_resizes_differ_and_the_antialiased_one_is_smooth():
    stripes = np.zeros((1196, 1196, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    image = Image.fromarray(stripes)
    spread = {kind: float(network_input(image, kind).std()) for kind in ("tensorflow", "torch", "antialias")}
    assert spread["antialias"] < 0.01  # grey
    assert spread["tensorflow"] < 1e-6  # every fourth column, all of them white: aliased away
    assert float(network_input(image, "tensorflow").mean()) > 0.99
    for kind in spread:
        value = network_input(Image.new("RGB", (40, 30), (255, 128, 0)), kind)
        assert value.shape == (3, 299, 299)
        assert value[0].max() == pytest.approx(1.0, abs=0.01)
        assert value[2].min() == pytest.approx(-1.0, abs=0.01)
    with pytest.raises(UsageError, match="resize must be"):
        network_input(image, "nearest")


@pytest.mark.parametrize(("count", "width"), [(300, 24), (40, 64)])
def test_fid_and_kid_and_is_of_equal_features_are_torch_fidelitys(count, width):
    fid = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is compared with")
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    generator = torch.Generator().manual_seed(3)
    first = torch.rand(count, width, generator=generator).double()
    second = torch.rand(count + 20, width, generator=generator).double() ** 1.3
    theirs = fid.fid_statistics_to_metric(
        fid.fid_features_to_statistics(first), fid.fid_features_to_statistics(second), False
    )["frechet_inception_distance"]
    ours = frechet_distance(feature_statistics(first.numpy()), feature_statistics(second.numpy()))
    assert ours == pytest.approx(theirs, abs=1e-4)
    kid = kid_features_to_metric(first, second, kid_subset_size=30, verbose=False)
    spread = kernel_distance(first.numpy(), second.numpy(), subset_size=30)
    assert spread.mean == pytest.approx(kid["kernel_inception_distance_mean"], abs=1e-9)
    assert spread.std == pytest.approx(kid["kernel_inception_distance_std"], abs=1e-9)
    logits = 5 * first
    score = isc_features_to_metric(logits)
    ours = inception_score(logits.numpy())
    assert ours.mean == pytest.approx(score["inception_score_mean"], abs=1e-9)
    assert ours.std == pytest.approx(score["inception_score_std"], abs=1e-9)


def test_fid_of_equal_statistics_is_pytorch_fids_and_the_closed_form(tmp_path):
    module = pytest.importorskip("pytorch_fid.fid_score", reason="pytorch-fid is compared with")
    generator = np.random.default_rng(5)
    first = feature_statistics(generator.normal(0, 1, (200, 20)))
    second = feature_statistics(generator.normal(0.3, 1.5, (180, 20)))
    theirs = module.calculate_frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
    assert frechet_distance(first, second) == pytest.approx(theirs, abs=1e-4)
    # Of diagonal covariances: sum of (m1 - m2)^2 + (s1 - s2)^2.
    diagonals = [np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 0.0])]
    one, other = (type(first)(np.full(3, float(i)), np.diag(d)) for i, d in enumerate(diagonals))
    expected = 3 + sum((np.sqrt(diagonals[0]) - np.sqrt(diagonals[1])) ** 2)
    assert frechet_distance(one, other) == pytest.approx(expected)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    # Fewer images than features: the same from the features as from the singular covariance alone.
    few, others = generator.normal(0, 1, (9, 20)), generator.normal(0.3, 1.5, (12, 20))
    whole = [feature_statistics(values) for values in (few, others)]
    assert whole[0].root is not None
    alone = [type(first)(item.mean, item.covariance) for item in whole]
    assert frechet_distance(*whole) == pytest.approx(frechet_distance(*alone), abs=1e-6)
    assert np.allclose(whole[0].covariance, np.cov(few, rowvar=False))
    save_statistics(tmp_path / "one.npz", first)
    mean, covariance = module.compute_statistics_of_path(str(tmp_path / "one.npz"), None, 1, 20, "cpu")
    assert np.array_equal(mean, first.mean)
    assert np.array_equal(covariance, load_statistics(tmp_path / "one.npz").covariance)


def test_the_whole_chain_gives_torch_fidelitys_numbers(weights, network, tmp_path):
    """From image files to FID, KID and Inception Score, with the same random weights."""
    peer = pytest.importorskip("torch_fidelity", reason="torch-fidelity is compared with")
    for side, seed in (("real", 1), ("made", 2)):
        (tmp_path / side).mkdir()
        for index, picture in enumerate(pictures(8, seed)):
            picture.resize((40, 40)).save(tmp_path / side / f"{index:02}.png")
    theirs = peer.calculate_metrics(
        input1=str(tmp_path / "made"),
        input2=str(tmp_path / "real"),
        feature_extractor_weights_path=str(weights),
        fid=True,
        kid=True,
        isc=True,
        kid_subset_size=8,
        kid_subsets=3,
        isc_splits=2,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
    )
    extractor = Extractor(network, "tensorflow", "cpu")
    sides = {
        side: extractor.activations(
            items([Image.open(path).convert("RGB") for path in sorted((tmp_path / side).iterdir())])
        )
        for side in ("real", "made")
    }
    features = {side: found.features for side, found in sides.items()}
    fid = frechet_distance(*(feature_statistics(features[side]) for side in ("made", "real")))
    assert fid > 1
    assert fid == pytest.approx(theirs["frechet_inception_distance"], abs=1e-4)
    kid = kernel_distance(features["made"], features["real"], subset_size=8, subsets=3)
    assert kid.mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-4)
    score = inception_score(sides["made"].logits, splits=2)
    assert score.mean == pytest.approx(theirs["inception_score_mean"], abs=1e-4)
    assert score.std == pytest.approx(theirs["inception_score_std"], abs=1e-4)


def test_googles_graph_fills_the_same_network(network, tmp_path):
    sys.path.append(str(Path(__file__).parents[1] / "weights"))
    from writers import write_graph

    from inception.weights.sources.inception_v3 import GRAPH_2015, GRAPH_LAYERS
    from inception.weights.sources.source import split_name

    arrays = {}
    for name, value in network.state_dict().items():
        layer, role = split_name(name)
        if role != "bn.num_batches_tracked":
            moved = (
                value.permute(2, 3, 1, 0) if value.dim() == 4 else value.t() if value.dim() == 2 else value
            )
            arrays[GRAPH_2015[role][0].format(GRAPH_LAYERS[layer])] = moved.contiguous().numpy()
    assert "mixed_10/tower_1/mixed/conv_1/conv2d_params" in arrays
    again = load_network_2015(write_graph(tmp_path / "classify_image_graph_def.pb", arrays))
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_other_weights_are_refused(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:1000], state["fc.bias"][:1000]
    torch.save(state, tmp_path / "torchvision.pth")
    with pytest.raises(WeightsError, match=r"Inception-v3 of 2015 \(1008 outputs\): 2 mis-shaped"):
        load_network_2015(tmp_path / "torchvision.pth")
    with pytest.raises(UsageError, match="there is no weights file"):
        load_network_2015(tmp_path / "nowhere.pth")


def test_it_pools_by_maximum_in_its_last_module_alone(network):
    pools = {name: str(module) for name, module in network.named_modules() if name.endswith(".pool")}
    assert "MaxPool" in pools["Mixed_7c.pool"]
    assert "count_include_pad=False" in pools["Mixed_7b.pool"]
    assert "count_include_pad=False" in pools["Mixed_5b.pool"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_distance(np.ones((5, 3)), np.ones((9, 3)), subset_size=6), "subsets of 2 to 5"),
        (lambda: inception_score(np.ones((3, 4)), splits=4), "1 to 3 splits"),
        (lambda: feature_statistics(np.ones((1, 4))), "two images or more"),
    ],
)
def test_too_few_images(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_statistics_files_that_are_none(tmp_path):
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "odd.npz").read_bytes()[:100])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("text.npz", "other.npz", "odd.npz", "absent.npz", "cut.npz", "array.npz"):
        with pytest.raises(DataError, match=name):
            load_statistics(tmp_path / name)
