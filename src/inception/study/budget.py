"""Experiment 6: depth and width at equal operations: Inception modules, naive ones, plain stacks, NiN."""

from collections.abc import Callable
from functools import partial

import torch

from inception.nets.complexity import profile
from inception.nets.network import Network, Plan
from inception.nets.registry import build_network
from inception.nets.rows import Conv, Pool, Row, Style
from inception.study.comparison import accuracy_chart, accuracy_table, points, top1_of, verdict_of
from inception.study.experiment import Cell, Experiment, Finding, Options, Report, Say, Text
from inception.study.statistics import difference
from inception.study.trial import SIDE, Recipe, load_images, run_variants, setting

RATE, TARGET_WIDTH = 0.05, 0.375
NAMES = {
    "reduced": Text("Inception, reduced", "Inception（降维）"),
    "naive": Text("Inception, naive", "Inception（朴素）"),
    "plain": Text("plain 3x3 stack, 10 layers", "3×3 堆叠，10 层"),
    "plain, deep": Text("plain 3x3 stack, 18 layers", "3×3 堆叠，18 层"),
    "nin": Text("Network in Network", "Network in Network"),
}

# Simonyan & Zisserman 2015 in small: 3x3 convolutions, the channels doubled at each pool (channels, count).
PLAIN = ((64, 2), (128, 2), (256, 3), (512, 3))
PLAIN_DEEP = ((64, 3), (128, 4), (256, 5), (512, 6))
# Lin et al. 2014, for CIFAR-10: (kernel, channels of the convolution and of the two 1x1 behind it).
NIN = ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192, 192)))


def plain_rows(levels: tuple[tuple[int, int], ...]) -> tuple[Row, ...]:
    """Stacks of 3x3 convolutions with 2x2 pools between them."""
    rows: list[Row] = []
    for level, (channels, count) in enumerate(levels, start=1):
        rows += [Conv(f"conv{level}_{number}", channels, 3) for number in range(1, count + 1)]
        if level < len(levels):
            rows.append(Pool(f"maxpool{level}", 2, 2))
    return tuple(rows)


def nin_rows() -> tuple[Row, ...]:
    """Blocks of a convolution and two 1x1 convolutions, 3x3 pools of stride 2 between them."""
    rows: list[Row] = []
    for block, (kernel, channels) in enumerate(NIN, start=1):
        kernels = (kernel, 1, 1)
        rows += [
            Conv(f"conv{block}_{number}", count, size)
            for number, (count, size) in enumerate(zip(channels, kernels, strict=True), start=1)
        ]
        if block < len(NIN):
            rows.append(Pool(f"maxpool{block}", 3, 2))
    return tuple(rows)


def network(name: str, classes: int, width: float) -> Network:
    """The network called `name`; all have batch norm, average pooling and 20% dropout at the end."""
    if name in ("reduced", "naive"):
        return build_network("googlenet_bn", num_classes=classes, stem="small", width=width, module=name)
    rows = {"plain": plain_rows(PLAIN), "plain, deep": plain_rows(PLAIN_DEEP), "nin": nin_rows()}[name]
    style = Style(batch_norm=True, width=width)
    return Network(Plan(rows, style, dropout=0.2, image_size=SIDE, min_size=8), classes)


def operations(built: Network) -> int:
    """Multiply-adds for one 32x32 image."""
    return sum(cost.multiply_adds for cost in profile(built, SIDE) if not cost.auxiliary)


def width_for(make: Callable[[float], Network], target: int) -> float:
    """The width multiplier with which the network does about `target` multiply-adds.

    Operations grow with the square of the width, or more slowly where layers cannot get thinner: each guess
    is corrected by the square root of what it missed, and the best of them is taken.
    """
    tried: dict[float, int] = {}
    width = 1.0
    with torch.device("meta"):
        for _ in range(9):
            tried[width] = operations(make(width))
            if abs(tried[width] / target - 1) < 0.01:
                break
            width = min(max(width * (target / tried[width]) ** 0.5, 0.01), 4.0)
    return min(tried, key=lambda width: abs(tried[width] - target))


def run(options: Options, say: Say) -> Report:
    """Several seeds of each network."""
    images = load_images(options)
    target = operations(network("reduced", images.classes, TARGET_WIDTH))
    widths = {name: width_for(partial(network, name, images.classes), target) for name in NAMES}

    def make(name: str) -> tuple[Network, Recipe]:
        return network(name, images.classes, widths[name]), Recipe(options.epochs, RATE)

    outcomes = run_variants(NAMES, make, images, options, say)
    return Report(
        findings=_findings(top1_of(outcomes), images.name, len(images.train), target),
        tables=(accuracy_table(NAMES, outcomes, _costs(widths, images.classes)),),
        charts=(accuracy_chart(NAMES, outcomes),),
        seeds=tuple(range(options.seeds)),
        setting=setting(images, options, operations=f"{target:,}"),
    )


def _costs(widths: dict[str, float], classes: int) -> list[tuple[Text, dict[str, Cell]]]:
    built = {name: network(name, classes, width) for name, width in widths.items()}
    parameters = {name: sum(p.numel() for p in item.parameters()) for name, item in built.items()}
    return [
        (
            Text("Operations", "运算"),
            {name: f"{operations(item) / 1e6:.1f}M" for name, item in built.items()},
        ),
        (Text("Parameters", "参数"), {name: f"{count:,}" for name, count in parameters.items()}),
        (Text("Width", "宽度"), {name: f"{width:.3f}" for name, width in widths.items()}),
    ]


def _findings(top1: dict[str, list[float]], data: str, images: int, target: int) -> tuple[Finding, ...]:
    found = []
    for other in ("naive", "plain", "plain, deep", "nin"):
        gain = difference(top1["reduced"], top1[other])
        words = NAMES[other]
        found.append(
            Finding(
                Text(
                    f"At equal operations the reduced module beats: {words.en}",
                    f"同等运算量下，降维模块优于：{words.zh}",
                ),
                verdict_of(gain),
                Text(
                    f"{points(gain)} points of top-1 on {images:,} images of {data}, n = {gain.n} seeds, "
                    f"{target / 1e6:.1f}M multiply-adds each.",
                    f"{data} 的 {images:,} 张图片，Top-1 相差 {points(gain)} 个百分点，{gain.n} 个随机种子，"
                    f"每个网络 {target / 1e6:.1f}M 次乘加。",
                ),
            )
        )
    return tuple(found)


EXPERIMENT = Experiment(
    id="budget",
    title=Text("Depth and width at equal operations", "同等运算量下的深度与宽度"),
    claim=Text(
        "The Inception module allows more depth and width for the same number of operations.",
        "在运算量不变的情况下，Inception 模块可使网络更深、更宽。",
    ),
    cost=Text("about 6 minutes", "约 6 分钟"),
    run=run,
    defaults=Options(data="cifar10", seeds=3, epochs=4, images=2000),
    quick=Options(data="digits", seeds=2, epochs=1, images=64),
)
