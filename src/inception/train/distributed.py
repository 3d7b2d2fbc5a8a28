"""One network trained by several processes: gradients averaged, batch-norm statistics shared or not."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inception.nets.network import Network
from inception.train.ranks import Ranks


def averaged_gradients(network: Network, across: str, device: torch.device, ranks: Ranks) -> nn.Module:
    """`network`, or for several processes a wrapper whose backward pass averages their gradients.

    `across` is `TrainConfig.batch_norm_across`. Every process begins with the first one's weights.
    """
    if ranks.count == 1:
        return network
    if across == "all":
        share_batch_norm(network)
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices)


def take_first_statistics(network: nn.Module) -> None:
    """Give every process the first one's batch-norm statistics: what is averaged and measured is the same."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    values = torch.cat([buffer.flatten() for buffer in buffers])
    dist.broadcast(values, src=0)
    sizes = [buffer.numel() for buffer in buffers]
    for buffer, value in zip(buffers, torch.split(values, sizes), strict=True):
        buffer.copy_(value.view_as(buffer))


def without_exchange(model: nn.Module, wanted: bool) -> AbstractContextManager[object]:
    """Context in which a backward pass keeps its gradients to itself; the last one of a step exchanges."""
    if wanted and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def share_batch_norm(network: nn.Module) -> None:
    """Let every batch norm of `network` take its statistics over the batch of all processes, in place.

    torch.nn.SyncBatchNorm does so on GPUs only; this one wherever `all_reduce` works. Names stay as they are.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm


class _SumOverRanks(torch.autograd.Function):
    """The sum of every process's tensor; its gradient is the sum of every process's gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy 2015) over the images of all processes.

    N x C x H x W in, the same shape and dtype out; the statistics are computed in float32 or better.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in evaluation mode as `BatchNorm2d`."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = values.new_full((1,), float(x.numel() // x.shape[1]))
        # Two sums rather than one pass of squares: (x - mean)^2 keeps its digits.
        total: Tensor = _SumOverRanks.apply(torch.cat([values.sum((0, 2, 3)), count]))
        mean, size = total[:-1] / total[-1], total[-1].detach()
        centred = values - mean[:, None, None]
        spread: Tensor = _SumOverRanks.apply(centred.square().sum((0, 2, 3)))
        variance = spread / size
        self._update(mean.detach(), variance.detach() * size / (size - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        normalised = centred * scale[:, None, None]
        if self.bias is not None:
            normalised = normalised + self.bias[:, None, None]
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
