"""The network object: rows built into stages, run once from input to output."""

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from inception.errors import UsageError
from inception.nets.endpoints import resolve_endpoint
from inception.nets.heads import (
    AuxiliaryHead,
    AuxPool,
    ConvolutionalAuxiliaryHead,
    ConvolutionalClassifier,
    FullyConnectedHead,
    Hidden,
    HiddenHead,
    PooledHead,
    classifier,
)
from inception.nets.layers import LocalResponseNorm
from inception.nets.output import Output
from inception.nets.rows import Row, Style
from inception.nets.scripting import scriptable

GlobalPool = Literal["avg", ""]


@dataclass(frozen=True)
class Plan:
    """A network before it is built: its rows, their common style, and what stands on top.

    Attributes:
        rows: the stages from input to output.
        style: what the rows have in common.
        aux_heads: auxiliary heads as (attribute name, stage whose output it reads), from input to output.
        aux_form: GoogLeNet's auxiliary head, or the `convolutional` one of Inception-v3 and later.
        aux_pool: how GoogLeNet's auxiliary head pools to 4x4.
        dropout: share of the features dropped before the classifier.
        aux_dropout: share of the hidden units dropped in the auxiliary heads.
        head: `average` (global average pooling), `fully_connected` (flatten, one hidden layer; needs a fixed
            `image_size`), `convolutional` (Network in Network's classifier on the map) or hidden layers.
        image_size: side in pixels of the images the network is meant for.
        min_size: smallest side it accepts.
        aliases: other tools' names of the stages.
        levels: stages that `features_only` gives; empty: the last one of each resolution.
    """

    rows: tuple[Row, ...]
    style: Style
    aux_heads: tuple[tuple[str, str], ...] = ()
    aux_form: Literal["fully_connected", "convolutional"] = "fully_connected"
    aux_pool: AuxPool = "5/3"
    dropout: float = 0.4
    aux_dropout: float = 0.7
    head: Literal["average", "fully_connected", "convolutional"] | Hidden = "average"
    image_size: int = 224
    min_size: int = 1
    aliases: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureInfo:
    """One level of the feature pyramid: the last stage before the resolution falls again."""

    module: str
    num_chs: int
    reduction: int


@torch.fx.wrap
def check_input(x: Tensor, in_chans: int, min_size: int) -> Tensor:
    """Return `x`, or raise ValueError when it is not N x in_chans x H x W with sides >= min_size."""
    if x.dim() != 4 or x.shape[1] != in_chans:
        sizes = " x ".join([str(size) for size in x.shape])
        raise ValueError(f"expected images as N x {in_chans} x H x W, got {sizes}")
    if x.shape[2] < min_size or x.shape[3] < min_size:
        raise ValueError(
            f"the network needs images of at least {min_size} x {min_size} pixels, "
            f"got {x.shape[2]} x {x.shape[3]}; resize them, or use a small-image stem (stem='small')"
        )
    return x


class Network(nn.Module):
    """A classifier made of named stages.

    Called in evaluation mode it returns logits (N x num_classes); in training mode an `Output` with the
    logits of the main classifier and of the auxiliary heads, which evaluation never computes.

    Attributes:
        architecture: the name it was created under, and `arguments`, the keyword arguments: together they
            rebuild it.
        endpoints: names of the stages, from input to output.
        feature_info: the stages `features_only` gives, one for each reduction.
        num_classes, in_chans, num_features: outputs, input channels, width before the classifier.
    """

    def __init__(
        self, plan: Plan, num_classes: int = 1000, in_chans: int = 3, global_pool: GlobalPool = "avg"
    ) -> None:
        super().__init__()
        if in_chans < 1 or num_classes < 0:
            raise ValueError(
                f"in_chans must be at least 1 and num_classes 0, not {in_chans} and {num_classes}"
            )
        self.architecture = ""
        self.arguments: dict[str, Any] = {}
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.image_size, self.min_size = plan.image_size, plan.min_size
        self.aliases = dict(plan.aliases)
        self.grad_checkpointing = False
        channels = self._build_stages(plan, in_chans)
        self._build_heads(plan, channels, global_pool)
        initialize(self)

    def _build_stages(self, plan: Plan, in_chans: int) -> dict[str, int]:
        names: list[str] = []
        channels: dict[str, int] = {}
        levels: dict[int, FeatureInfo] = {}
        current, reduction = in_chans, 1
        for row in plan.rows:
            module, current = row.build(current, plan.style)
            self.add_module(row.name, module)
            names.append(row.name)
            channels[row.name] = current
            reduction *= row.stride
            if not plan.levels or row.name in plan.levels:
                levels[reduction] = FeatureInfo(row.name, current, reduction)
        self.endpoints = tuple(names)
        self.feature_info = tuple(levels.values())
        return channels

    def _build_heads(self, plan: Plan, channels: dict[str, int], global_pool: GlobalPool) -> None:
        width = channels[self.endpoints[-1]]
        self.head: FullyConnectedHead | HiddenHead | PooledHead
        if plan.head == "fully_connected":
            side = self._map_size(plan.image_size)
            self.head = FullyConnectedHead(width, side, hidden=plan.style.depth(1024))
        elif isinstance(plan.head, Hidden):
            self.head = HiddenHead(width, plan.head, plan.style)
        else:
            self.head = PooledHead(width, pooled=True)
        self.head.pooled = global_pool == "avg"
        self.num_features = self.head.num_features
        self.aux_taps = dict(plan.aux_heads)
        for name, stage in plan.aux_heads:
            self.add_module(name, self._auxiliary_head(plan, channels[stage]))
        self.dropout = nn.Dropout(plan.dropout)
        # Network in Network's classifier reads the map; all others read the pooled features.
        self.map_style = plan.style if plan.head == "convolutional" else None
        self.fc = self._classifier(self.num_classes)

    def _auxiliary_head(self, plan: Plan, channels: int) -> nn.Module:
        if plan.aux_form == "convolutional":
            return ConvolutionalAuxiliaryHead(channels, self.num_classes, plan.style)
        return AuxiliaryHead(channels, self.num_classes, plan.style, plan.aux_pool, plan.aux_dropout)

    def _classifier(self, num_classes: int) -> nn.Module:
        if self.map_style is not None and num_classes > 0:
            return ConvolutionalClassifier(self.num_features, num_classes, self.map_style)
        return classifier(self.num_features, num_classes)

    def _map_size(self, image_size: int) -> int:
        stages = nn.Sequential(*(getattr(self, name) for name in self.endpoints))
        probe = torch.zeros(1, self.in_chans, image_size, image_size, device="meta")
        with torch.no_grad():
            feature_map: Tensor = copy.deepcopy(stages).eval().to("meta")(probe)
        return int(feature_map.shape[-1])

    def _run(self, x: Tensor, taps: Collection[str], last: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the stages up to `last`, keeping the outputs of those named in `taps`."""
        found: dict[str, Tensor] = {}
        x = check_input(x, self.in_chans, self.min_size)
        for name in self.endpoints:
            stage = getattr(self, name)
            if self.grad_checkpointing and self.training:
                x = checkpoint(stage, x, use_reentrant=False, context_fn=partial(_checkpoint_contexts, stage))
            else:
                x = stage(x)
            if name in taps:
                found[name] = x
            if name == last:
                break
        return x, found

    def forward_features(self, x: Tensor) -> Tensor:
        """Images N x in_chans x H x W in, the last feature map N x C x H' x W' out."""
        return self._run(x, (), self.endpoints[-1])[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Last feature map in; logits out, or with `pre_logits` the features before the classifier.

        (A convolutional classifier reads the map itself; its `pre_logits` are the pooled map.)
        """
        if isinstance(self.fc, ConvolutionalClassifier) and not pre_logits:
            return self.fc(self.dropout(x))  # type: ignore[no-any-return]
        x = self.dropout(self.head(x))
        if pre_logits:
            return x
        logits: Tensor = self.fc(x)
        return logits

    def forward_endpoints(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The outputs of the named stages (aliases allowed), in the order asked, keyed as asked.

        Stages after the last one needed are not run. Raises UsageError, with near names, for an unknown name.
        """
        resolved = {name: resolve_endpoint(name, self.endpoints, self.aliases) for name in names}
        last = max(resolved.values(), key=self.endpoints.index)
        found = self._run(x, set(resolved.values()), last)[1]
        return {name: found[stage] for name, stage in resolved.items()}

    def forward(
        self, x: Tensor, return_endpoints: Sequence[str] | None = None
    ) -> Tensor | Output | dict[str, Tensor]:
        """Images N x in_chans x H x W (normalised float) in.

        Returns logits N x num_classes in evaluation mode, an `Output` in training mode, and with
        `return_endpoints` the named feature maps instead (see `forward_endpoints`).
        """
        # torch.fx.symbolic_trace puts a proxy in every argument: a trace is of the plain call.
        if return_endpoints is not None and not isinstance(return_endpoints, torch.fx.Proxy):
            return self.forward_endpoints(x, return_endpoints)
        if not self.training:
            return self.forward_head(self.forward_features(x))
        x, found = self._run(x, self.aux_taps.values(), self.endpoints[-1])
        aux = tuple(getattr(self, head)(found[stage]) for head, stage in self.aux_taps.items())
        return Output(logits=self.forward_head(x), aux=aux)

    def get_classifier(self) -> nn.Module:
        """The last linear layer (`nn.Identity` when num_classes is 0; convolutional in `nin`)."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """Give the network new classifiers (auxiliary ones too) with fresh weights.

        num_classes 0 makes it return pooled features, and with global_pool '' the feature map itself.
        """
        self.num_classes = num_classes
        if global_pool is not None:
            self.head.pooled = global_pool == "avg"
            self.arguments["global_pool"] = global_pool
        like = next(self.parameters())
        self.fc = self._classifier(num_classes).to(like.device, like.dtype)
        initialize(self.fc)
        for name in self.aux_taps:
            head = getattr(self, name)
            head.set_classifier(classifier(head.num_features, num_classes).to(like.device, like.dtype))
            initialize(head.get_classifier())

    def remove_auxiliary_heads(self) -> None:
        """Drop the auxiliary heads and their parameters; evaluation is unchanged."""
        for name in self.aux_taps:
            delattr(self, name)
            self.arguments["aux_logits"] = False
        self.aux_taps = {}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each stage in the backward pass instead of storing its activations.

        Gradients and batch-norm statistics are unchanged.
        """
        self.grad_checkpointing = enable

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """As in `nn.Module`; constants without memory (meta device) get it where the weights lie."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        devices = (value.device for name, value in state_dict.items() if name.startswith(prefix))
        for device in [device for device in devices if device.type != "meta"][:1]:
            for module in self.modules():
                if isinstance(module, LocalResponseNorm):
                    module.place(device)

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` takes for the network; see `scriptable`."""
        return scriptable(self)


class _SameStatistics:
    """Batch norms of `stage` take the batch into copies of their running statistics, which are thrown away.

    For the second run of a checkpointed stage, which must not count a batch twice.
    """

    def __init__(self, stage: nn.Module) -> None:
        self.stage = stage
        self.own: list[tuple[nn.BatchNorm2d, str, Tensor]] = []

    def __enter__(self) -> None:
        self.own = [
            (layer, name, buffer)
            for layer in self.stage.modules()
            if isinstance(layer, nn.BatchNorm2d) and layer.training
            for name, buffer in layer.named_buffers()
        ]
        for layer, name, buffer in self.own:
            setattr(layer, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for layer, name, buffer in self.own:
            setattr(layer, name, buffer)


def _checkpoint_contexts(stage: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What the first and the second run of a checkpointed stage run in."""
    return nullcontext(), _SameStatistics(stage)


class FeatureNetwork(nn.Module):
    """A network that returns its feature pyramid, shallow to deep, one map an index (timm's contract)."""

    def __init__(self, network: Network, out_indices: Sequence[int] | None) -> None:
        super().__init__()
        infos = network.feature_info
        indices = range(len(infos)) if out_indices is None else out_indices
        if len(set(indices)) < len(indices) or not set(indices) <= set(range(-len(infos), len(infos))):
            raise UsageError(
                f"out_indices must be different ones of 0 to {len(infos) - 1}, not {list(indices)}"
            )
        self.feature_info = tuple(infos[index] for index in indices)
        network.remove_auxiliary_heads()
        network.head = PooledHead(infos[-1].num_chs, pooled=False)
        network.num_features = network.head.num_features
        network.reset_classifier(0, "")
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images N x in_chans x H x W in; feature maps N x num_chs x H/reduction x W/reduction out."""
        maps = self.network.forward_endpoints(x, [info.module for info in self.feature_info])
        return list(maps.values())

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` takes for the network; see `scriptable`."""
        return scriptable(self)


def initialize(module: nn.Module) -> None:
    """Fresh weights: He for convolutions and hidden layers, small for classifiers, zero biases.

    deviation: Caffe's GoogLeNet starts from Xavier weights and biases of 0.2; He et al. 2015 keeps the
    signal's scale through 22 ReLU layers, so the network also learns without batch normalisation.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        return  # nothing to fill, and torch would import hundreds of modules to do so
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            # Classifiers are `fc` (`fc2` in auxiliary heads) of their owner, or come alone.
            last = name.rpartition(".")[2] in ("", "fc", "fc2")
            std = 0.01 if last else (2.0 / layer.in_features) ** 0.5
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
