"""Diagrams: what stands in them, and that nothing lies on anything else."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from inception.errors import UsageError
from inception.nets.registry import build_network, list_models
from inception.study.diagram.block import draw_block
from inception.study.diagram.heads import draw_heads
from inception.study.diagram.network import draw_network
from inception.study.diagram.svg import text_width

SVG = "{http://www.w3.org/2000/svg}"
DOCS = Path(__file__).resolve().parents[3] / "docs"


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other: "Box") -> bool:
        return (
            self.left <= other.left + 0.1
            and self.top <= other.top + 0.1
            and self.right >= other.right - 0.1
            and self.bottom >= other.bottom - 0.1
        )

    def touches(self, other: "Box") -> bool:
        return (
            self.left < other.right - 0.1
            and other.left < self.right - 0.1
            and self.top < other.bottom - 0.1
            and other.top < self.bottom - 0.1
        )


def network(name: str, **arguments):
    with torch.device("meta"):
        return build_network(name, **arguments)


def boxes_of(svg: str) -> tuple[Box, list[Box], list[Box]]:
    """The background, all boxes, and the places of all texts."""
    root = ET.fromstring(svg)
    boxes = []
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        boxes.append(Box(x, y, x + width, y + height))
    texts = []
    for text in root.iter(f"{SVG}text"):
        size, x, y = (float(text.get(key)) for key in ("font-size", "x", "y"))
        width = text_width(text.text, size)
        left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor")]
        texts.append(Box(left, y - 0.75 * size, left + width, y + 0.2 * size))
    return boxes[0], boxes[1:], texts


def words_of(svg: str) -> list[str]:
    return [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]


def assert_tidy(svg: str) -> None:
    sheet, boxes, texts = boxes_of(svg)
    assert all(sheet.holds(box) for box in (*boxes, *texts))
    for first, second in combinations(boxes, 2):
        assert not first.touches(second) or first.holds(second) or second.holds(first), (first, second)
    for text in texts:
        for box in boxes:
            assert not box.touches(text) or box.holds(text), (text, box)
    for first, second in combinations(texts, 2):
        assert not first.touches(second), (first, second)


IN_CHINESE = ("googlenet", "inception_v3", "inception_resnet_v2", "alexnet")


@pytest.mark.parametrize(
    ("name", "language"), [*((name, "en") for name in list_models()), *((name, "zh") for name in IN_CHINESE)]
)
def test_every_network_is_drawn_without_overlap(name, language):
    built = network(name)
    assert_tidy(draw_network(built, language))
    assert_tidy(draw_network(built, language, full=True))


STAGES = {
    "googlenet": "conv1 maxpool1 norm1 inception3a inception5b",
    "inception_v2": "inception3a inception3c inception5b",
    "inception_v3": "Mixed_5b Mixed_6a Mixed_6b Mixed_7a Mixed_7b",
    "inception_v4": "Mixed_3a Mixed_4a Mixed_5a Mixed_5b Mixed_6a Mixed_7a Mixed_7b",
    "inception_resnet_v2": "Mixed_5b Block35 Mixed_6a PreAuxLogits Mixed_7a Block8",
}


@pytest.mark.parametrize(("name", "stages"), STAGES.items())
def test_every_kind_of_stage_is_drawn_without_overlap(name, stages):
    built = network(name)
    for stage in stages.split():
        assert_tidy(draw_block(built, stage))


def test_reduced_module_is_figure_2b():
    words = words_of(draw_block(network("googlenet"), "inception3a"))
    assert words.count("1×1 convolution") == 4
    assert {"3×3 convolution", "5×5 convolution", "3×3 max pool", "filter concatenation"} <= set(words)
    assert {
        "64 channels",
        "96 channels",
        "128 channels",
        "16 channels",
        "32 channels",
        "256 channels",
    } <= set(words)
    assert "googlenet · inception3a · 28×28×256" in words


def test_naive_module_is_figure_2a():
    words = words_of(draw_block(network("googlenet", module="naive"), "inception3a"))
    assert words.count("1×1 convolution") == 1
    assert "416 channels" in words


def test_other_tools_names_are_understood():
    assert draw_block(network("googlenet"), "mixed4a") == draw_block(network("googlenet"), "inception4a")
    with pytest.raises(UsageError, match="did you mean inception"):
        draw_block(network("googlenet"), "inception4x")


def test_googlenet_has_both_heads_and_every_layer():
    slide, full = (words_of(draw_network(network("googlenet"), full=full)) for full in (False, True))
    assert slide.count("auxiliary classifier") == full.count("auxiliary classifier") == 2
    assert {"average pool 5×5/3 4×4×512", "average pool 5×5/3 4×4×528"} <= set(slide)
    assert sum("dropout 70%" in text for text in slide) == 2
    convolutions = [text for text in full if text.endswith("convolution")]
    assert len(convolutions) == 57 + 2
    assert full.count("filter concatenation") == 9
    assert full.count("softmax") == 3


def test_chinese_labels():
    words = words_of(draw_block(network("googlenet"), "inception3a", "zh"))
    assert {"通道拼接", "上一层", "3×3 卷积"} <= set(words)


def test_heads_say_where_the_parameters_are():
    svg = draw_heads([network(name) for name in ("alexnet", "vgg16", "nin", "googlenet")])
    assert_tidy(svg)
    words = words_of(svg)
    assert "58.6M of 61.0M parameters (96%)" in words
    assert "123.6M of 138.4M parameters (89%)" in words
    assert "1.0M of 7.0M parameters (15%)" in words
    assert words.count("global average pool") == 2


def test_drawing_leaves_the_network_as_it_is():
    built = build_network("googlenet", num_classes=3, width=0.1).train()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    draw_network(built)
    draw_block(built, "inception3a")
    assert built.training
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_pictures_of_the_walkthrough_are_current(tmp_path):
    subprocess.run([sys.executable, DOCS / "draw_pictures.py", tmp_path], check=True, capture_output=True)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "pictures").iterdir()}
    assert drawn.keys() == kept.keys()
    assert [name for name in drawn if drawn[name] != kept[name]] == []
