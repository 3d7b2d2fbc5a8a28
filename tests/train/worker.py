"""One process of a run under torchrun, for test_ranks.py: trains, and perhaps dies once on the way.

torchrun --nproc-per-node 2 worker.py '{"data": …, "output": …}' [batches after which process 1 dies]

With `gradients` in place of the options it compares its gradients, in double precision, with those of one
process on the whole batch.
"""

import copy
import json
import os
import signal
import sys

import torch
import torch.nn.functional as F

from inception.nets.registry import build_network
from inception.train import step
from inception.train.config import TrainConfig
from inception.train.distributed import averaged_gradients
from inception.train.ranks import joined
from inception.train.run import train_bundle


def compare_gradients() -> None:
    """Exit with 1 unless both have the same loss and gradients; the processes' shares differ in size."""
    torch.manual_seed(0)
    network = build_network(
        "googlenet_bn", num_classes=3, width=0.05, stem="small", aux_logits=False
    ).double()
    network.dropout.p = 0.0
    images, targets = torch.randn(7, 3, 32, 32).double(), torch.arange(7) % 3
    alone = copy.deepcopy(network).train()
    F.cross_entropy(alone(images).logits, targets).backward()
    with joined("cpu") as ranks:
        model = averaged_gradients(network.train(), "all", torch.device("cpu"), ranks)
        mine = slice(ranks.rank, None, ranks.count)
        loss = F.cross_entropy(model(images[mine]).logits, targets[mine])
        (loss * len(targets[mine]) * ranks.count / len(targets)).backward()
        for (name, ours), theirs in zip(network.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11, msg=name)
        for (name, ours), theirs in zip(network.named_buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11, msg=name)


def main() -> None:
    """Train with the options on the command line."""
    torch.set_num_threads(1)
    if sys.argv[1] == "gradients":
        compare_gradients()
        return
    deadly = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    calls, real = [], step.training_loss

    def counted(*arguments):
        calls.append(1)
        mortal = os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if mortal and len(calls) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    step.training_loss = counted
    train_bundle(TrainConfig(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
