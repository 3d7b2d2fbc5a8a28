"""Draws the pictures of the walk-through: python docs/draw_pictures.py [FOLDER]"""

import sys
from pathlib import Path

import torch

from inception.nets.registry import build_network
from inception.study.diagram.block import draw_block
from inception.study.diagram.heads import draw_heads
from inception.study.diagram.network import draw_network
from inception.study.diagram.words import Language

SUFFIXES: dict[Language, str] = {"en": "", "zh": ".zh-CN"}


def pictures(language: Language) -> dict[str, str]:
    """SVG texts by file name without ending."""
    with torch.device("meta"):  # pictures need no weights
        googlenet, naive = build_network("googlenet"), build_network("googlenet", module="naive")
        heads = [build_network(name) for name in ("alexnet", "vgg16", "nin", "googlenet")]
        third, residual = build_network("inception_v3"), build_network("inception_resnet_v2")
    return {
        "googlenet": draw_network(googlenet, language),
        "googlenet-full": draw_network(googlenet, language, full=True),
        "naive": draw_block(naive, "inception3a", language),
        "reduced": draw_block(googlenet, "inception3a", language),
        "heads": draw_heads(heads, language),
        "factorised": draw_block(third, "Mixed_6b", language),
        "residual": draw_block(residual, "Block35", language),
    }


def main(folder: Path) -> None:
    """Write every picture in both languages."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, suffix in SUFFIXES.items():
        for name, svg in pictures(language).items():
            (folder / f"{name}{suffix}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
