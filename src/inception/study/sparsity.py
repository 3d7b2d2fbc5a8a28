"""Experiment 5: sparse convolutions of equal operations against the dense Inception module, in time.

A 3x3 convolution with as many input and output channels as the module is thinned until it does as many
multiply-adds as the module. All its forms see the same unfolded input (9 x channels rows):

- `blocks gathered`: per block of output channels the chosen blocks of rows are gathered, then multiplied;
- `block-sparse matrix`: PyTorch's BSR matrix;
- `scattered weights`: PyTorch's CSR matrix, single weights anywhere.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inception.runtime.timing import Work
from inception.study.cost import forward_work, median_milliseconds
from inception.study.experiment import Chart, Experiment, Finding, Options, Report, Say, Series, Table, Text
from inception.study.reduction import module_pairs, multiply_adds

BLOCK = 16
ROUNDS, QUICK_ROUNDS = 30, 2
MODULES, QUICK_MODULES = ("3b", "4a", "4e", "5b"), ("5b",)
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Shares of nonzero weights at which the scattered form is timed against the dense product."""

FORMS = {
    "module": Text("Inception module, dense", "Inception 模块（稠密）"),
    "gathered": Text("blocks gathered", "按块收集"),
    "block matrix": Text("block-sparse matrix", "块稀疏矩阵"),
    "scattered": Text("scattered weights", "非结构化稀疏"),
}


@dataclass(frozen=True)
class BlockWeights:
    """A block-sparse matrix.

    Attributes:
        chosen: int64 G x R, which blocks of columns each of G blocks of rows uses.
        values: float32 G x BLOCK x (R * BLOCK), the weights of those blocks side by side.
        columns: of the whole matrix.
    """

    chosen: Tensor
    values: Tensor
    columns: int

    def dense(self) -> Tensor:
        """The whole matrix, float32 (G * BLOCK) x columns."""
        groups, used = self.chosen.shape
        whole = torch.zeros(groups, BLOCK, self.columns // BLOCK, BLOCK)
        blocks = self.values.view(groups, BLOCK, used, BLOCK)
        for group in range(groups):
            whole[group][:, self.chosen[group]] = blocks[group]
        return whole.view(groups * BLOCK, self.columns)


def block_weights(channels: int, share: float) -> BlockWeights:
    """Random weights of a 3x3 convolution channels -> channels with this share of its blocks kept."""
    groups, columns = channels // BLOCK, 9 * channels
    used = max(round(share * columns / BLOCK), 1)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.stack(
        [torch.randperm(columns // BLOCK, generator=generator)[:used].sort().values for _ in range(groups)]
    )
    values = torch.randn(groups, BLOCK, used * BLOCK, generator=generator)
    return BlockWeights(chosen, values, columns)


def gathered_product(weights: BlockWeights, rows: Tensor) -> Tensor:
    """`weights` times `rows` (float32 columns x P): float32 (G * BLOCK) x P."""
    blocks = rows.view(-1, BLOCK, rows.shape[1])
    picked = blocks[weights.chosen].flatten(1, 2)
    return torch.bmm(weights.values, picked).flatten(0, 1)


def scattered_weights(rows: int, columns: int, share: float) -> Tensor:
    """Random CSR matrix with this share of nonzero weights, float32."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(rows, columns, generator=generator)
    return (dense * (torch.rand(rows, columns, generator=generator) < share)).to_sparse_csr()


def convolution_work(channels: int, side: int, product: Callable[[Tensor], Tensor]) -> Work:
    """A 3x3 convolution of one image as `product` over its unfolded input."""
    x = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))

    def work() -> None:
        with torch.inference_mode():
            product(F.unfold(x, 3, padding=1)[0])

    return work


def run(options: Options, say: Say) -> Report:
    """Measures time, so it wants a quiet machine; nothing else is random."""
    torch.manual_seed(0)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    times: dict[str, dict[str, float]] = {}
    shares: dict[str, float] = {}
    pairs = module_pairs()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (BSR|CSR) tensor support is in beta")
        for name in QUICK_MODULES if options.quick else MODULES:
            say(f"module {name}")
            _, module, (channels, side) = pairs[name]
            shares[name] = multiply_adds(module, side) / (9 * channels * channels * side * side)
            works = _works(channels, side, shares[name])
            works["module"] = forward_work(module, (1, channels, side, side))
            times[name] = median_milliseconds(works, rounds)
        say("scattered weights against a dense product")
        curve = _density_curve(rounds, (1.0, 0.1) if options.quick else SHARES)
    return Report(
        findings=_findings(times, curve),
        tables=(_table(times, shares), _curve_table(curve)),
        charts=(_bars(times), _curve_chart(curve)),
        setting={"rounds": str(rounds), "block": f"{BLOCK}×{BLOCK}", "precision": "float32"},
    )


def _works(channels: int, side: int, share: float) -> dict[str, Work]:
    weights = block_weights(channels, share)
    block_matrix = weights.dense().to_sparse_bsr((BLOCK, BLOCK))
    scattered = scattered_weights(channels, 9 * channels, share)
    return {
        "gathered": convolution_work(channels, side, lambda rows: gathered_product(weights, rows)),
        "block matrix": convolution_work(channels, side, lambda rows: block_matrix @ rows),
        "scattered": convolution_work(channels, side, lambda rows: scattered @ rows),
    }


def _density_curve(rounds: int, shares: tuple[float, ...]) -> dict[float, float]:
    """Time of a CSR product over that of the dense one, by share of nonzeros (512 x 4608 by 4608 x 196)."""
    rows = torch.randn(4608, 196, generator=torch.Generator().manual_seed(0))
    dense = torch.randn(512, 4608, generator=torch.Generator().manual_seed(1))
    matrices = {share: scattered_weights(512, 4608, share) for share in shares}
    works: dict[str, Work] = {"dense": lambda: dense @ rows}
    for share, matrix in matrices.items():
        works[str(share)] = lambda matrix=matrix: matrix @ rows  # type: ignore[misc]
    medians = median_milliseconds(works, rounds)
    return {share: medians[str(share)] / medians["dense"] for share in shares}


def _findings(times: dict[str, dict[str, float]], curve: dict[float, float]) -> tuple[Finding, ...]:
    ratios = {form: _total(times, form) / _total(times, "module") for form in FORMS if form != "module"}
    best = min(ratios, key=ratios.__getitem__)
    text = ", ".join(f"{FORMS[form].en} {ratio:.1f}×" for form, ratio in ratios.items())
    chinese = "，".join(f"{FORMS[form].zh} {ratio:.1f} 倍" for form, ratio in ratios.items())
    winning = [share for share, ratio in curve.items() if ratio < 1]
    even = max(winning) if winning else None
    least = min(curve)
    return (
        Finding(
            Text(
                "Hardware is built for dense products: dense branches beat a sparse layer of "
                "equal operations",
                "硬件为稠密计算而设计：同等运算量下，稠密分支快于稀疏层",
            ),
            "confirmed" if ratios[best] > 1 else "corrected",
            Text(
                f"Time against the module at equal operations: {text}.",
                f"同等运算量下相对模块的时间：{chinese}。",
            ),
        ),
        Finding(
            Text(
                "Even 100 times fewer operations would not pay for the overhead of sparse lookups",
                "即使运算减少 100 倍，稀疏查找的额外开销也得不偿失",
            ),
            "corrected" if even is not None else "confirmed",
            Text(
                f"On this processor scattered weights win from about {1 / even:.0f} times fewer "
                "operations on; with "
                f"{1 / least:.0f} times fewer the product takes {curve[least]:.2f} of the dense time."
                if even is not None
                else f"Even with {1 / least:.0f} times fewer operations the product takes "
                f"{curve[least]:.2f} times as long.",
                f"在本机处理器上，运算减少约 {1 / even:.0f} 倍时稀疏开始占优；减少 "
                f"{1 / least:.0f} 倍时耗时为稠密的 {curve[least]:.2f}。"
                if even is not None
                else f"即使运算减少 {1 / least:.0f} 倍，耗时仍为稠密的 {curve[least]:.2f} 倍。",
            ),
        ),
    )


def _total(times: dict[str, dict[str, float]], form: str) -> float:
    return sum(row[form] for row in times.values())


def _table(times: dict[str, dict[str, float]], shares: dict[str, float]) -> Table:
    return Table(
        Text("Equal operations, one image: milliseconds", "同等运算量，单张图片：毫秒"),
        (Text("Module", "模块"), Text("Weights kept", "保留的权重"), *FORMS.values()),
        tuple(
            (name, f"{100 * shares[name]:.1f}%", *(f"{row[form]:.2f}" for form in FORMS))
            for name, row in times.items()
        ),
    )


def _curve_table(curve: dict[float, float]) -> Table:
    return Table(
        Text("Scattered weights against the dense product", "非结构化稀疏与稠密乘积之比"),
        (Text("Weights kept", "保留的权重"), Text("Operations saved", "节省运算"), Text("Time", "耗时")),
        tuple((f"{100 * share:g}%", f"{1 / share:g}×", f"{ratio:.2f}×") for share, ratio in curve.items()),
    )


def _bars(times: dict[str, dict[str, float]]) -> Chart:
    return Chart(
        "bars",
        Text("Equal operations, different time", "运算量相同，时间不同"),
        Text("milliseconds, batch 1", "毫秒，批量 1"),
        tuple(Series(name, tuple(row[form] for row in times.values())) for form, name in FORMS.items()),
        tuple(times),
    )


def _curve_chart(curve: dict[float, float]) -> Chart:
    name = Text("scattered weights", "非结构化稀疏")
    saved = tuple(1 / share for share in curve)
    return Chart(
        "lines",
        Text("When does sparse pay?", "稀疏何时划算？"),
        Text("time, dense product = 1", "耗时（稠密 = 1）"),
        (
            Series(name, tuple(curve.values()), at=saved),
            Series(Text("dense", "稠密"), (1.0,) * len(saved), at=saved),
        ),
        place=Text("times fewer operations", "运算减少倍数"),
        logarithmic=True,
    )


EXPERIMENT = Experiment(
    id="sparsity",
    title=Text("Sparse against dense", "稀疏与稠密"),
    claim=Text(
        "Sparse layers would be ideal, but dense blocks are what computers are fast at.",
        "稀疏结构在理论上最优，但计算机擅长的是稠密运算。",
    ),
    cost=Text("about 20 seconds", "约 20 秒"),
    run=run,
)
