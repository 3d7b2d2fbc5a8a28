"""Features at any stage, and what lies near what."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shapes import COLOURS, shape_picture

from inception.errors import ImageError, InceptionError, UsageError
from inception.evaluate.embeddings import (
    Embedding,
    duplicate_groups,
    embed_stream,
    features,
    nearest,
    stacked,
)
from inception.runtime.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(tiny_bundle) -> Classifier:
    return Classifier(tiny_bundle, "cpu")


@pytest.fixture(scope="module")
def batch(classifier) -> torch.Tensor:
    return torch.stack([classifier.preprocess.apply(shape_picture(name, 1)) for name in COLOURS])


def test_features_are_what_the_classifier_reads_and_logits_what_it_says(classifier, batch):
    with torch.no_grad():
        expected = classifier.model.fc(torch.from_numpy(features(classifier, batch)))
    assert torch.allclose(expected, classifier.logits(batch), atol=1e-4)
    assert np.allclose(features(classifier, batch, "logits"), classifier.logits(batch), atol=1e-4)


@pytest.mark.parametrize("name", ["inception4a", "Mixed_4b", "inception_4a/output"])
def test_any_stage_by_any_name_pooled_or_whole(classifier, batch, name):
    with torch.no_grad():
        maps = classifier.model.forward_endpoints(classifier.preprocess.normalize(batch), [name])[
            name
        ].numpy()
    assert np.allclose(features(classifier, batch, name), maps.mean((2, 3)), atol=1e-4)
    assert np.allclose(features(classifier, batch, name, "max"), maps.max((2, 3)), atol=1e-4)
    assert np.allclose(features(classifier, batch, name, "none"), maps.reshape(3, -1), atol=1e-4)


def test_a_stream_keeps_the_order_and_a_bad_image_its_error(classifier):
    def bad():
        raise ImageError("empty", "nothing there")

    items = [(f"{i}", bad if i == 3 else lambda i=i: shape_picture("jade", i)) for i in range(7)]
    found = list(embed_stream(classifier, items, batch_size=2))
    assert [item.path for item in found] == [str(i) for i in range(7)]
    assert found[3].vector is None
    assert found[3].error == "nothing there"
    assert stacked(found).shape == (6, classifier.model.num_features)
    alone = next(embed_stream(classifier, items[5:6]))
    assert np.allclose(alone.vector, found[5].vector, atol=1e-5)
    with pytest.raises(UsageError, match="did you mean"):
        next(embed_stream(classifier, items, endpoint="inception4z"))
    with pytest.raises(UsageError, match="none of the images"):
        stacked([Embedding("x", None, "broken")])


@pytest.mark.parametrize("block", [1024, 7])
def test_neighbours_are_scikit_learns(monkeypatch, block):
    from sklearn.neighbors import NearestNeighbors

    monkeypatch.setattr("inception.evaluate.embeddings._BLOCK", block)
    generator = np.random.default_rng(0)
    vectors, queries = generator.normal(size=(60, 9)), generator.normal(size=(11, 9))
    index = NearestNeighbors(metric="cosine").fit(vectors)
    for asked, same in ((queries, False), (vectors, True)):
        places, similarity = nearest(vectors, asked, 4, same=same)
        distance, theirs = index.kneighbors(None if same else queries, 4)
        assert np.array_equal(places, theirs)
        assert np.allclose(similarity, 1 - distance, atol=1e-6)


def test_impossible_neighbours():
    vectors = np.ones((3, 2))
    for arguments in ((vectors, vectors, 4), (vectors, np.ones((1, 5)), 1), (np.ones(3), vectors, 1)):
        with pytest.raises(UsageError):
            nearest(*arguments)
    with pytest.raises(UsageError, match="there are 2 images"):
        nearest(vectors, vectors, 3, same=True)


@pytest.mark.parametrize("block", [1024, 2])
def test_duplicates_are_linked_into_groups(monkeypatch, block):
    monkeypatch.setattr("inception.evaluate.embeddings._BLOCK", block)
    angles = np.deg2rad([0, 90, 4, 180, 8, 91, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # 0 and 8 degrees are too far apart, but both are near 4.
    assert duplicate_groups(vectors, np.cos(np.deg2rad(5))) == [[0, 2, 4, 6], [1, 5]]
    assert duplicate_groups(vectors, 1.0) == [[0, 6]]
    assert duplicate_groups(np.zeros((0, 3)), 0.9) == []
    with pytest.raises(UsageError, match="similarity threshold"):
        duplicate_groups(vectors, 1.5)


def test_features_that_are_not_finite_are_an_error(tiny_bundle, batch):
    state = {name: value.clone() for name, value in tiny_bundle.state_dict.items()}
    state["fc.bias"][0] = float("inf")
    broken = Classifier(replace(tiny_bundle, state_dict=state))
    assert np.isfinite(features(broken, batch)).all()
    with pytest.raises(InceptionError, match=r"logits are not finite .* weights are damaged"):
        features(broken, batch, "logits")
