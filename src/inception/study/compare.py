"""Networks side by side: parameters, operations, memory, and time on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from inception.nets.complexity import profile
from inception.nets.registry import build_network
from inception.study.cost import forward_work, median_milliseconds, peak_activation_bytes, weight_bytes


@dataclass(frozen=True)
class Cost:
    """What one network costs, without auxiliary heads.

    Attributes:
        model: its name.
        image_size: side of the image it was measured with.
        parameters: learned numbers.
        multiply_adds: for one image.
        weight_mib: its state in MiB, float32.
        activation_mib: the most that activations of one image take at once, in MiB, float32.
        median_ms: a forward pass at batch 1, float32, in milliseconds.
    """

    model: str
    image_size: int
    parameters: int
    multiply_adds: int
    weight_mib: float
    activation_mib: float
    median_ms: float


def compare(names: Sequence[str], rounds: int = 20, image_size: int | None = None) -> list[Cost]:
    """The cost of each network, measured in turns so that a busy machine disturbs all alike.

    Args:
        names: of networks; one named twice is measured once.
        rounds: forward passes of each.
        image_size: side in pixels; each network's own by default.

    Raises UsageError for an unknown name or a size that a network does not accept.
    """
    networks = {name: build_network(name).eval() for name in dict.fromkeys(names)}
    for network in networks.values():
        network.remove_auxiliary_heads()
    sides = {name: image_size or network.image_size for name, network in networks.items()}
    layers = {name: profile(network, sides[name]) for name, network in networks.items()}
    shapes = {name: (1, network.in_chans, sides[name], sides[name]) for name, network in networks.items()}
    works = {name: forward_work(network, shapes[name]) for name, network in networks.items()}
    medians = median_milliseconds(works, rounds)
    return [
        Cost(
            model=name,
            image_size=sides[name],
            parameters=sum(layer.parameters for layer in layers[name]),
            multiply_adds=sum(layer.multiply_adds for layer in layers[name]),
            weight_mib=weight_bytes(network) / 2**20,
            activation_mib=peak_activation_bytes(network, shapes[name]) / 2**20,
            median_ms=medians[name],
        )
        for name, network in networks.items()
    ]
