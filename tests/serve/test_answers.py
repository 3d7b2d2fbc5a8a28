"""What the inference process answers with, without a process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from inception.nets.registry import build_network
from inception.runtime.classifier import Classifier
from inception.runtime.plan import Plan
from inception.runtime.session import Session
from inception.runtime.timing import probe_images
from inception.serve.answers import Answerer
from inception.weights.bundle import Bundle, save_bundle


def test_auxiliary_heads_leave_the_answer_of_an_optimised_bundle_to_its_engine(
    tiny_bundle: Bundle, tmp_path: Path
):
    torch.manual_seed(3)
    network = build_network("googlenet_bn", num_classes=3, width=0.05, stem="small", aux_logits=True)
    bundle = replace(tiny_bundle, arguments=network.arguments, state_dict=network.state_dict())
    save_bundle(bundle, tmp_path / "bundle")
    plan = Plan("openvino", "int8", 1, 1)
    session = Session(tmp_path / "bundle", plan, lambda pixels: np.full((len(pixels), 3), 7, np.float32))
    batch = torch.from_numpy(probe_images((3, 32, 32), 2))
    logits, heads = Answerer(session, 10**6)._run(batch, auxiliary=True)
    assert logits.tolist() == [[7.0] * 3] * 2
    own, expected = Answerer(Classifier(bundle, "cpu"), 10**6)._run(batch, auxiliary=True)
    assert torch.allclose(own, Classifier(bundle, "cpu").logits(batch), atol=1e-5)
    assert heads.keys() == expected.keys() == set(network.aux_taps)
    for name, values in heads.items():
        assert torch.allclose(values, expected[name], atol=1e-5)
