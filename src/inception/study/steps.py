"""Experiment 8: each change of V3 and Inception-ResNet taken back alone: its cost, and what it brings."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from inception.nets.architecture import build
from inception.nets.blocks import Branch, Mixed, Part, Residual
from inception.nets.complexity import profile
from inception.nets.heads import ConvolutionalAuxiliaryHead
from inception.nets.network import Network, initialize
from inception.nets.registry import ARCHITECTURES
from inception.nets.rows import Conv, Pool, Row, Style
from inception.study.comparison import accuracy_chart, accuracy_table, points, top1_of, verdict_of
from inception.study.experiment import Cell, Experiment, Finding, Options, Report, Say, Text, Verdict
from inception.study.statistics import Estimate, difference
from inception.study.trial import Recipe, load_images, run_variants, setting

WIDTH, RATE = 0.2, 0.05
NO_LOSS = 0.02
"""A saving costs no accuracy when the interval of the difference stays above minus this."""

Rows = tuple[Row, ...]


def whole_7x7(rows: Rows) -> Rows:
    """Every 1x7 followed by a 7x1 (or the other way round) as one 7x7."""

    def merged(branch: Branch) -> list[Part]:
        parts: list[Part] = []
        for part in branch:
            before = parts[-1] if parts else None
            flat = isinstance(part, Conv) and isinstance(before, Conv)
            if flat and {part.kernel, before.kernel} == {(1, 7), (7, 1)}:  # type: ignore[union-attr]
                parts[-1] = replace(part, kernel=7)  # type: ignore[arg-type]
            else:
                parts.append(part)
        return parts

    return _with_branches(rows, merged)


def two_3x3(rows: Rows) -> Rows:
    """Every 5x5 as two 3x3 of its channels."""

    def split(branch: Branch) -> list[Part]:
        parts: list[Part] = []
        for part in branch:
            if isinstance(part, Conv) and part.kernel == 5:
                parts.append(replace(part, name=f"{part.name}_first", kernel=3))
                parts.append(replace(part, kernel=3))
            else:
                parts.append(part)
        return parts

    return _with_branches(rows, split)


def _with_branches(rows: Rows, change: Callable[[Branch], Branch]) -> Rows:
    return tuple(
        replace(row, branches=tuple(map(change, row.branches))) if isinstance(row, Mixed) else row
        for row in rows
    )


def pool_first(rows: Rows) -> Rows:
    """Each grid reduction as a pool, then the module at stride 1 (Szegedy et al. 2016, Figure 9, left)."""
    return _reductions(rows, lambda name, module: (Pool(f"{name}_pool", 3, stride=2), module))


def convolve_first(rows: Rows) -> Rows:
    """Each grid reduction as the module at stride 1, then a pool (Figure 9, right)."""
    return _reductions(
        rows, lambda name, module: (replace(module, name=f"{name}_module"), Pool(name, 3, stride=2))
    )


def _reductions(rows: Rows, order: Callable[[str, Mixed], Rows]) -> Rows:
    result: list[Row] = []
    for row in rows:
        if isinstance(row, Mixed) and row.stride == 2:
            module = replace(row, branches=tuple(map(_undivided, row.branches)), stride=1)
            result += order(row.name, module)
        else:
            result.append(row)
    return tuple(result)


def _undivided(branch: Branch) -> list[Part]:
    return [
        part if not isinstance(part, Conv | Pool) else replace(part, stride=1, pad=None) for part in branch
    ]


def unscaled(rows: Rows) -> Rows:
    """Residual blocks whose branches are added as they are."""
    return tuple(replace(row, scale=1.0) if isinstance(row, Residual) else row for row in rows)


def _unchanged(rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True)
class Variant:
    """A network with or without one change.

    Attributes:
        name: as shown.
        network: the network whose table is taken.
        rows: what is done to its table.
        auxiliary: its auxiliary head.
        smoothing: label smoothing it trains with.
    """

    name: Text
    network: str = "inception_v3"
    rows: Callable[[Rows], Rows] = _unchanged
    auxiliary: Literal["none", "plain", "normalised"] = "none"
    smoothing: float = 0.0

    def build(self, **arguments: Any) -> Network:
        """The network with fresh weights."""
        table = ARCHITECTURES[self.network]
        table = replace(table, rows=self.rows(table.rows))
        built = build(table, aux_logits=self.auxiliary != "none", **arguments)
        if self.auxiliary == "plain":
            normalised = built.get_submodule("aux1.conv0.conv")
            style = replace(Style(), width=arguments.get("width", 1.0), padding="floor")
            built.aux1 = ConvolutionalAuxiliaryHead(normalised.in_channels, built.num_classes, style)  # type: ignore[arg-type]
            initialize(built.aux1)
        return built


VARIANTS = {
    "v3": Variant(Text("V3", "V3")),
    "7x7": Variant(Text("V3, whole 7x7", "V3，完整 7×7"), rows=whole_7x7),
    "3x3": Variant(Text("V3, two 3x3 for 5x5", "V3，两个 3×3 代替 5×5"), rows=two_3x3),
    "pool first": Variant(Text("V3, pools before modules", "V3，先池化"), rows=pool_first),
    "convolve first": Variant(Text("V3, pools after modules", "V3，后池化"), rows=convolve_first),
    "plain head": Variant(Text("V3, plain auxiliary head", "V3，普通辅助分类器"), auxiliary="plain"),
    "bn head": Variant(Text("V3, BN auxiliary head", "V3，BN 辅助分类器"), auxiliary="normalised"),
    "smooth": Variant(Text("V3, label smoothing", "V3，标签平滑"), smoothing=0.1),
    "scaled": Variant(Text("Inception-ResNet-v2", "Inception-ResNet-v2"), "inception_resnet_v2"),
    "unscaled": Variant(
        Text("Inception-ResNet-v2, unscaled", "Inception-ResNet-v2，无缩放"), "inception_resnet_v2", unscaled
    ),
}


@dataclass(frozen=True)
class Change:
    """A claim about a pair of variants: the first is more accurate, or `cheaper` without loss."""

    claim: Text
    new: str
    old: str
    cheaper: bool = False


CHANGES = (
    Change(
        Text("1x7 and 7x1 save operations against 7x7, at no loss", "1×7 与 7×1 代替 7×7：省运算而无损失"),
        "v3",
        "7x7",
        cheaper=True,
    ),
    Change(
        Text("Two 3x3 save operations against 5x5, at no loss", "两个 3×3 代替 5×5：省运算而无损失"),
        "3x3",
        "v3",
        cheaper=True,
    ),
    Change(
        Text(
            "Parallel grid reduction: cheaper than pooling last, at no loss",
            "并行网格缩减：比后池化省，且无损失",
        ),
        "v3",
        "convolve first",
        cheaper=True,
    ),
    Change(
        Text(
            "Parallel grid reduction: no bottleneck, better than pooling first",
            "并行网格缩减：无瓶颈，优于先池化",
        ),
        "v3",
        "pool first",
    ),
    Change(
        Text("Batch norm in the auxiliary head raises the accuracy", "辅助分类器加批归一化提高准确率"),
        "bn head",
        "plain head",
    ),
    Change(Text("Label smoothing raises V3's accuracy", "标签平滑提高 V3 的准确率"), "smooth", "v3"),
    Change(
        Text("Scaled residuals train better than unscaled", "缩放残差比不缩放训练得更好"),
        "scaled",
        "unscaled",
    ),
)


def full_costs() -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of each variant at full size, auxiliary heads left out."""
    found = {}
    for name, variant in VARIANTS.items():
        with torch.device("meta"):
            built = variant.build()
        layers = [cost for cost in profile(built, built.image_size) if not cost.auxiliary]
        found[name] = (sum(cost.parameters for cost in layers), sum(cost.multiply_adds for cost in layers))
    return found


def run(options: Options, say: Say) -> Report:
    """Costs at full size, then several seeds of each variant at a small one."""
    say("counting the variants at full size")
    full = full_costs()
    images = load_images(options)

    def make(name: str) -> tuple[Network, Recipe]:
        variant = VARIANTS[name]
        built = variant.build(stem="small", width=WIDTH, num_classes=images.classes)
        return built, Recipe(options.epochs, RATE, label_smoothing=variant.smoothing)

    outcomes = run_variants(VARIANTS, make, images, options, say)
    top1 = top1_of(outcomes)
    names = {name: variant.name for name, variant in VARIANTS.items()}
    columns: list[tuple[Text, dict[str, Cell]]] = [
        (Text("Parameters, full size", "参数（完整尺寸）"), {n: f"{p:,}" for n, (p, _) in full.items()}),
        (Text("Multiply-adds", "乘加"), {n: f"{m / 1e6:,.0f}M" for n, (_, m) in full.items()}),
    ]
    return Report(
        findings=tuple(
            _finding(change, full, difference(top1[change.new], top1[change.old]), images.name)
            for change in CHANGES
        ),
        tables=(accuracy_table(names, outcomes, columns),),
        charts=(accuracy_chart(names, outcomes),),
        seeds=tuple(range(options.seeds)),
        setting=setting(images, options, network=f"small stem, width {WIDTH}"),
    )


def _finding(change: Change, full: dict[str, tuple[int, int]], gain: Estimate, data: str) -> Finding:
    new, old = full[change.new][1], full[change.old][1]
    cost = Text("The same operations", "运算相同")
    if new != old:
        percent = f"{100 * (new / old - 1):+.1f}%"
        cost = Text(f"{percent} operations at full size", f"完整尺寸下运算 {percent}")
    return Finding(
        change.claim,
        _saving(new < old, gain) if change.cheaper else verdict_of(gain),
        Text(
            f"{cost.en}; top-1 on {data} {points(gain)} points, n = {gain.n} seeds.",
            f"{cost.zh}；{data} 上 Top-1 {points(gain)} 个百分点，{gain.n} 个随机种子。",
        ),
    )


def _saving(fewer: bool, gain: Estimate) -> Verdict:
    """A saving without loss: fewer operations, and the interval of the difference above a small loss."""
    if not fewer or gain.high < 0:
        return "corrected"
    return "confirmed" if gain.low > -NO_LOSS else "not reproducible here"


EXPERIMENT = Experiment(
    id="steps",
    title=Text("Each change of V3 and Inception-ResNet alone", "V3 与 Inception-ResNet 的每项改动"),
    claim=Text(
        "Factorised convolutions, parallel grid reduction, batch norm in the auxiliary head, label smoothing "
        "and scaled residuals each save operations or raise the accuracy.",
        "卷积分解、并行网格缩减、辅助分类器的批归一化、标签平滑与残差缩放，各自节省运算或提高准确率。",
    ),
    cost=Text("about 8 minutes", "约 8 分钟"),
    run=run,
    defaults=Options(data="digits", seeds=3, epochs=5, images=1000),
    quick=Options(data="digits", seeds=2, epochs=1, images=64),
)
