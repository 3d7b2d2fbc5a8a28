"""Atlases: points, layouts, cells, their pictures and the page."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explain_support import hooks, make_network

from inception.data.preprocess import Preprocess
from inception.errors import DataError, UsageError
from inception.explain.atlas import (
    LAYOUTS,
    Points,
    atlas_picture,
    cell_classes,
    cell_examples,
    check_layout,
    collect_points,
    draw_cells,
    lay_out,
    make_cells,
    whitened,
)
from inception.explain.atlas_page import write_atlas
from inception.explain.layers import activations, borrowed
from inception.explain.objectives import toward
from inception.explain.render import Settings, render, to_input
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load

SETTINGS = Settings(steps=2, precision="float32")


@pytest.fixture(scope="module")
def classifier(tiny_path):
    return load(tiny_path, "cpu")


@pytest.fixture(scope="module")
def points(classifier, shapes):
    return collect_points(classifier, expand_inputs([str(shapes / "test")], ()), "mixed3a", places=6)


def test_points_are_the_layers_values_at_their_places(classifier, points):
    assert len(points.names) == len(points.images) == len(points.answers) == 12
    assert points.vectors.shape[0] == len(points.rows) == len(points.places) == 72
    assert hooks(classifier.model) == 0
    with torch.no_grad():
        inputs = classifier.preprocess.normalize(points.images)
        maps = classifier.model.forward_endpoints(inputs, ["mixed3a"])["mixed3a"]
        answers = classifier.model(inputs).argmax(dim=1)
    assert points.size == tuple(maps.shape[2:])
    expected = maps.flatten(2)[points.rows, :, points.places]
    torch.testing.assert_close(points.vectors, expected, rtol=1e-4, atol=1e-5)
    assert list(points.answers) == [classifier.labels[answer] for answer in answers]
    height, width = points.size
    rows, columns = points.places // width, points.places % width
    assert rows.min() >= 1 and rows.max() <= height - 2
    assert columns.min() >= 1 and columns.max() <= width - 2
    per_image = [set(points.places[points.rows == row].tolist()) for row in range(12)]
    assert all(len(places) == 6 for places in per_image)
    assert len({frozenset(places) for places in per_image}) > 6


def test_points_follow_the_seed_and_need_images(classifier, points, shapes):
    def collect(paths=("test",), **options):
        items = expand_inputs([str(shapes / path) for path in paths], ())
        return collect_points(classifier, items, "mixed3a", places=6, **options)

    assert torch.equal(collect().places, points.places)
    assert not torch.equal(collect(seed=1).places, points.places)
    assert len(collect(limit=2).names) == 2
    vectors = collect_points(classifier, expand_inputs([str(shapes / "test")], ()), "logits", places=6)
    assert vectors.vectors.shape == (12, 3)  # no map: one point an image
    with pytest.raises(DataError, match="at least 10 points"):
        collect(("nothing.png",))
    with pytest.raises(UsageError, match="no layer"):
        collect_points(classifier, (), "mixed9")


@pytest.mark.parametrize("method", LAYOUTS)
def test_layouts_keep_clusters_together(method):
    if method == "umap":
        pytest.importorskip("umap", reason="the extra atlas is not installed")
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(3, 12)
    vectors = torch.cat([centre + 0.3 * torch.randn(20, 12, generator=generator) for centre in centres])
    found = lay_out(vectors, method, seed=1)
    assert found.shape == (60, 2)
    assert found.min() == 0.0 and found.max() == 1.0
    assert np.array_equal(found, lay_out(vectors, method, seed=1))
    middles = found.reshape(3, 20, 2).mean(axis=1)
    distances = np.linalg.norm(found[:, None] - middles[None], axis=2)
    assert np.array_equal(distances.argmin(axis=1), np.repeat(np.arange(3), 20))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr("inception.explain.atlas.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'inception\[atlas\]'"):
        check_layout("umap")
    check_layout("tsne")
    with pytest.raises(UsageError, match="no layout"):
        check_layout("circle")


def plain_points(vectors, rows, answers):
    images = torch.zeros(len(answers), 3, 32, 32, dtype=torch.uint8)
    names = tuple(f"{number}.png" for number in range(len(answers)))
    zeros = torch.zeros(len(vectors), dtype=torch.int64)
    return Points("mixed3a", images, names, answers, torch.tensor(rows), zeros, (8, 8), vectors)


def test_cells_are_means_of_their_points():
    vectors = torch.arange(12.0).view(6, 2)
    found = plain_points(vectors, [0, 0, 1, 1, 2, 2], ("cat", "dog", "cat"))
    positions = np.array([[0.1, 0.1], [0.2, 0.3], [1.0, 0.0], [0.9, 0.2], [0.1, 0.2], [0.4, 0.9]])
    cells = make_cells(found, positions, 2, 2)
    assert [(cell.row, cell.column, cell.members) for cell in cells] == [(0, 0, (0, 1, 4)), (0, 1, (2, 3))]
    assert torch.equal(cells[0].mean, vectors[[0, 1, 4]].mean(dim=0))
    assert cell_classes(found, cells[0]) == [("cat", 1.0)]
    assert cell_classes(found, cells[1]) == [("dog", 1.0)]
    with pytest.raises(UsageError, match="no cell holds 4"):
        make_cells(found, positions, 2, 4)


def test_whitening_takes_out_what_points_share():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(500, 4, generator=generator)
    vectors = own + 10 * torch.ones(4)
    directions = vectors[:3]
    moment = vectors.double().T @ vectors.double() / 500
    shrunk = moment + 0.1 * moment.diagonal().mean() * torch.eye(4)
    expected = directions.double() @ torch.linalg.inv(shrunk)
    torch.testing.assert_close(whitened(vectors, directions), expected.float(), rtol=1e-4, atol=1e-6)
    before = F.cosine_similarity(directions[0], directions[1], dim=0)
    after = F.cosine_similarity(*whitened(vectors, directions)[:2], dim=0)
    assert after < before


def test_toward_is_its_formula_and_ignores_the_weights_length():
    generator = torch.Generator().manual_seed(0)
    maps = {"x": torch.randn(2, 5, 3, 4, generator=generator)}
    weights = torch.randn(5, generator=generator)
    at = maps["x"][:, :, 1, 2]
    dot = at @ (weights / weights.norm())
    for power in (0.0, 1.0, 2.0):
        expected = dot * F.cosine_similarity(at, weights[None], dim=1).clamp(min=0.1) ** power
        torch.testing.assert_close(toward("x", weights, power).value(maps), expected)
    torch.testing.assert_close(toward("x", 7 * weights).value(maps), toward("x", weights).value(maps))
    vector = {"x": at}
    torch.testing.assert_close(toward("x", weights).value(vector), toward("x", weights).value(maps))
    with pytest.raises(UsageError, match="5 channels; the direction has 4"):
        toward("x", weights[:4]).value(maps)


def test_pictures_are_kept_and_the_page_is_one_safe_file(classifier, points, tmp_path, monkeypatch):
    cells = make_cells(points, lay_out(points.vectors, "pca"), 3, 3)
    made = []
    pictures = draw_cells(classifier, points, cells, tmp_path / "kept", SETTINGS, made.append)
    assert sum(made) == len(cells) == len(set(pictures))
    content = {path: path.read_bytes() for path in pictures}
    pictures[1].unlink()
    assert draw_cells(classifier, points, cells, tmp_path / "kept", SETTINGS) == pictures
    assert {path: path.read_bytes() for path in pictures} == content
    monkeypatch.setattr("inception.explain.gallery.render", None)
    draw_cells(classifier, points, cells, tmp_path / "kept", SETTINGS)

    sheet = atlas_picture(cells, pictures, 3)
    assert sheet.width == sheet.height
    colours = sheet.getcolors(maxcolors=1 << 24)
    assert colours is not None and len(colours) > 100

    examples = cell_examples(classifier, points, cells)
    for cell, found in zip(cells, examples, strict=True):
        names = [example.name for example in found]
        assert len(set(names)) == len(names)
        assert set(names) <= {points.names[int(points.rows[member])] for member in cell.members}
        values = [example.value for example in found]
        assert values == sorted(values, reverse=True)
    wild = plain_points(points.vectors, points.rows.tolist(), ('"><script>alert(1)</script>',) * 12)
    page = tmp_path / "atlas.html"
    write_atlas(page, wild, cells, pictures, examples, title="<title>", details={"<k>": "<v>"})
    text = page.read_text("utf-8")
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert re.search(r"script-src 'sha256-[\w+/=]+'", text)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert text.count('class="cell"') == len(cells)
    assert text.count('class="example"') == sum(map(len, examples))
    assert text.count('lang="en"') - 1 == text.count('lang="zh-CN"')


def test_a_direction_is_followed_more_the_longer_it_is_drawn():
    network = make_network()
    direction = torch.zeros(64)
    direction[[1, 5]] = 1.0
    objective = toward("mixed3a", direction)

    def value(steps):
        pixels = render(network, Preprocess(32, 32), objective, Settings(steps=steps, precision="float32"))
        with borrowed(network), torch.no_grad():
            return float(
                objective.value(activations(network, to_input(pixels, Preprocess(32, 32)), ["mixed3a"]))
            )

    assert value(24) > value(1)
