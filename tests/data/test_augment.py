"""Training views: repeatable, and distributed as they say."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from inception.data import augment as module
from inception.data.augment import AUGMENTS, Augment, augmented_view, random_box, view_generator
from inception.data.preprocess import Preprocess

SMALL = Preprocess(height=24, width=24)


def picture(width: int = 60, height: int = 44, seed: int = 0) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_view_depends_on_seed_epoch_and_index_alone(name):
    def view(seed, epoch, index):
        return augmented_view(picture(), SMALL, AUGMENTS[name], view_generator(seed, epoch, index))

    first = view(3, 1, 7)
    assert first.shape == (3, 24, 24)
    assert first.dtype == torch.uint8
    assert torch.equal(first, view(3, 1, 7))
    if name != "none":
        others = [view(3, 1, i) for i in range(8, 16)] + [view(3, e, 7) for e in range(2, 6)]
        others += [view(s, 1, 7) for s in range(4, 8)]
        assert sum(not torch.equal(first, other) for other in others) >= 12


def test_none_is_the_evaluation_view():
    view = augmented_view(picture(), SMALL, AUGMENTS["none"], view_generator(0, 0, 0))
    assert torch.equal(view, SMALL.apply(picture()))


@pytest.mark.parametrize("size", [(60, 60), (90, 60), (64, 80)])
def test_cuts_cover_the_papers_range_of_area_and_aspect(size):
    augment, area = AUGMENTS["paper"], size[0] * size[1]
    boxes = np.array([random_box(size, augment, view_generator(0, 0, i)) for i in range(4000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares, aspects = widths * heights / area, widths / heights
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= size[0]
    assert boxes[:, 3].max() <= size[1]
    assert 0.08 - 1e-9 <= shares.min() <= 0.10
    assert 0.85 <= shares.max() <= 1 + 1e-9
    assert 3 / 4 - 1e-9 <= aspects.min() <= 0.77
    assert 1.30 <= aspects.max() <= 4 / 3 + 1e-9
    # Log-uniform: portrait and landscape equally often, where both fit.
    if size[0] == size[1]:
        assert abs(np.log(aspects).mean()) < 0.01


def test_small_cuts_have_uniform_area():
    augment = Augment(min_area=0.0, aspect=(1.0, 1.0))
    # In a square every square cut fits: the area is uniform and so has mean 1/2 and deviation 1/sqrt(12).
    boxes = np.array([random_box((50, 50), augment, view_generator(0, 0, i)) for i in range(4000)])
    shares = (boxes[:, 2] - boxes[:, 0]) ** 2 / 2500
    assert shares.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 4000))
    assert shares.std() == pytest.approx(1 / math.sqrt(12), abs=0.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (7, 300)])
@pytest.mark.parametrize("name", AUGMENTS)
def test_any_shape_gives_a_view(size, name):
    for index in range(20):
        image = Image.new("RGB", size, (50, 100, 150))
        view = augmented_view(image, SMALL, AUGMENTS[name], view_generator(0, 0, index))
        assert view.shape == (3, 24, 24)


def test_a_cut_that_cannot_have_the_aspect_is_the_largest_centred_one():
    box = random_box((300, 30), Augment(min_area=0.9, aspect=(3 / 4, 4 / 3)), view_generator(0, 0, 0))
    assert box == pytest.approx((130.0, 0.0, 170.0, 30.0))


def test_half_of_the_views_are_mirrored():
    half = Image.new("RGB", (24, 24))
    half.paste((255, 255, 255), (12, 0, 24, 24))
    straight = SMALL.apply(half)
    mirrored = 0
    for index in range(1000):
        view = augmented_view(half, SMALL, Augment(flip=True), view_generator(0, 0, index))
        assert torch.equal(view, straight) or torch.equal(view, straight.flip(2))
        mirrored += torch.equal(view, straight.flip(2))
    assert 430 <= mirrored <= 570
    never = [augmented_view(half, SMALL, Augment(flip=False), view_generator(0, 0, i)) for i in range(50)]
    assert all(torch.equal(view, straight) for view in never)


def test_shifts_reach_an_eighth_each_way_and_leave_zeros():
    white = Image.new("RGB", (24, 24), (255, 255, 255))
    augment = Augment(max_shift=0.125, flip=False)
    seen = set()
    for index in range(600):
        view = augmented_view(white, SMALL, augment, view_generator(0, 0, index))[0]
        rows, columns = view.any(1).nonzero().flatten(), view.any(0).nonzero().flatten()
        # What is left is a full rectangle that touches a border on each axis.
        assert int(view.count_nonzero()) == len(rows) * len(columns)
        dy = int(rows[0]) if rows[0] else int(rows[-1]) - 23
        dx = int(columns[0]) if columns[0] else int(columns[-1]) - 23
        seen.add((dy, dx))
    assert seen == {(dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)}


def test_a_shift_moves_the_picture():
    image = picture(24, 24)
    plain = SMALL.apply(image)
    augment = Augment(max_shift=0.125, flip=False)
    padded = torch.nn.functional.pad(plain, (3, 3, 3, 3))
    shifts = [padded[:, dy : dy + 24, dx : dx + 24] for dy in range(7) for dx in range(7)]
    for index in range(40):
        view = augmented_view(image, SMALL, augment, view_generator(0, 0, index))
        assert sum(torch.equal(view, shift) for shift in shifts) == 1


def test_cutout_blanks_one_square_anywhere():
    white = Image.new("RGB", (24, 24), (255, 255, 255))
    augment = Augment(flip=False, cutout=0.25)
    hits = torch.zeros(24, 24)
    for index in range(400):
        view = augmented_view(white, SMALL, augment, view_generator(0, 0, index))
        assert torch.equal(view[0], view[1]) and torch.equal(view[0], view[2])
        blank = view[0] == 0
        rows, columns = blank.any(1).nonzero().flatten(), blank.any(0).nonzero().flatten()
        # A full rectangle: 6 x 6, less at the borders, where the square reaches out of the picture.
        assert int(blank.sum()) == len(rows) * len(columns) > 0
        assert all(len(side) == 6 or side[0] == 0 or side[-1] == 23 for side in (rows, columns))
        hits += blank
    # Squares whose centre is within three pixels of a pixel hit it: 1/16 of them, half as many at a side.
    assert hits[6:18, 6:18].mean() / 400 == pytest.approx(1 / 16, rel=0.15)
    assert hits[0, 6:18].mean() / 400 == pytest.approx(1 / 32, rel=0.4)


def test_cutout_changes_nothing_else_of_a_view():
    image = picture(24, 24)
    plain, cut = AUGMENTS["shift"], AUGMENTS["cutout"]
    for index in range(40):
        whole, holed = (augmented_view(image, SMALL, a, view_generator(0, 0, index)) for a in (plain, cut))
        kept = holed == whole
        assert kept.any() and (holed[~kept] == 0).all()


def test_interpolations_are_drawn_evenly(monkeypatch):
    used = []
    resize = Image.Image.resize

    def watched(self, size, resample=None, box=None):
        used.append(resample)
        return resize(self, size, resample, box)

    monkeypatch.setattr(Image.Image, "resize", watched)
    image = Image.new("RGB", (30, 30))
    for index in range(1200):
        augmented_view(image, SMALL, AUGMENTS["paper"], view_generator(0, 0, index))
    counts = np.unique(used, return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 240
    used.clear()
    augmented_view(image, SMALL, AUGMENTS["crop"], view_generator(0, 0, 0))
    assert used == [Image.Resampling.BILINEAR]


@pytest.mark.parametrize("name, strength", [("crop", 0.2), ("paper", 0.4)])
def test_photometric_factors_stay_in_bounds_in_every_order(name, strength, monkeypatch):
    drawn, orders = {0: [], 1: [], 2: []}, []
    classes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)

    def recording(position):
        class Enhancer:
            def __init__(self, image):
                self.image = image

            def enhance(self, factor):
                drawn[position].append(factor)
                orders.append(position)
                return classes[position](self.image).enhance(factor)

        return Enhancer

    monkeypatch.setattr(module, "_ENHANCERS", tuple(recording(position) for position in range(3)))
    for index in range(400):
        augmented_view(picture(), SMALL, AUGMENTS[name], view_generator(0, 0, index))
    for factors in drawn.values():
        assert len(factors) == 400
        assert 1 - strength <= min(factors) <= 1 - 0.95 * strength
        assert 1 + 0.95 * strength <= max(factors) <= 1 + strength
    assert len({tuple(orders[i : i + 3]) for i in range(0, len(orders), 3)}) == 6


def test_views_have_the_preprocessings_colours():
    image = Image.new("RGB", (30, 30), (200, 100, 50))
    bgr = Preprocess(height=8, width=8, color="BGR")
    view = augmented_view(image, bgr, Augment(min_area=0.5), view_generator(0, 0, 0))
    assert view[:, 0, 0].tolist() == [50, 100, 200]
    grey = Preprocess(height=8, width=8, color="L", mean=(0.5,), std=(0.5,))
    assert augmented_view(image, grey, AUGMENTS["paper"], view_generator(0, 0, 0)).shape == (1, 8, 8)
