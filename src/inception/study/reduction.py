"""Experiment 2: what a 1x1 convolution before a larger one saves: weights, operations, time and memory."""

import torch
from torch import nn

from inception.nets.complexity import endpoint_shapes
from inception.nets.googlenet import TABLE_1
from inception.nets.registry import build_network
from inception.nets.rows import Style
from inception.study.cost import forward_work, median_milliseconds, peak_activation_bytes
from inception.study.experiment import Chart, Experiment, Finding, Options, Report, Say, Series, Table, Text

ROUNDS, QUICK_ROUNDS = 30, 2
NAIVE, REDUCED = Text("naive", "朴素模块"), Text("reduced", "降维模块")


def weights_of(module: nn.Module) -> int:
    """Weights of all convolutions in `module`, biases left out (the paper's way of counting)."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Conv2d))


def multiply_adds(module: nn.Module, side: int) -> int:
    """Multiply-adds of the convolutions of a module that keeps the map at `side` x `side`."""
    return weights_of(module) * side * side


def lecture_example() -> tuple[int, int]:
    """Weights of a 5x5 convolution from 128 to 256 channels, direct and behind a 1x1 to 32 channels."""
    direct = nn.Conv2d(128, 256, 5, bias=False)
    reduced = nn.Sequential(nn.Conv2d(128, 32, 1, bias=False), nn.Conv2d(32, 256, 5, bias=False))
    return weights_of(direct), weights_of(reduced)


def module_pairs() -> dict[str, tuple[nn.Module, nn.Module, tuple[int, int]]]:
    """Each of the nine modules, naive and reduced, with channels and side of its input in GoogLeNet."""
    shapes = endpoint_shapes(build_network("googlenet", aux_logits=False), 224)
    names = list(shapes)
    pairs = {}
    for row in TABLE_1:
        if not row.name.startswith("inception"):
            continue
        channels, side, _ = shapes[names[names.index(row.name) - 1]]
        naive, reduced = (row.build(channels, Style(module=form))[0] for form in ("naive", "reduced"))
        pairs[row.name.removeprefix("inception")] = (naive, reduced, (channels, side))
    return pairs


def run(options: Options, say: Say) -> Report:
    """Measures time, so it wants a quiet machine; nothing else is random."""
    torch.manual_seed(0)
    rows: list[tuple[str, ...]] = []
    times: dict[str, tuple[float, float]] = {}
    totals: list[tuple[int, int, int, int]] = []
    for name, (naive, reduced, (channels, side)) in module_pairs().items():
        say(f"module {name}")
        shape = (1, channels, side, side)
        works = {"naive": forward_work(naive, shape), "reduced": forward_work(reduced, shape)}
        medians = median_milliseconds(works, QUICK_ROUNDS if options.quick else ROUNDS)
        times[name] = (medians["naive"], medians["reduced"])
        counts = (
            weights_of(naive),
            weights_of(reduced),
            multiply_adds(naive, side),
            multiply_adds(reduced, side),
        )
        totals.append(counts)
        memory = [peak_activation_bytes(module, shape) / 2**20 for module in (naive, reduced)]
        rows.append(_row(name, counts, times[name], (memory[0], memory[1])))
    summed = tuple(sum(column) for column in zip(*totals, strict=True))
    whole = _whole_networks()
    return Report(
        findings=_findings(summed, times, whole),
        tables=(_module_table(rows), _whole_table(whole)),
        charts=(_chart(times),),
        setting={
            "rounds": str(QUICK_ROUNDS if options.quick else ROUNDS),
            "batch": "1",
            "precision": "float32",
        },
    )


def _row(
    name: str, counts: tuple[int, ...], times: tuple[float, float], memory: tuple[float, float]
) -> tuple[str, ...]:
    naive_weights, weights, naive_operations, operations = counts
    return (
        name,
        f"{naive_weights:,}",
        f"{weights:,}",
        f"{naive_weights / weights:.2f}×",
        f"{naive_operations / 1e6:.1f}M",
        f"{operations / 1e6:.1f}M",
        f"{times[0]:.2f}",
        f"{times[1]:.2f}",
        f"{times[0] / times[1]:.2f}×",
        f"{memory[0]:.2f}",
        f"{memory[1]:.2f}",
    )


def _whole_networks() -> dict[str, tuple[int, int]]:
    """Convolution weights and last channels of the nine modules feeding each other, naive and reduced."""
    found = {}
    for form in ("naive", "reduced"):
        network = build_network("googlenet", module=form, aux_logits=False)
        modules = [getattr(network, name) for name in network.endpoints if name.startswith("inception")]
        found[form] = (sum(map(weights_of, modules)), network.num_features)
    return found


def _findings(
    summed: tuple[int, ...], times: dict[str, tuple[float, float]], whole: dict[str, tuple[int, int]]
) -> tuple[Finding, ...]:
    direct, reduced = lecture_example()
    saved = summed[2] / summed[3]
    seconds = [sum(column) for column in zip(*times.values(), strict=True)]
    speed = seconds[0] / seconds[1]
    factor = whole["naive"][0] / whole["reduced"][0]
    return (
        Finding(
            Text(
                "5x5 from 128 to 256 channels: 819,200 weights; 204,800 with a 1x1 to 32 channels first",
                "128→256 通道的 5×5 卷积有 819,200 个权重；先用 1×1 降到 32 通道后为 204,800 个",
            ),
            "corrected",
            Text(
                f"{direct:,} is right; the second is {reduced:,} ({direct / reduced:.2f} times fewer): "
                "128×32 weights of the 1x1 itself were left out.",
                f"{direct:,} 正确；后者应为 {reduced:,} 个（少 {direct / reduced:.2f} 倍）："
                "漏数了 1×1 自身的 128×32 个权重。",
            ),
        ),
        Finding(
            Text("1x1 reductions make the modules several times cheaper", "1×1 降维使模块的开销降低数倍"),
            # Time that follows the operations at least half-way: the claim is about both.
            "confirmed" if speed > saved / 2 else "corrected",
            Text(
                f"Over the nine modules together: {saved:.2f} times fewer operations, but measured for one "
                f"image only {speed:.2f} times faster: small convolutions use the processor less well."
                if speed <= saved / 2
                else f"Over the nine modules together: {saved:.2f} times fewer operations; measured, "
                f"{speed:.2f} times faster.",
                f"九个模块合计：运算减少 {saved:.2f} 倍，实测（单张图片）快 {speed:.2f} 倍。",
            ),
        ),
        Finding(
            Text("Naive modules after each other blow up the channels", "朴素模块逐层堆叠会使通道数爆炸"),
            "confirmed",
            Text(
                f"The pooling branch passes all channels on: {whole['naive'][1]:,} at the end instead of "
                f"{whole['reduced'][1]:,}, and {factor:.1f} times the weights.",
                f"池化分支原样传递所有通道：末端 {whole['naive'][1]:,} 个而非 "
                f"{whole['reduced'][1]:,} 个，权重为 {factor:.1f} 倍。",
            ),
        ),
    )


def _module_table(rows: list[tuple[str, ...]]) -> Table:
    def both(english: str, chinese: str) -> tuple[Text, Text]:
        return (
            Text(f"{english}, naive", f"{chinese}（朴素）"),
            Text(f"{english}, reduced", f"{chinese}（降维）"),
        )

    return Table(
        Text(
            "The nine modules on their inputs in GoogLeNet, one image",
            "九个模块（输入同 GoogLeNet，单张图片）",
        ),
        (
            Text("Module", "模块"),
            *both("Weights", "权重"),
            Text("ratio", "比"),
            *both("Operations", "运算"),
            *both("ms", "毫秒"),
            Text("ratio", "比"),
            *both("Peak MiB", "峰值 MiB"),
        ),
        tuple(rows),
    )


def _whole_table(whole: dict[str, tuple[int, int]]) -> Table:
    names = {"naive": NAIVE, "reduced": REDUCED}
    return Table(
        Text("All nine modules, feeding each other", "九个模块首尾相接"),
        (Text("Form", "形式"), Text("Weights", "权重"), Text("Channels at the end", "末端通道数")),
        tuple((names[form], f"{weights:,}", f"{channels:,}") for form, (weights, channels) in whole.items()),
    )


def _chart(times: dict[str, tuple[float, float]]) -> Chart:
    naive, reduced = zip(*times.values(), strict=True)
    return Chart(
        "bars",
        Text("Median time of a forward pass", "前向计算时间中位数"),
        Text("milliseconds, batch 1", "毫秒，批量 1"),
        (Series(NAIVE, naive), Series(REDUCED, reduced)),
        tuple(times),
    )


EXPERIMENT = Experiment(
    id="reduction",
    title=Text("The 1x1 reduction", "1×1 降维"),
    claim=Text(
        "A 1x1 convolution before the 3x3 and 5x5 ones divides their cost by about four.",
        "在 3×3 与 5×5 卷积之前加 1×1 卷积，开销约为原来的四分之一。",
    ),
    cost=Text("about 20 seconds", "约 20 秒"),
    run=run,
)
