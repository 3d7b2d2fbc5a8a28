"""Names of stages across tools: one alias table, and help when a name is unknown."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from inception.errors import UsageError


class _Named(Protocol):
    @property
    def name(self) -> str: ...


# paper and torchvision | TF-slim (one letter later) | Lucid | Caffe; read in each tool's source
_CROSSWALK = (
    ("conv1", "Conv2d_1a_7x7", "conv2d0", "conv1/7x7_s2"),
    ("maxpool1", "MaxPool_2a_3x3", None, "pool1/3x3_s2"),
    ("norm1", None, "localresponsenorm0", "pool1/norm1"),
    ("conv2", "Conv2d_2b_1x1", "conv2d1", "conv2/3x3_reduce"),
    ("conv3", "Conv2d_2c_3x3", "conv2d2", "conv2/3x3"),
    ("norm2", None, "localresponsenorm1", "conv2/norm2"),
    ("maxpool2", "MaxPool_3a_3x3", None, "pool2/3x3_s2"),
    ("inception3a", "Mixed_3b", "mixed3a", "inception_3a/output"),
    ("inception3b", "Mixed_3c", "mixed3b", "inception_3b/output"),
    ("maxpool3", "MaxPool_4a_3x3", None, "pool3/3x3_s2"),
    ("inception4a", "Mixed_4b", "mixed4a", "inception_4a/output"),
    ("inception4b", "Mixed_4c", "mixed4b", "inception_4b/output"),
    ("inception4c", "Mixed_4d", "mixed4c", "inception_4c/output"),
    ("inception4d", "Mixed_4e", "mixed4d", "inception_4d/output"),
    ("inception4e", "Mixed_4f", "mixed4e", "inception_4e/output"),
    ("maxpool4", "MaxPool_5a_2x2", None, "pool4/3x3_s2"),
    ("inception5a", "Mixed_5b", "mixed5a", "inception_5a/output"),
    ("inception5b", "Mixed_5c", "mixed5b", "inception_5b/output"),
)

# The same for Inception-v2; slim's numbers differ where a module halves the map.
_V2_CROSSWALK = (
    ("conv1", "Conv2d_1a_7x7", "conv1/7x7_s2"),
    ("maxpool1", "MaxPool_2a_3x3", "pool1/3x3_s2"),
    ("conv2", "Conv2d_2b_1x1", "conv2/3x3_reduce"),
    ("conv3", "Conv2d_2c_3x3", "conv2/3x3"),
    ("maxpool2", "MaxPool_3a_3x3", "pool2/3x3_s2"),
    ("inception3a", "Mixed_3b", "inception_3a/output"),
    ("inception3b", "Mixed_3c", "inception_3b/output"),
    ("inception3c", "Mixed_4a", "inception_3c/output"),
    ("inception4a", "Mixed_4b", "inception_4a/output"),
    ("inception4b", "Mixed_4c", "inception_4b/output"),
    ("inception4c", "Mixed_4d", "inception_4c/output"),
    ("inception4d", "Mixed_4e", "inception_4d/output"),
    ("inception4e", "Mixed_5a", "inception_4e/output"),
    ("inception5a", "Mixed_5b", "inception_5a/output"),
    ("inception5b", "Mixed_5c", "inception_5b/output"),
)


def _aliases(crosswalk: Iterable[tuple[str | None, ...]]) -> Mapping[str, str]:
    return {alias: ours for ours, *others in crosswalk for alias in others if ours and alias}


GOOGLENET_ALIASES = _aliases(_CROSSWALK)
INCEPTION_V2_ALIASES = _aliases(_V2_CROSSWALK)


def with_snake_case(rows: Iterable[_Named]) -> dict[str, str]:
    """TF-slim's stage names in lower case (`mixed_5b`) as aliases of themselves."""
    return {row.name.lower(): row.name for row in rows}


def resolve_endpoint(name: str, endpoints: Sequence[str], aliases: Mapping[str, str]) -> str:
    """The stage that `name` (ours or another tool's) means.

    Raises UsageError, naming the nearest known names, when there is no such stage.
    """
    resolved = aliases.get(name, name)
    if resolved in endpoints:
        return resolved
    near = difflib.get_close_matches(name, [*endpoints, *aliases], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"the stages are {', '.join(endpoints)}"
    raise UsageError(f"no stage is called '{name}': {hint}")
