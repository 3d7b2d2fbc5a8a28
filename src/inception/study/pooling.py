"""Experiment 4: global average pooling instead of fully connected layers: parameters and accuracy."""

from inception.nets.network import Network
from inception.nets.registry import build_network
from inception.study.comparison import accuracy_chart, accuracy_table, points, top1_of, verdict_of
from inception.study.experiment import Experiment, Finding, Options, Report, Say, Table, Text
from inception.study.statistics import difference
from inception.study.trial import Recipe, load_images, run_variants, setting

WIDTH, RATE = 0.25, 0.05
NAMES = {
    "average": Text("average pooling", "平均池化"),
    "fully connected": Text("fully connected", "全连接"),
    "average, no dropout": Text("average pooling, no dropout", "平均池化，无 dropout"),
}


def network(name: str, classes: int) -> Network:
    """The small batch-normalised GoogLeNet whose map ends in the head called `name`."""
    head = "fully_connected" if name.startswith("fully") else "average"
    dropout = 0.0 if name.endswith("no dropout") else 0.4
    return build_network(
        "googlenet_bn", num_classes=classes, stem="small", width=WIDTH, head=head, dropout=dropout
    )


def parameters(name: str, full: bool, classes: int) -> tuple[int, int]:
    """Parameters of the whole network and of its head; `full` means the paper's size at 224x224."""
    if full:
        head = "fully_connected" if name.startswith("fully") else "average"
        built = build_network("googlenet", head=head, aux_logits=False)
    else:
        built = network(name, classes)
    head_names = ("head", "fc")
    sizes = {key: parameter.numel() for key, parameter in built.named_parameters()}
    return sum(sizes.values()), sum(n for key, n in sizes.items() if key.split(".")[0] in head_names)


def run(options: Options, say: Say) -> Report:
    """Several seeds of each head."""
    images = load_images(options)

    def make(name: str) -> tuple[Network, Recipe]:
        return network(name, images.classes), Recipe(options.epochs, RATE)

    outcomes = run_variants(NAMES, make, images, options, say)
    counts = {name: parameters(name, False, images.classes) for name in NAMES}
    more = [
        (Text("Parameters", "参数"), {name: f"{whole:,}" for name, (whole, _) in counts.items()}),
        (Text("in the head", "其中末端"), {name: f"{head:,}" for name, (_, head) in counts.items()}),
    ]
    return Report(
        findings=_findings(top1_of(outcomes), images.name, len(images.train)),
        tables=(accuracy_table(NAMES, outcomes, more), _size_table()),
        charts=(accuracy_chart(NAMES, outcomes),),
        seeds=tuple(range(options.seeds)),
        setting=setting(images, options, network=f"googlenet_bn, small stem, width {WIDTH}"),
    )


def _findings(top1: dict[str, list[float]], data: str, images: int) -> tuple[Finding, ...]:
    gain = difference(top1["average"], top1["fully connected"])
    effect = difference(top1["average"], top1["average, no dropout"])
    average, connected = (parameters(name, True, 1000) for name in ("average", "fully connected"))
    return (
        Finding(
            Text(
                "Average pooling instead of fully connected layers: +0.6 points of top-1 accuracy",
                "以平均池化取代全连接层，Top-1 准确率提高 0.6 个百分点",
            ),
            verdict_of(gain),
            Text(
                f"The paper's number is for ImageNet. Here, on {images:,} images of {data}: "
                f"{points(gain)} points, n = {gain.n} seeds.",
                f"论文的数字针对 ImageNet。此处使用 {data} 的 {images:,} 张图片：{points(gain)} 个百分点，"
                f"{gain.n} 个随机种子。",
            ),
        ),
        Finding(
            Text("Average pooling saves parameters", "平均池化节省参数"),
            "confirmed",
            Text(
                f"At full size the head has {average[1]:,} parameters instead of {connected[1]:,}.",
                f"完整尺寸下，末端有 {average[1]:,} 个参数，而非 {connected[1]:,} 个。",
            ),
        ),
        Finding(
            Text(
                "Dropout is still essential without fully connected layers", "去掉全连接层后 dropout 依然必要"
            ),
            "confirmed" if effect.low > 0 else "not reproducible here",
            Text(
                f"40% dropout against none: {points(effect)} points.",
                f"40% dropout 与不用相比：{points(effect)} 个百分点。",
            ),
        ),
    )


def _size_table() -> Table:
    rows = []
    for name in ("average", "fully connected"):
        whole, head = parameters(name, True, 1000)
        rows.append((NAMES[name], f"{whole:,}", f"{head:,}", f"{100 * head / whole:.0f}%"))
    return Table(
        Text("The paper's size: 224x224, 1000 classes", "论文尺寸：224×224，1000 类"),
        (
            Text("Head", "末端"),
            Text("Parameters", "参数"),
            Text("in the head", "其中末端"),
            Text("Share", "占比"),
        ),
        tuple(rows),
    )


EXPERIMENT = Experiment(
    id="pooling",
    title=Text("Average pooling instead of fully connected", "以平均池化取代全连接"),
    claim=Text(
        "Average pooling instead of fully connected layers saves most parameters and adds 0.6 "
        "points of top-1.",
        "以平均池化取代全连接层，可省去大部分参数，并使 Top-1 提高 0.6 个百分点。",
    ),
    cost=Text("about 4 minutes", "约 4 分钟"),
    run=run,
    defaults=Options(data="digits", seeds=5, epochs=8, images=1200),
    quick=Options(data="digits", seeds=2, epochs=1, images=64),
)
