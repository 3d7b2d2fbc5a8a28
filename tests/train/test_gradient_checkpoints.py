"""Gradient checkpointing in training: the same weights and statistics, bit for bit, from less memory."""

import pytest
import torch
from shapes import tiny_config, write_shapes
from test_run import same_weights
from test_step import make_batch, make_step

from inception.train.run import train_bundle
from inception.weights.bundle import load_bundle


@pytest.mark.parametrize("options", [{}, {"accumulation": 2}, {"batch_norm": "frozen"}], ids=str)
def test_a_step_gives_the_same_bits(options):
    states = []
    for wished in (False, True):
        step = make_step(model="googlenet_bn", **options)
        step.network.set_grad_checkpointing(wished)
        torch.manual_seed(1)  # dropout draws the same masks
        step(make_batch(), 0.1)
        step(make_batch(position=1), 0.1)
        states.append(step.network.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_it_is_an_option_of_training(tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 4, "val": 2})
    plain = train_bundle(tiny_config(data, tmp_path / "plain", epochs=1))
    saving = train_bundle(tiny_config(data, tmp_path / "saving", epochs=1, checkpoint_gradients=True))
    assert same_weights(load_bundle(plain.bundle), load_bundle(saving.bundle))


def test_fewer_activations_are_kept():
    kept = []
    for wished in (False, True):
        step = make_step(model="googlenet_bn")
        network = step.network.train()
        network.set_grad_checkpointing(wished)
        sizes: dict[int, int] = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(4, 3, 32, 32))
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.5 * kept[0]
