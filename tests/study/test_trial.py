"""Small training runs."""

import pytest
import torch

from inception.errors import DataError
from inception.nets.registry import build_network
from inception.study.experiment import Options
from inception.study.trial import Images, Recipe, augmented, load_images, train


@pytest.fixture(scope="module")
def colours() -> Images:
    """Three classes told apart by their colour."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(96) % 3
    images = torch.randint(0, 80, (96, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images[torch.arange(96), targets] += 150
    return Images("colours", 3, images, targets, images, targets, flip=True)


def run(images: Images, seed: int, **more):
    torch.manual_seed(seed)
    network = build_network("googlenet_bn", num_classes=3, stem="small", width=0.05)
    return train(network, images, Recipe(epochs=3, rate=0.05, batch=16), seed, **more)


def test_learns_and_repeats(colours):
    steps: list[float] = []
    first = run(colours, 0, watch=lambda _, epochs: steps.append(epochs))
    assert first.top1 > 0.8
    again = run(colours, 0)
    assert (again.top1, again.train_loss) == (first.top1, first.train_loss)
    assert run(colours, 1).train_loss != first.train_loss
    assert len(steps) == 3 * 6
    assert steps[0] == 0 and steps[-1] == pytest.approx(17 / 6)


def test_augmented_views_are_moved_cuts():
    batch = (
        torch.arange(2 * 3 * 16 * 16, dtype=torch.int64).remainder(250).to(torch.uint8).view(2, 3, 16, 16) + 1
    )
    views = augmented(batch, False, torch.Generator().manual_seed(3))
    assert views.shape == batch.shape
    padded = torch.nn.functional.pad(batch, (2, 2, 2, 2))
    for view, source in zip(views, padded, strict=True):
        cuts = [source[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        assert any(torch.equal(view, cut) for cut in cuts)
    flipped = augmented(
        batch.expand(2, 3, 16, 16).repeat(20, 1, 1, 1), True, torch.Generator().manual_seed(0)
    )
    assert not torch.equal(
        flipped, augmented(batch.repeat(20, 1, 1, 1), False, torch.Generator().manual_seed(0))
    )


def test_images_are_those_asked_for():
    images = load_images(Options(data="digits", images=50))
    assert images.train.shape == (50, 3, 32, 32) and images.train.dtype == torch.uint8
    assert images.test.shape[0] == 50
    assert images.classes == 10 and not images.flip
    again = load_images(Options(data="digits", images=50))
    assert torch.equal(images.train, again.train)


def test_a_set_without_test_images_is_refused(tmp_path):
    from PIL import Image

    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(DataError):
        load_images(Options(data=str(tmp_path), images=5))
