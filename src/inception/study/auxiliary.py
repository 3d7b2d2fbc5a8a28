"""Experiment 3: auxiliary heads: the gradient that reaches the early layers, and the accuracy."""

import torch

from inception.nets.heads import AuxiliaryHead
from inception.nets.network import Network, initialize
from inception.nets.registry import build_network
from inception.nets.rows import Style
from inception.study.comparison import accuracy_chart, accuracy_table, points, top1_of, verdict_of
from inception.study.experiment import (
    Chart,
    Experiment,
    Finding,
    Options,
    Report,
    Say,
    Series,
    Table,
    Text,
)
from inception.study.statistics import Estimate, difference, estimate
from inception.study.trial import Images, Outcome, Recipe, load_images, setting, train

WIDTH, RATE = 0.25, 0.02
STAGES = ("conv1", "conv3", "inception3a", "inception3b", "inception4a", "inception4d", "inception5b")
WATCHED = ("conv1", "inception3a")
EARLY = STAGES[:4]
EVERY = 4
"""The gradient is measured every so many steps."""

NAMES = {
    "none": Text("no heads", "无辅助分类器"),
    "4a, 4d": Text("4a and 4d, dropout 70%", "4a 与 4d，dropout 70%"),
    "30%": Text("4a and 4d, dropout 30%", "4a 与 4d，dropout 30%"),
    "4a, 4b": Text("4a and 4b, dropout 70%", "4a 与 4b，dropout 70%"),
}

Norms = dict[str, list[tuple[float, float]]]
"""For each stage: (epochs done, norm of the gradient of its parameters)."""


def network(name: str, classes: int, width: float = WIDTH) -> Network:
    """The small plain GoogLeNet (no batch norm) with the heads called `name`.

    Networks made after the same `torch.manual_seed` start from the same convolutions.
    """
    built = build_network(
        "googlenet",
        num_classes=classes,
        stem="small",
        width=width,
        aux_dropout=0.3 if name == "30%" else 0.7,
    )
    if name == "none":
        # Taken off rather than left out: the fresh weights of the rest then are the same.
        built.remove_auxiliary_heads()
    if name == "4a, 4b":
        move_second_head(built, "inception4b", width)
    return built


def move_second_head(built: Network, stage: str, width: float) -> None:
    """Put a fresh second auxiliary head on `stage` instead of 4d."""
    channels = next(item.shape[0] for item in _biases(built, stage))
    head = AuxiliaryHead(channels, built.num_classes, Style(width=width), "5/3", 0.7)
    initialize(head)
    built.aux2 = head
    built.aux_taps = {**built.aux_taps, "aux2": stage}


def _biases(built: Network, stage: str) -> list[torch.Tensor]:
    """One tensor with as many entries as `stage` gives channels."""
    with torch.no_grad():
        probe = torch.zeros(1, built.in_chans, built.image_size, built.image_size)
        return [built.eval().forward_endpoints(probe, [stage])[stage][0, :, 0, 0]]


def gradient_norm(built: Network, stage: str) -> float:
    """Euclidean norm of the gradient of all parameters of `stage`."""
    gradients = [p.grad for p in built.get_submodule(stage).parameters() if p.grad is not None]
    return float(torch.stack([gradient.float().norm() for gradient in gradients]).norm())


def _train_watched(name: str, images: Images, options: Options, seed: int) -> tuple[Outcome, Norms]:
    torch.manual_seed(seed)
    built = network(name, images.classes)
    norms: Norms = {stage: [] for stage in STAGES}
    steps = 0

    def watch(live: Network, epochs: float) -> None:
        nonlocal steps
        if steps % EVERY == 0:
            for stage, values in norms.items():
                values.append((epochs, gradient_norm(live, stage)))
        steps += 1

    outcome = train(built, images, Recipe(options.epochs, RATE), seed, options.device, watch)
    return outcome, norms


def run(options: Options, say: Say) -> Report:
    """Every kind of heads with every seed, the gradients watched."""
    images = load_images(options)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in NAMES}
    norms: dict[str, list[Norms]] = {name: [] for name in NAMES}
    for seed in range(options.seeds):
        for name in NAMES:
            outcome, found = _train_watched(name, images, options, seed)
            outcomes[name].append(outcome)
            norms[name].append(found)
            say(f"seed {seed}, {name}: {100 * outcome.top1:.1f}% in {outcome.seconds:.0f} s")
    top1 = top1_of(outcomes)
    against = {name: points(difference(values, top1["none"])) for name, values in top1.items()}
    return Report(
        findings=_findings(top1, norms, images),
        tables=(
            accuracy_table(NAMES, outcomes, [(Text("Against none", "相对无"), against)]),
            _gradient_table(norms),
        ),
        charts=(*(_gradient_chart(norms, stage) for stage in WATCHED), accuracy_chart(NAMES, outcomes)),
        seeds=tuple(range(options.seeds)),
        setting=setting(images, options, network=f"googlenet, small stem, width {WIDTH}"),
    )


def mean_norm(runs: list[Norms], stage: str, part: tuple[float, float] = (0.0, 1.0)) -> list[float]:
    """Per seed the mean gradient norm of `stage` over a part of training, given as fractions of it."""
    means = []
    for norms in runs:
        values = [norm for _, norm in norms[stage]]
        start = int(part[0] * len(values))
        chosen = values[start : max(int(part[1] * len(values)), start + 1)]
        means.append(sum(chosen) / len(chosen))
    return means


def early_ratio(norms: dict[str, list[Norms]], part: tuple[float, float]) -> Estimate:
    """Gradient norm of the early stages with heads over that without, by seed, over a part of training."""
    ratios = []
    for seed in range(len(norms["none"])):
        of_stages = [
            mean_norm(norms["4a, 4d"], stage, part)[seed] / mean_norm(norms["none"], stage, part)[seed]
            for stage in EARLY
        ]
        ratios.append(sum(of_stages) / len(of_stages))
    return estimate(ratios)


def _findings(
    top1: dict[str, list[float]], norms: dict[str, list[Norms]], images: Images
) -> tuple[Finding, ...]:
    start, end = early_ratio(norms, (0.0, 0.1)), early_ratio(norms, (0.5, 1.0))
    gain = difference(top1["4a, 4d"], top1["none"])
    dropout = difference(top1["4a, 4d"], top1["30%"])
    where = difference(top1["4a, 4d"], top1["4a, 4b"])
    larger = start.low > 1 or end.low > 1
    return (
        Finding(
            Text("Auxiliary heads bring gradient to the early layers", "辅助分类器把梯度带到浅层"),
            "confirmed"
            if larger
            else "corrected"
            if max(start.high, end.high) < 1
            else "not reproducible here",
            Text(
                f"Norm of the early stages' gradients with heads over without: {_times(start)} in "
                "the first tenth "
                f"of training, {_times(end)} in its second half.",
                f"浅层梯度范数（有辅助分类器 / 无）：训练的前十分之一为 {_times(start)}，后半段为 "
                f"{_times(end)}。",
            ),
        ),
        Finding(
            Text("They raise the accuracy of the network", "辅助分类器提高网络的准确率"),
            verdict_of(gain),
            Text(
                f"With against without, on {len(images.train):,} images of {images.name}: "
                f"{points(gain)} points, "
                f"n = {gain.n} seeds. Szegedy et al. 2016 themselves found the effect small and late.",
                f"有与无相比，{images.name} 的 {len(images.train):,} 张图片：{points(gain)} "
                f"个百分点，{gain.n} 个随机种子。"
                "Szegedy 等人 2016 年也发现其作用小且出现得晚。",
            ),
        ),
        Finding(
            Text("The heads stand on 4a and 4b", "辅助分类器位于 4a 与 4b"),
            "corrected",
            Text(
                "On 4a and 4d: the paper's text says so, and only 4d gives the 528 channels it names. "
                f"4d against 4b here: {points(where)} points.",
                "应为 4a 与 4d：论文正文如此，且只有 4d 输出它所说的 528 个通道。此处 4d 与 4b "
                f"相比：{points(where)} 个百分点。",
            ),
        ),
        Finding(
            Text("Their dropout is 30%", "其 dropout 为 30%"),
            "corrected",
            Text(
                f"70% of the outputs are dropped. 70% against 30% here: {points(dropout)} points.",
                f"丢弃 70% 的输出。此处 70% 与 30% 相比：{points(dropout)} 个百分点。",
            ),
        ),
    )


def _times(ratio: Estimate) -> str:
    ends = f" ({ratio.low:.2f} … {ratio.high:.2f})" if ratio.n > 1 else ""
    return f"{ratio.mean:.2f}{ends}"


def _gradient_table(norms: dict[str, list[Norms]]) -> Table:
    parts = {"first 10%": (0.0, 0.1), "second half": (0.5, 1.0)}
    heads = [
        Text(f"{words.en}, {part}", f"{words.zh}，{'前 10%' if part.startswith('first') else '后半段'}")
        for part in parts
        for words in (NAMES["none"], NAMES["4a, 4d"])
    ]
    return Table(
        Text("Mean norm of the gradient by stage", "各级梯度范数均值"),
        (Text("Stage", "级"), *heads),
        tuple(
            (
                stage,
                *(
                    f"{estimate(mean_norm(norms[name], stage, part)).mean:.4f}"
                    for part in parts.values()
                    for name in ("none", "4a, 4d")
                ),
            )
            for stage in STAGES
        ),
    )


def _gradient_chart(norms: dict[str, list[Norms]], stage: str) -> Chart:
    series = []
    for name in ("none", "4a, 4d"):
        runs = [found[stage] for found in norms[name]]
        columns = list(zip(*runs, strict=True))
        at = tuple(column[0][0] for column in columns)
        means = tuple(sum(norm for _, norm in column) / len(column) for column in columns)
        series.append(Series(NAMES[name], means, at=at))
    return Chart(
        "lines",
        Text(f"Gradient norm at {stage}, mean over seeds", f"{stage} 处的梯度范数（各种子均值）"),
        Text("norm", "范数"),
        tuple(series),
        place=Text("epochs", "轮次"),
        logarithmic=True,
    )


EXPERIMENT = Experiment(
    id="auxiliary",
    title=Text("Auxiliary heads", "辅助分类器"),
    claim=Text(
        "Two auxiliary heads on 4a and 4b, with 30% dropout, fight vanishing gradients and regularise.",
        "4a 与 4b 上的两个辅助分类器（dropout 30%）可缓解梯度消失并起正则化作用。",
    ),
    cost=Text("about 5 minutes", "约 5 分钟"),
    run=run,
    defaults=Options(data="digits", seeds=4, epochs=8, images=1200),
    quick=Options(data="digits", seeds=2, epochs=1, images=64),
)
