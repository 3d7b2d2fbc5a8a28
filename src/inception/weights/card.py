"""The model card: what a bundle's manifest says, for people."""

from collections.abc import Mapping
from typing import Any


def write_card(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown, from the content of `bundle.json`."""
    network, preprocess = manifest["network"], manifest["preprocess"]
    labels = manifest["labels"]
    shown = ", ".join(labels[:20]) + (f", … ({len(labels) - 20} more)" if len(labels) > 20 else "")
    lines = [
        f"# {network['name']}, {len(labels)} classes",
        "",
        f"- Network: `{network['name']}` {_inline(network['arguments'])}".rstrip(),
        f"- Classes{', of which an image may have several' if 'thresholds' in manifest else ''}: {shown}",
        f"- Input: {preprocess['height']} x {preprocess['width']} {preprocess['color']}, "
        f"resize rule `{preprocess['resize']}` ({preprocess['interpolation']}), "
        f"mean {preprocess['mean']}, std {preprocess['std']}, range 0..{preprocess['value_range']:g}",
        f"- Weights: SHA-256 `{manifest['weights_sha256']}`",
        "",
        "## Measured",
        "",
        *_measurements(manifest["metrics"]),
        "",
        "## How it was made",
        "",
        *(f"- {key}: {_value(value)}" for key, value in manifest["provenance"].items() if key != "choice"),
        "",
        "## Use",
        "",
        "    inception predict BUNDLE IMAGE…",
        "",
    ]
    return "\n".join(lines)


def _measurements(metrics: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {split} | {m['n']} | {100 * m['top1']:.2f}% | {100 * m['top5']:.2f}% | {m['loss']:.4f} |"
        for split, m in metrics.items()
        if isinstance(m, Mapping) and {"n", "top1", "top5", "loss"} <= m.keys()
    ]
    several = [
        f"| {split} | {m['n']} | {m['map']:.4f} | {m['macro_f1']:.4f} | {m['loss']:.4f} |"
        for split, m in metrics.items()
        if isinstance(m, Mapping) and {"n", "map", "macro_f1", "loss"} <= m.keys()
    ]
    if several:
        return ["| split | images | mAP | macro F1 | loss |", "|---|--:|--:|--:|--:|", *several]
    if not rows:
        return ["Nothing yet: run `inception evaluate`."]
    return ["| split | images | top-1 | top-5 | loss |", "|---|--:|--:|--:|--:|", *rows]


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _value(value: Any) -> str:
    return f"`{_inline(value)}`" if isinstance(value, Mapping) else f"{value}"
