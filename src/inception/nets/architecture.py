"""A network as data: its table of rows and all that stands around it, and the one function that builds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inception.nets.heads import AuxPool, Hidden
from inception.nets.layers import Padding
from inception.nets.network import GlobalPool, Network, Plan
from inception.nets.rows import Lrn, Row, Style

Changes = Mapping[str, Row | None]
"""Rows that replace those of the same name; None leaves a row out."""


@dataclass(frozen=True)
class Architecture:
    """What `build` makes a network from.

    Attributes:
        title: what it is, in one line.
        rows: the stages from input to output.
        style: what the rows have in common.
        small_stem: changes of the rows for 32x32 images.
        variants: arguments of its own that change rows: argument -> value -> changes, the default first.
        aux_heads, aux_form, aux_pool: auxiliary heads it can have; see `Plan`.
        aux_default: whether it has them unless asked.
        head, small_head: what stands on the map with the large and the small stem.
        dropout: share dropped before the classifier.
        num_classes: outputs.
        image_sizes: side of its images, with the large and the small stem.
        min_sizes: border rules that fit its rows, its own first, each with the smallest side of an image.
        aliases: other tools' names of the stages.
        levels: see `Plan`.
        ablations: other arguments of its own that `build` takes for it.
    """

    title: str
    rows: tuple[Row, ...]
    style: Style = Style()
    small_stem: Changes = field(default_factory=dict)
    variants: Mapping[str, Mapping[Any, Changes]] = field(default_factory=dict)
    aux_heads: tuple[tuple[str, str], ...] = ()
    aux_form: Literal["fully_connected", "convolutional"] = "fully_connected"
    aux_pool: AuxPool = "5/3"
    aux_default: bool = True
    head: Literal["average", "convolutional"] | Hidden = "average"
    small_head: Hidden | None = None
    dropout: float = 0.2
    num_classes: int = 1000
    image_sizes: tuple[int, int] = (224, 32)
    min_sizes: Mapping[Padding, tuple[int, int]] = field(default_factory=lambda: {"same": (1, 1)})
    aliases: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the arguments that `build` takes for it."""
        return (*COMMON_OPTIONS, *self.ablations, *self.variants)


COMMON_OPTIONS = (
    "num_classes",
    "in_chans",
    "global_pool",
    "aux_logits",
    "dropout",
    "aux_dropout",
    "width",
    "stem",
    "padding",
    "count_include_pad",
    "bn_eps",
    "batch_norm_scale",
)
GOOGLENET_OPTIONS = ("module", "head", "kernel5", "image_size")


def build(architecture: Architecture, **arguments: Any) -> Network:
    """The network, with fresh weights; TypeError for an argument it does not take, ValueError for a value.

    The arguments are described at `inception.nets.registry.build_network`.
    """
    unknown = [name for name in arguments if name not in architecture.options]
    if unknown:
        raise TypeError(f"unexpected {', '.join(unknown)}")
    return _build(architecture, **arguments)


def _build(
    architecture: Architecture,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    global_pool: GlobalPool = "avg",
    aux_logits: bool | None = None,
    dropout: float | None = None,
    aux_dropout: float = 0.7,
    width: float = 1.0,
    stem: Literal["large", "small"] = "large",
    padding: Padding | None = None,
    count_include_pad: bool | None = None,
    bn_eps: float | None = None,
    batch_norm_scale: bool | None = None,
    module: Literal["reduced", "naive"] | None = None,
    kernel5: Literal["5x5", "3x3", "3x3+3x3"] | None = None,
    head: Literal["average", "fully_connected"] | None = None,
    image_size: int | None = None,
    **variants: Any,
) -> Network:
    if width <= 0:
        raise ValueError(f"width must be positive, not {width}")
    for name, share in (("dropout", dropout), ("aux_dropout", aux_dropout)):
        if share is not None and not 0.0 <= share < 1.0:
            raise ValueError(f"{name} must be in 0..1, less than 1, not {share!r:.60}")
    if bn_eps is not None and not 0.0 < bn_eps <= 1.0:
        raise ValueError(f"bn_eps must be in 0..1, more than 0, not {bn_eps!r:.60}")
    if stem not in ("large", "small"):
        raise ValueError(f"stem must be 'large' (224x224) or 'small' (32x32), not {stem!r:.60}")
    small = stem == "small"
    rule = next(iter(architecture.min_sizes)) if padding is None else padding
    if rule not in architecture.min_sizes:
        raise ValueError(f"padding must be one of {', '.join(architecture.min_sizes)}, not {rule!r:.60}")
    if batch_norm_scale is not None and not architecture.style.batch_norm:
        raise ValueError("it has no batch normalisation: leave batch_norm_scale out")
    choices = {
        "count_include_pad": count_include_pad,
        "bn_eps": bn_eps,
        "batch_norm_scale": batch_norm_scale,
        "module": module,
        "kernel5": kernel5,
    }
    chosen: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    style = replace(architecture.style, width=width, padding=rule, **chosen)
    plan = Plan(
        rows=_rows(architecture, style, small, variants),
        style=style,
        aux_heads=_aux_heads(architecture, aux_logits),
        aux_form=architecture.aux_form,
        aux_pool=architecture.aux_pool,
        dropout=architecture.dropout if dropout is None else dropout,
        aux_dropout=aux_dropout,
        head=(architecture.small_head if small else None) or head or architecture.head,
        image_size=image_size or architecture.image_sizes[small],
        min_size=architecture.min_sizes[rule][small],
        aliases=architecture.aliases,
        levels=architecture.levels,
    )
    classes = architecture.num_classes if num_classes is None else num_classes
    return Network(plan, classes, in_chans, global_pool)


def _rows(architecture: Architecture, style: Style, small: bool, variants: dict[str, Any]) -> tuple[Row, ...]:
    changes: dict[str, Row | None] = {}
    for name, value in variants.items():
        known = architecture.variants[name]
        if value not in known:
            raise ValueError(f"{name} must be {' or '.join(map(str, known))}, not {value!r:.60}")
        changes |= known[value]
    if small:
        changes |= architecture.small_stem
    rows = changed(architecture.rows, changes)
    return tuple(row for row in rows if not (style.batch_norm and isinstance(row, Lrn)))


def changed(rows: tuple[Row, ...], changes: Changes) -> tuple[Row, ...]:
    """The table with some rows replaced or left out."""
    result = [changes.get(row.name, row) for row in rows]
    return tuple(row for row in result if row is not None)


def _aux_heads(architecture: Architecture, wanted: bool | None) -> tuple[tuple[str, str], ...]:
    if wanted and not architecture.aux_heads:
        raise ValueError("it has no auxiliary heads: leave aux_logits out")
    return architecture.aux_heads if (architecture.aux_default if wanted is None else wanted) else ()
