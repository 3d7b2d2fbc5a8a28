"""One process of a run under torchrun, for test_ranks.py: trains, and perhaps dies once on the way.

torchrun --nproc-per-node 2 worker.py '{"data": …, "output": …}' [batches after which process 1 dies]
"""

import json
import os
import signal
import sys

import torch

from inception.train import step
from inception.train.config import TrainConfig
from inception.train.run import train_bundle


def main() -> None:
    """Train with the options on the command line."""
    torch.set_num_threads(1)
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
