"""Arithmetic, not measurement: how long a training step takes on many devices, and what limits it.

The model: a step computes forward and backward; every batch norm that is shared waits for its exchanges; the
gradients are averaged while the backward pass goes on; images are read and decoded for the next step
meanwhile. So a step takes as long as the longest of computing (with what is not hidden behind it), decoding
and reading.
"""

import math
from dataclasses import dataclass

from inception.errors import UsageError
from inception.nets.complexity import profile
from inception.nets.registry import build_network

_FORWARD_AND_BACKWARD = 3
"""The backward pass computes two products where the forward pass computes one."""
_BACKWARD_SHARE = 2 / 3
_NORM_EXCHANGES = 4
"""Of a shared batch norm, each step: mean and variance, forward and backward."""
_GRADIENT_BYTES = 4
"""Gradients are exchanged in float32, whatever precision computes."""
_BUCKET_BYTES = 25 * 2**20
"""DistributedDataParallel's default: so much is exchanged at a time."""


@dataclass(frozen=True)
class Work:
    """What one network asks of a step.

    Attributes:
        operations: floating-point operations of an image, forward, with the heads that training has; two for
            each multiply-add.
        parameters: learned numbers, those of these heads included.
        norms: batch-norm layers.
        layers: that start kernels of their own.
    """

    operations: float
    parameters: int
    norms: int
    layers: int


@dataclass(frozen=True)
class Cluster:
    """Assumptions about machines and data: replace them by your own numbers.

    Attributes:
        operations_per_s: what one device attains in training; the default is a fifth of an A100's peak in
            bfloat16, as convolutional networks of this size commonly do.
        launch_s: to start one kernel; many small layers cannot be faster than their starts.
        devices_per_machine: GPUs that share one network card and the processors.
        inside_bytes_per_s: bandwidth of a ring inside a machine.
        between_bytes_per_s: of the network card of a machine (200 Gb/s).
        latency_s: of one hop of an exchange.
        cores_per_device: processors that decode for one device.
        decoded_per_core: images that one processor reads, decodes and augments each second.
        image_bytes: of one image file.
        storage_bytes_per_s: what the shared storage gives to all machines together.
    """

    operations_per_s: float = 60e12
    launch_s: float = 5e-6
    devices_per_machine: int = 8
    inside_bytes_per_s: float = 200e9
    between_bytes_per_s: float = 25e9
    latency_s: float = 5e-6
    cores_per_device: float = 16
    decoded_per_core: float = 150
    image_bytes: float = 110e3
    storage_bytes_per_s: float = 20e9


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one step, and what follows from them.

    Attributes:
        devices, batch: how many, and images of all of them together.
        computing: forward and backward.
        norms: waiting for the exchanges of shared batch norms; nothing hides them.
        gradients: the whole exchange of gradients.
        exposed: the part of it that computing does not hide.
        decoding, reading: of the next step's images, meanwhile.
    """

    devices: int
    batch: int
    computing: float
    norms: float
    gradients: float
    exposed: float
    decoding: float
    reading: float

    @property
    def seconds(self) -> float:
        """Of the step."""
        return max(self.computing + self.norms + self.exposed, self.decoding, self.reading)

    @property
    def images_per_s(self) -> float:
        """Of all devices together."""
        return self.batch / self.seconds

    @property
    def limit(self) -> str:
        """What takes longest: computing, norms, gradients, decoding or reading."""
        parts = {
            "computing": self.computing,
            "norms": self.norms,
            "gradients": self.exposed,
            "decoding": self.decoding,
            "reading": self.reading,
        }
        if max(self.decoding, self.reading) < self.seconds:
            del parts["decoding"], parts["reading"]
        return max(parts, key=lambda name: parts[name])


def work_of(network: str, image_size: int = 224) -> Work:
    """Count what training `network` (a registered name) asks for at one image size. Raises UsageError."""
    costs = profile(build_network(network), image_size)
    return Work(
        operations=2.0 * sum(cost.multiply_adds for cost in costs),
        parameters=sum(cost.parameters for cost in costs),
        norms=sum(cost.kind == "batch norm" for cost in costs),
        layers=len(costs),
    )


def step_times(
    work: Work, cluster: Cluster, devices: int, batch: int, shared_norms: bool = True
) -> StepTimes:
    """What a step of `batch` images on `devices` devices takes.

    Args:
        work: of the network.
        cluster: what is assumed.
        devices: from 1.
        batch: of all devices together, at least one image each.
        shared_norms: whether batch norms take their statistics over all devices (`--batch-norm-across all`).

    Raises UsageError when a device would be without images.
    """
    if devices < 1 or batch < devices:
        raise UsageError(f"{batch} images cannot be divided among {devices} devices")
    share = batch / devices
    products = _FORWARD_AND_BACKWARD * share * work.operations / cluster.operations_per_s
    computing = max(products, _FORWARD_AND_BACKWARD * work.layers * cluster.launch_s)
    size = work.parameters * _GRADIENT_BYTES
    buckets = math.ceil(size / _BUCKET_BYTES)
    gradients = 0.0
    norms = 0.0
    if devices > 1:
        gradients = _ring_seconds(size, devices, cluster) + buckets * _latency_seconds(devices, cluster)
        norms = shared_norms * _NORM_EXCHANGES * work.norms * _latency_seconds(devices, cluster)
    # The last bucket is complete only when the backward pass is: nothing is left to hide it.
    last = gradients / buckets
    exposed = last + max(0.0, gradients - last - _BACKWARD_SHARE * computing)
    cores = cluster.cores_per_device * devices
    return StepTimes(
        devices=devices,
        batch=batch,
        computing=computing,
        norms=norms,
        gradients=gradients,
        exposed=exposed,
        decoding=batch / (cores * cluster.decoded_per_core),
        reading=batch * cluster.image_bytes / cluster.storage_bytes_per_s,
    )


def _ring_seconds(size: float, devices: int, cluster: Cluster) -> float:
    """Every device sends 2 (n - 1) / n of the gradients; the slowest link of the ring decides."""
    inside = devices <= cluster.devices_per_machine
    bandwidth = cluster.inside_bytes_per_s if inside else cluster.between_bytes_per_s
    return 2 * (devices - 1) / devices * size / bandwidth


def _latency_seconds(devices: int, cluster: Cluster) -> float:
    """Hops of an exchange of few bytes: up a tree and down again, as NCCL does."""
    return 2 * math.ceil(math.log2(devices)) * cluster.latency_s
