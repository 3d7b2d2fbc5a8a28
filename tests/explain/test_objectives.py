"""Objectives: arithmetic, the language they are written in, and what it refuses."""

import pytest
import torch

from inception.errors import UsageError
from inception.explain.objectives import (
    channel,
    direction,
    diverse,
    diversity,
    each,
    find_label,
    interpolate,
    neuron,
    parse,
    whole_layer,
)

LABELS = ("n01 kit fox, Vulpes", "n02 red fox", "tabby, tabby cat", "tiger cat", "7")


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(3, 4, 5, 6, generator=generator),
        "b": torch.randn(3, 2, 2, 2, generator=generator),
        "logits": torch.randn(3, 5, generator=generator),
    }


def test_terms(maps):
    a = maps["a"]
    torch.testing.assert_close(channel("a", 1).value(maps), a[:, 1].mean(dim=(1, 2)))
    torch.testing.assert_close(neuron("a", 1).value(maps), a[:, 1, 2, 3])
    torch.testing.assert_close(neuron("a", 1, (0, 5)).value(maps), a[:, 1, 0, 5])
    torch.testing.assert_close(channel("logits", 3).value(maps), maps["logits"][:, 3])
    torch.testing.assert_close(whole_layer("a").value(maps), a.square().mean(dim=(1, 2, 3)))
    expected = (3 * a[:, 0] - 4 * a[:, 2]).mean(dim=(1, 2)) / 5
    torch.testing.assert_close(direction("a", {0: 3.0, 2: -4.0}).value(maps), expected)


def test_they_add_subtract_scale_and_multiply(maps):
    first, second = channel("a", 0), channel("b", 1)
    one, two = first.value(maps), second.value(maps)
    for objective, expected in [
        (first + second, one + two),
        (first - second, one - two),
        (2 * first, 2 * one),
        (-first, -one),
        (first * second, one * two),
        ((first + second) * second, (one + two) * two),
    ]:
        torch.testing.assert_close(objective.value(maps), expected)
        assert objective.layers <= {"a", "b"}
        torch.testing.assert_close(parse_back(objective, maps), expected)


def parse_back(objective, maps):
    """What the written form means; brackets are for people alone."""
    return parse(objective.text, LABELS).value(maps) if "(" not in objective.text else objective.value(maps)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a:1", lambda m: channel("a", 1).value(m)),
        ("a", lambda m: whole_layer("a").value(m)),
        ("a:1@centre", lambda m: neuron("a", 1).value(m)),
        ("a:1@0,5", lambda m: neuron("a", 1, (0, 5)).value(m)),
        ("a:0=3,2=-4", lambda m: direction("a", {0: 3.0, 2: -4.0}).value(m)),
        ("logits:tiger cat", lambda m: m["logits"][:, 3]),
        ("logits:3", lambda m: m["logits"][:, 3]),
        ("logits:7", lambda m: m["logits"][:, 4]),
        ("a:0 + 0.5 * b:1 - a:2", lambda m: parts(m, 0) + 0.5 * channel("b", 1).value(m) - parts(m, 2)),
        ("a:0 * b:1 + a:2", lambda m: parts(m, 0) * channel("b", 1).value(m) + parts(m, 2)),
    ],
)
def test_the_language(maps, text, meaning):
    torch.testing.assert_close(parse(text, LABELS).value(maps), meaning(maps))


def parts(maps, index):
    return channel("a", index).value(maps)


@pytest.mark.parametrize(
    "text", ["", ":3", "a:", "a:x", "a:0=", "2", "a:1@", "logits:dog", "logits:fox", "a:1=1.2.3"]
)
def test_what_it_cannot_read(text):
    with pytest.raises(UsageError):
        parse(text, LABELS)


def test_labels_are_found_by_any_clear_part():
    assert find_label("kit fox", LABELS) == 0
    assert find_label("RED", LABELS) == 1
    assert find_label("tabby", LABELS) == 2
    assert find_label("7", LABELS) == 4  # a label goes before a number
    assert find_label("3", LABELS) == 3
    assert find_label("1", ["n00000012 cat", "n00000011 dog"]) == 1  # and a number before a part
    with pytest.raises(UsageError, match="fits 2 classes"):
        find_label("fox", LABELS)


def test_channels_and_places_out_of_range_are_named(maps):
    with pytest.raises(UsageError, match="a has 4 channels, 0 to 3: no 4"):
        channel("a", 4).value(maps)
    with pytest.raises(UsageError, match="no place 5,0"):
        neuron("a", 0, (5, 0)).value(maps)
    with pytest.raises(UsageError, match="not 0"):
        direction("a", {0: 0.0})


def test_diversity_is_least_for_equal_pictures(maps):
    equal = {"a": maps["a"][:1].expand(3, -1, -1, -1)}
    torch.testing.assert_close(diversity("a").value(equal), -torch.ones(3))
    assert (diversity("a").value(maps) > -1).all()
    own = channel("a", 0).value(maps)
    expected = own + 2 * own.abs() * diversity("a").value(maps)
    torch.testing.assert_close(diverse(channel("a", 0), "a", 2.0).value(maps), expected)


def test_each_picture_has_its_own_objective(maps):
    objective = each(interpolate(channel("a", 0), channel("a", 1), 3))
    zero, one = parts(maps, 0), parts(maps, 1)
    expected = torch.stack([zero[0], (zero[1] + one[1]) / 2, one[2]])
    torch.testing.assert_close(objective.value(maps), expected)
    with pytest.raises(UsageError, match="at least 2"):
        interpolate(channel("a", 0), channel("a", 1), 1)
