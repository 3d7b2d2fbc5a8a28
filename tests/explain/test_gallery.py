"""Galleries: which channels, nothing made twice, real images beside them, one safe page."""

import re

import pytest
import torch
from PIL import Image
from shapes import COLOURS

from inception.errors import DataError, UsageError
from inception.explain.examples import Example, find_examples, receptive_side
from inception.explain.gallery import Channel, channel_branches, expand, make_pictures, recipe_key
from inception.explain.gallery_page import write_gallery
from inception.explain.render import Settings
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load

SETTINGS = Settings(steps=2, precision="float32")


@pytest.fixture(scope="module")
def classifier(tiny_path):
    return load(tiny_path, "cpu")


def test_which_channels(classifier):
    network = classifier.model
    branches = channel_branches(network, "mixed4a", 32)
    assert (
        len(branches) == network.forward_endpoints(torch.zeros(1, 3, 32, 32), ["mixed4a"])["mixed4a"].shape[1]
    )
    assert list(dict.fromkeys(branches)) == ["b1x1", "b3x3", "b5x5", "pool_proj"]
    assert [item.index for item in expand(network, ["mixed4a"], 32)] == list(range(len(branches)))
    chosen = expand(network, ["mixed4a:3,0-1", "mixed4a:1", "conv1:2"], 32)
    assert [item.name for item in chosen] == ["mixed4a:3", "mixed4a:0", "mixed4a:1", "conv1:2"]
    assert chosen[-1].branch == ""
    assert len(expand(network, ["logits"], 32)) == len(COLOURS)
    for wrong in ("mixed4a:999", "mixed4a:x", "mixed9"):
        with pytest.raises(UsageError):
            expand(network, [wrong], 32)


def test_a_repeated_run_draws_only_what_is_missing(classifier, tmp_path, monkeypatch):
    channels = expand(classifier.model, ["mixed3a:0-5"], 32)
    made = []
    first = make_pictures(classifier, channels, tmp_path, SETTINGS, made.append)
    assert sum(made) == len(channels)
    content = {item: path.read_bytes() for item, path in first.items()}
    gone = channels[2]
    first[gone].unlink()
    stamps = {item: path.stat().st_mtime_ns for item, path in first.items() if item != gone}
    second = make_pictures(classifier, channels, tmp_path, SETTINGS)
    assert {item: path.read_bytes() for item, path in second.items()} == content
    assert {item: path.stat().st_mtime_ns for item, path in second.items() if item != gone} == stamps
    monkeypatch.setattr("inception.explain.gallery.render", None)
    make_pictures(classifier, channels, tmp_path, SETTINGS)
    assert recipe_key(classifier, SETTINGS) != recipe_key(classifier, Settings(steps=3))


def test_examples_are_the_images_of_largest_activation(classifier, shapes):
    items = list(expand_inputs([str(shapes / "test")], ()))
    channels = [Channel("mixed3a", 0), Channel("mixed3a", 7), Channel("logits", 1)]
    found = find_examples(classifier, items, channels, count=3)
    assert list(found) == channels
    batch = torch.stack([classifier.preprocess.apply(opener()) for _, opener in items])
    with torch.no_grad():
        inputs = classifier.preprocess.normalize(batch)
        maps = classifier.model.forward_endpoints(inputs, ["mixed3a"])["mixed3a"]
        logits = classifier.model(inputs)
    best = maps.amax(dim=(2, 3)).topk(3, dim=0).values
    for item in channels[:2]:
        values = [example.value for example in found[item]]
        assert values == pytest.approx(best[:, item.index].tolist(), rel=1e-4)
    rows = logits[:, 1].topk(3).indices.tolist()
    assert [example.name for example in found[channels[2]]] == [items[row][0] for row in rows]
    answers = {
        name: classifier.labels[int(row.argmax())] for (name, _), row in zip(items, logits, strict=True)
    }
    assert all(example.label == answers[example.name] for example in found[channels[0]])
    side = receptive_side(classifier.model, "inception3a", (3, 32, 32))
    assert found[channels[0]][0].picture.size == (side, side)
    with pytest.raises(DataError, match="none of the example images"):
        find_examples(classifier, expand_inputs([str(shapes / "nothing.png")], ()), channels)


def test_receptive_sides_grow_with_depth(classifier):
    sides = [
        receptive_side(classifier.model, stage, (3, 32, 32))
        for stage in ("conv1", "inception3a", "inception4c")
    ]
    assert sides[0] == 8
    assert sides == sorted(sides)
    assert sides[-1] > sides[0]


def test_the_page_is_one_safe_file_in_two_languages(classifier, tmp_path):
    channels = [Channel("mixed3a", 0, "b1x1"), Channel("conv1", 1)]
    pictures = make_pictures(classifier, channels, tmp_path, SETTINGS)
    wild = Example("a/<b>.png", '"><script>alert(1)</script>', 1.5, Image.new("RGB", (20, 20), "red"))
    page = tmp_path / "page.html"
    write_gallery(page, pictures, title="<title>", details={"<k>": "<v>"}, examples={channels[0]: [wild]})
    text = page.read_text("utf-8")
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert re.search(r"script-src 'sha256-[\w+/=]+'", text)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert len(re.findall(r'class="picture"', text)) == 2
    assert len(re.findall(r'class="example"', text)) == 1
    assert text.count('lang="en"') - 1 == text.count('lang="zh-CN"')
    assert "mixed3a:0" in text and "b1x1" in text
