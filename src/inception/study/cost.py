"""What a module costs when it runs: time on this machine, and memory of activations on any."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inception.nets.complexity import weightless_copy
from inception.nets.network import Network
from inception.runtime.timing import Work, interleaved


def median_milliseconds(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """The median time of each work, the works taking turns, in milliseconds."""
    times = interleaved(works, rounds)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def forward_work(module: nn.Module, shape: Sequence[int]) -> Work:
    """One forward pass of `module` in evaluation mode over a fixed random N x C x H x W input."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    module.eval()

    def work() -> None:
        with torch.inference_mode():
            module(x)

    return work


def _reference(tensor: Tensor) -> Any:
    """A weak reference to the memory of a tensor, which tells when it is given back."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive after each operation."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {_reference(tensor).cdata for tensor in known}
        self.live: dict[int, tuple[Any, int]] = {}
        self.peak: int = 0

    def note(self, tensor: Tensor) -> None:
        reference = _reference(tensor)
        if reference.cdata not in self.known:
            self.live[reference.cdata] = (reference, tensor.untyped_storage().nbytes())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        self.live = {key: item for key, item in self.live.items() if not item[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def peak_activation_bytes(module: nn.Module, shape: Sequence[int]) -> int:
    """The most memory that activations take at once in a forward pass, the input included, in bytes.

    Args:
        module: run in evaluation mode on torch's meta device, so nothing is computed; left as it is.
        shape: of the float32 input, N x C x H x W.

    Scratch memory inside an operation is not seen: the number is the network's, not the library's.
    """
    twin = weightless_copy(cast(Network, module))
    x = torch.empty(*shape, device="meta")
    state = [*twin.parameters(), *twin.buffers()]
    with torch.inference_mode(), _LiveBytes(state) as counter:
        counter.note(x)
        twin(x)
    return int(counter.peak)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of parameters and stored buffers (batch-norm statistics)."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
