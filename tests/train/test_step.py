"""One step: parts add up to the whole, mixing and weighing by formula, what is not finite is left out."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shapes import tiny_config, write_shapes
from test_resume import StopAfter, assert_same_run

from inception.data.augment import AUGMENTS
from inception.data.loader import Batch, Loader, balanced_order
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import TrainingError, UsageError
from inception.files import locked
from inception.nets.output import Output
from inception.nets.registry import build_network
from inception.train import loop as loop_module
from inception.train import step as step_module
from inception.train.checkpoint import CHECKPOINT_FOLDER, list_checkpoints
from inception.train.config import TrainConfig
from inception.train.interrupt import Interrupted
from inception.train.layers import scale_rates
from inception.train.log import Silent, read_rows
from inception.train.losses import balanced_weights, training_loss
from inception.train.mix import mix_batch, mix_generator
from inception.train.optimizer import AveragedWeights, make_optimizer
from inception.train.ranks import ALONE
from inception.train.run import train_bundle
from inception.train.state import Progress, TrainingState
from inception.train.step import Step, even_parts
from inception.weights.bundle import load_bundle

CPU = torch.device("cpu")


def make_step(labels=(0, 1, 2), model="lenet5", **options) -> Step:
    torch.manual_seed(0)
    network = build_network(
        model, num_classes=3, **({} if model == "lenet5" else {"width": 0.05, "stem": "small"})
    )
    chosen = {
        "batch_size": 8,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "ema_decay": 0.5,
    }
    config = TrainConfig(**{**chosen, "label_smoothing": 0.0, **options})
    optimizer = make_optimizer(network, config)
    state = TrainingState(network, optimizer, AveragedWeights(network, 0.5), Progress(), CPU, ALONE)
    return Step(network, network, config, state, Preprocess(height=32, width=32), "float32", list(labels))


def make_batch(count=8, position=0) -> Batch:
    rng = torch.Generator().manual_seed(position)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    return Batch(images, torch.arange(count) % 3, torch.arange(count), position)


def gradients(step: Step) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in step.network.named_parameters()}


@pytest.mark.parametrize("count, parts", [(8, 1), (8, 2), (8, 3), (7, 4), (3, 8), (1, 2)])
def test_parts_are_even_and_cover_the_batch(count, parts):
    pieces = even_parts(count, min(count, parts))
    assert [index for piece in pieces for index in range(count)[piece]] == list(range(count))
    lengths = [len(range(count)[piece]) for piece in pieces]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("options", [{}, {"class_balance": "weights"}, {"mixup": 0.4}], ids=str)
def test_accumulated_parts_have_the_gradient_of_the_whole(parts, options):
    whole, divided = make_step(**options), make_step(accumulation=parts, **options)
    tallies = [step(make_batch(), 0.1) for step in (whole, divided)]
    assert tallies[1].loss == pytest.approx(tallies[0].loss, rel=1e-5)
    assert (tallies[0].correct, tallies[0].seen) == (tallies[1].correct, tallies[1].seen)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(divided)[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_part_of_one_image_leaves_batch_norm_statistics_alone():
    step = make_step(model="googlenet_bn", accumulation=4)
    before = step.network.state_dict()["conv1.bn.running_mean"].clone()
    step(make_batch(5), 0.1)  # parts of 1, 1, 1 and 2, usually 2
    assert torch.equal(step.network.state_dict()["conv1.bn.running_mean"], before)
    step(make_batch(8), 0.1)
    assert not torch.equal(step.network.state_dict()["conv1.bn.running_mean"], before)


def test_mixup_is_its_formula():
    images, targets = torch.randn(6, 3, 5, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed, soft = mix_batch(images, targets, 3, 0.4, 0.0, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    partner, share = rng.permutation(6), rng.beta(0.4, 0.4)
    expected = share * images.numpy() + (1 - share) * images.numpy()[partner]
    np.testing.assert_allclose(mixed.numpy(), expected, rtol=1e-5, atol=1e-6)
    hot = np.eye(3)[targets.numpy()]
    np.testing.assert_allclose(soft.numpy(), share * hot + (1 - share) * hot[partner], rtol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_takes_a_box_of_the_partner_and_its_share_of_the_target(seed):
    images = torch.arange(6.0)[:, None, None, None].expand(6, 2, 9, 7).contiguous()
    before = images.clone()
    mixed, soft = mix_batch(images, torch.arange(6), 6, 0.0, 1.0, np.random.default_rng(seed))
    assert torch.equal(images, before)
    for index in range(6):
        values = mixed[index, 0]
        own = float((values == index).float().mean())
        assert torch.equal(mixed[index, 0], mixed[index, 1])
        assert len(values.unique()) <= 2
        assert float(soft[index, index]) >= own - 1e-6
        assert float(soft[index].sum()) == pytest.approx(1.0)
        other = [int(v) for v in values.unique() if v != index]
        if other:
            assert float(soft[index, other[0]]) == pytest.approx(1 - own, abs=1e-6)
            rows, columns = torch.nonzero(values == other[0], as_tuple=True)
            box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert int(box) == len(rows)


def test_mixing_is_drawn_from_seed_epoch_position_and_process():
    streams = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert len({mix_generator(*words).random() for words in streams}) == 5
    assert mix_generator(*streams[1]).random() == mix_generator(*streams[1]).random()


def test_balanced_weights_are_sklearns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 7 + [1] * 2 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    torch.testing.assert_close(balanced_weights(labels, 3).double(), torch.tensor(expected))
    weights = balanced_weights(labels, 4)
    assert weights[3] == 0
    assert float(weights[torch.tensor(labels)].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_loss_is_pytorchs_up_to_its_divisor(smoothing):
    logits, targets, weights = torch.randn(9, 3), torch.arange(9) % 3, torch.tensor([0.5, 1.0, 4.0])
    ours = training_loss(Output(logits), targets, 0.0, 0.3, weights)
    theirs = F.cross_entropy(logits, targets, weight=weights) * weights[targets].sum() / 9
    torch.testing.assert_close(ours, theirs)
    hot = F.one_hot(targets, 3).float()
    soft = training_loss(Output(logits), hot, smoothing, 0.3, weights)
    torch.testing.assert_close(soft, training_loss(Output(logits), targets, smoothing, 0.3, weights))


def test_balanced_order_draws_every_class_alike_and_each_view_once():
    labels = np.array([0] * 20 + [1] * 5 + [2] * 2)
    order = balanced_order(labels, 3, 1)
    assert len(order) == 27
    assert len(set(order.tolist())) == 27
    drawn = labels[order % 27]
    assert np.bincount(drawn).tolist() == [9, 9, 9]
    rare = np.bincount(order % 27, minlength=27)[25:]
    assert abs(int(rare[0]) - int(rare[1])) <= 1
    assert np.bincount(order % 27, minlength=27)[:20].max() == 1
    assert balanced_order(labels, 3, 1).tolist() == order.tolist()
    assert balanced_order(labels, 3, 2).tolist() != order.tolist()


def test_balanced_loader_resumes_within_the_epoch(tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 8, "val": 1})
    for index in range(2, 8):
        (data / "train" / "jade" / f"{index:02}.png").unlink()
    dataset = open_dataset(data)
    loader = Loader(dataset, dataset.split("train"), balanced=True)
    small, views = Preprocess(height=8, width=8), AUGMENTS["shift"]
    batches = list(loader.training_batches(small, views, 4, 0, 0))
    later = list(loader.training_batches(small, views, 4, 0, 0, skip=2))
    assert [batch.position for batch in later] == [2, 3, 4]
    for ours, theirs in zip(later, batches[2:], strict=True):
        assert torch.equal(ours.images, theirs.images)
    counts = torch.bincount(torch.cat([batch.targets for batch in batches]))
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    "optimizer, model", [("muon", "googlenet_bn"), ("adamw", "googlenet"), ("sgd", "lenet5")]
)
def test_layer_decay_scales_the_rate_by_depth(optimizer, model):
    network = build_network(
        model, num_classes=3, **({} if model == "lenet5" else {"width": 0.05, "stem": "small"})
    )
    config = TrainConfig(optimizer=optimizer, learning_rate=0.1, weight_decay=0.01)
    unit = make_optimizer(network, config)
    assert "rate_scale" not in unit.param_groups[0]
    scale_rates(unit, network, 1.0)
    assert "rate_scale" not in unit.param_groups[0]
    decay = {id(p): group["weight_decay"] for group in unit.param_groups for p in group["params"]}
    scale_rates(unit, network, 0.5)
    scales = {id(p): group["rate_scale"] for group in unit.param_groups for p in group["params"]}
    assert scales.keys() == {id(p) for p in network.parameters()}
    assert decay == {id(p): group["weight_decay"] for group in unit.param_groups for p in group["params"]}
    stages = [name for name in network.endpoints if list(getattr(network, name).parameters())]
    for depth, name in enumerate(reversed(stages), start=1):
        assert {scales[id(p)] for p in getattr(network, name).parameters()} == {0.5**depth}
    assert {scales[id(p)] for p in network.fc.parameters()} == {1.0}


def test_the_step_uses_the_scale():
    step = make_step()
    scale_rates(step.state.optimizer, step.network, 0.7)
    before = {name: p.detach().clone() for name, p in step.network.named_parameters()}
    step(make_batch(), 0.1)
    first = next(iter(step.network.endpoints))
    stages = [name for name in step.network.endpoints if list(getattr(step.network, name).parameters())]
    for name, parameter in getattr(step.network, first).named_parameters(prefix=first):
        moved = before[name] - parameter.detach()
        # Nesterov's first step is (1 + momentum) times the gradient.
        expected = 0.1 * 0.7 ** len(stages) * 1.9 * parameter.grad
        torch.testing.assert_close(moved, expected, rtol=1e-2, atol=1e-6)


def poison(monkeypatch, bad: set[int], gradient_only: bool = False):
    """Make the losses (or only the gradients) of the given calls not finite."""
    calls, real = [], step_module.training_loss

    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    def poisoned(*arguments):
        calls.append(1)
        loss = real(*arguments)
        if len(calls) in bad:
            return Explode.apply(loss) if gradient_only else loss * math.nan
        return loss

    monkeypatch.setattr(step_module, "training_loss", poisoned)


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_step_that_is_not_finite_is_as_if_it_had_not_been(monkeypatch, gradient_only):
    skipping, plain = (make_step(model="googlenet_bn", skip_nonfinite=True) for _ in range(2))
    for step in (skipping, plain):
        step.network.dropout.p = 0.0
    with monkeypatch.context() as patched:
        poison(patched, {2}, gradient_only)
        results = [skipping(make_batch(position=number), 0.1) for number in range(3)]
    for number in (0, 2):
        plain(make_batch(position=number), 0.1)
    assert math.isnan(results[1].loss)
    assert results[1].seen == 0
    assert skipping.state.progress.skipped == 1
    for name, value in plain.network.state_dict().items():
        assert torch.equal(skipping.network.state_dict()[name], value), name
    for name, value in plain.state.average.values.items():
        assert torch.equal(skipping.state.average.values[name], value), name


def test_fresh_statistics_begin_as_the_mean_of_all_batches():
    step = make_step(model="googlenet_bn")
    seen, running = [], torch.zeros(1)
    first = step.network.conv1.conv
    first.register_forward_hook(lambda _, __, y: seen.append(y.detach().mean((0, 2, 3))))
    for number in range(12):
        step(make_batch(position=number), 0.0)
        # From the eleventh on with the network's own momentum.
        running = torch.stack(seen).mean(0) if number < 10 else 0.9 * running + 0.1 * seen[-1]
        torch.testing.assert_close(step.network.conv1.bn.running_mean, running, rtol=1e-4, atol=1e-5)
        assert step.network.conv1.bn.momentum == 0.1  # or torch.compile would compile again and again


def test_statistics_that_weights_brought_are_moved_as_ever():
    step = make_step(model="googlenet_bn", weights="somewhere")
    step(make_batch(), 0.0)
    assert step.network.conv1.bn.momentum == 0.1
    assert float((step.network.conv1.bn.running_var - 0.9).min()) >= 0.0


def test_too_many_in_a_row_stop_all_the_same(monkeypatch):
    poison(monkeypatch, set(range(1, 1000)))
    step = make_step(skip_nonfinite=True)
    with pytest.raises(TrainingError, match=r"50 steps in a row were not finite"):
        for _ in range(100):
            step(make_batch(), 0.1)
    assert step.state.progress.skipped == 50


def test_skipped_steps_are_counted_and_survive_an_interruption(shapes, tmp_path, monkeypatch):
    options = {"skip_nonfinite": True, "checkpoint_steps": 2}
    with monkeypatch.context() as patched:
        poison(patched, {3})
        train_bundle(tiny_config(shapes, tmp_path / "straight", **options))
    rows = read_rows(tmp_path / "straight" / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [1, 1]
    assert all(math.isfinite(row["train_loss"]) for row in rows)


def test_weights_that_are_not_finite_are_never_saved(shapes, tmp_path, monkeypatch):
    """The loss is finite, its gradient is not: the damage shows in the weights before it shows in a loss."""
    with monkeypatch.context() as patched:
        poison(patched, {6}, gradient_only=True)  # the last step of the first epoch
        with pytest.raises(TrainingError, match=r"no longer finite in epoch 1; the last checkpoint is kept"):
            train_bundle(tiny_config(shapes, tmp_path / "run", checkpoint_steps=2))
    [newest, *_] = list_checkpoints(tmp_path / "run" / CHECKPOINT_FOLDER)
    assert newest.stem == "00000-0000004"
    resumed = train_bundle(tiny_config(shapes, tmp_path / "run", checkpoint_steps=2, resume=True))
    straight = train_bundle(tiny_config(shapes, tmp_path / "straight"))
    ours, theirs = load_bundle(resumed.bundle), load_bundle(straight.bundle)
    assert all(torch.equal(ours.state_dict[name], value) for name, value in theirs.state_dict.items())


def test_patience_stops_after_epochs_that_are_no_better(shapes, tmp_path):
    class Listening(Silent):
        heard: tuple[str, ...] = ()

        def message(self, text):
            self.heard += (text,)

    observer = Listening()
    config = tiny_config(shapes, tmp_path / "run", epochs=40, patience=2, learning_rate=1e-9, augment="none")
    train_bundle(config, observer)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    best = max(range(len(rows)), key=lambda index: (rows[index]["val_top1"], -index))
    assert len(rows) == best + 3 < 40
    assert any("stopped early: no better validation accuracy in 2 epochs" in text for text in observer.heard)
    train_bundle(replace(config, resume=True))
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == len(rows)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"accumulation": 9}, "leaves parts without images"),
        ({"patience": 2, "val_fraction": 0.0}, "needs a val split"),
    ],
    ids=str,
)
def test_wishes_that_cannot_be_met(tmp_path, options, message):
    data = write_shapes(tmp_path / "data", {"train": 4})
    with pytest.raises(UsageError, match=message):
        train_bundle(tiny_config(data, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"accumulation": 3, "class_balance": "sampling", "mixup": 0.2, "cutmix": 1.0, "layer_decay": 0.7},
        {
            "class_balance": "weights",
            "model": "googlenet",
            "learning_rate": 0.01,
            "cutmix": 1.0,
            "accumulation": 2,
        },
    ],
    ids=["all together", "with heads"],
)
def test_runs_with_these_options_resume_bit_identically(shapes, tmp_path, options):
    straight = train_bundle(tiny_config(shapes, tmp_path / "straight", **options))
    assert isinstance(straight.metrics["top1"], float)
    config = tiny_config(shapes, tmp_path / "run", **options)
    with pytest.raises(Interrupted):
        train_bundle(config, StopAfter(9))
    train_bundle(replace(config, resume=True))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_the_newest_checkpoints_and_the_best_epochs_are_kept(shapes, tmp_path):
    config = tiny_config(shapes, tmp_path / "run", epochs=3, checkpoint_steps=2, keep_checkpoints=3)
    result = train_bundle(config)
    kept = [path.stem for path in list_checkpoints(tmp_path / "run" / CHECKPOINT_FOLDER)]
    newest = ["00003-0000000", "00002-0000006", "00002-0000004"]
    best = f"{result.best_epoch:05}-0000000"
    assert kept == sorted({*newest, best}, reverse=True)
    files = {path.name for path in (tmp_path / "run" / CHECKPOINT_FOLDER).iterdir()}
    assert files == {f"{stem}{suffix}" for stem in kept for suffix in (".json", ".safetensors")}


def test_two_processes_cannot_train_in_one_folder(shapes, tmp_path):
    pytest.importorskip("fcntl", reason="needs POSIX locks")
    train_bundle(tiny_config(shapes, tmp_path / "run", epochs=1))
    with locked(tmp_path / "run" / ".lock") as free:
        assert free
        with pytest.raises(UsageError, match="another process is training in"):
            train_bundle(tiny_config(shapes, tmp_path / "run", epochs=1, resume=True))


def test_a_request_to_stop_while_measuring_is_answered_at_once(shapes, tmp_path):
    real, seen = loop_module.validate, []

    def watched(*arguments):
        seen.append(1)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop_module, "validate", watched)
        with pytest.raises(Interrupted, match="stopped while measuring epoch 2"):
            train_bundle(tiny_config(shapes, tmp_path / "run", epochs=3))
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 1
    train_bundle(tiny_config(shapes, tmp_path / "run", epochs=3, resume=True))
    train_bundle(tiny_config(shapes, tmp_path / "straight", epochs=3))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_a_compiled_step_is_the_same_step(tmp_path):
    plain, compiled = make_step(model="lenet5"), make_step(model="lenet5", compile="yes")
    batch = make_batch()
    assert compiled(batch, 0.1).loss == pytest.approx(plain(batch, 0.1).loss, rel=1e-5)
    for ours, theirs in zip(compiled.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_without_a_compiler_one_sentence(monkeypatch):
    def refuse(function, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(UsageError, match=r"cannot compile \(no C\+\+ compiler\)"):
        make_step(compile="yes")
