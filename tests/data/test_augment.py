"""Training views: repeatable, and distributed as they say."""

import io
import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

from inception.data import augment as module
from inception.data.augment import (
    AUGMENTS,
    NUMBERS,
    Augment,
    cut_view,
    move,
    random_box,
    training_reduction,
    view_numbers,
)
from inception.data.decode import decode_image
from inception.data.photo import Decoded, open_photo, reduction
from inception.data.preprocess import RESAMPLING, Preprocess

SMALL = Preprocess(height=24, width=24)


def picture(width: int = 60, height: int = 44, seed: int = 0) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def view_of(
    image: Image.Image,
    augment: Augment,
    index: int,
    seed: int = 0,
    epoch: int = 0,
    preprocess: Preprocess = SMALL,
) -> torch.Tensor:
    """One training view, as the loader makes it."""
    numbers = view_numbers(seed, epoch, np.array([index]))
    if augment.min_area == 1.0:
        return torch.from_numpy(move(preprocess.pixels(image)[None], augment, numbers))[0]
    out = np.empty((preprocess.in_chans, preprocess.height, preprocess.width), dtype=np.uint8)
    cut_view(Decoded(np.asarray(image)), preprocess, augment, numbers[0], out)
    return torch.from_numpy(out)


def recoloured(view: np.ndarray, strength: float, numbers: np.ndarray) -> np.ndarray:
    changed = np.array(view, order="C")
    module._recolour(changed, strength, numbers)
    return changed


def box_of(size: tuple[int, int], augment: Augment, index: int) -> tuple[int, int, int, int]:
    return random_box(size, augment, view_numbers(0, 0, np.array([index]))[0])


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_view_depends_on_seed_epoch_and_index_alone(name):
    def view(seed, epoch, index):
        return view_of(picture(), AUGMENTS[name], index, seed, epoch)

    first = view(3, 1, 7)
    assert first.shape == (3, 24, 24)
    assert first.dtype == torch.uint8
    assert torch.equal(first, view(3, 1, 7))
    if name != "none":
        others = [view(3, 1, i) for i in range(8, 16)] + [view(3, e, 7) for e in range(2, 6)]
        others += [view(s, 1, 7) for s in range(4, 8)]
        assert sum(not torch.equal(first, other) for other in others) >= 12


def test_none_is_the_evaluation_view():
    view = view_of(picture(), AUGMENTS["none"], 0)
    assert torch.equal(view, SMALL.apply(picture()))


@pytest.mark.parametrize("size", [(600, 600), (900, 600), (640, 800)])
def test_cuts_cover_the_papers_range_of_area_and_aspect(size):
    augment, area = AUGMENTS["paper"], size[0] * size[1]
    boxes = np.array([box_of(size, augment, i) for i in range(4000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares, aspects = widths * heights / area, widths / heights
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= size[0]
    assert boxes[:, 3].max() <= size[1]
    # Sides are whole pixels, which moves shares and aspects by less than a hundredth.
    assert 0.079 <= shares.min() <= 0.10
    assert 0.85 <= shares.max() <= 1
    assert 0.74 <= aspects.min() <= 0.77
    assert 1.30 <= aspects.max() <= 1.345
    # Log-uniform: portrait and landscape equally often, where both fit.
    if size[0] == size[1]:
        assert abs(np.log(aspects).mean()) < 0.01


def test_small_cuts_have_uniform_area():
    augment = Augment(min_area=0.0, aspect=(1.0, 1.0))
    # In a square every square cut fits: the area is uniform and so has mean 1/2 and deviation 1/sqrt(12).
    boxes = np.array([box_of((500, 500), augment, i) for i in range(4000)])
    shares = (boxes[:, 2] - boxes[:, 0]) ** 2 / 250000
    assert shares.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 4000))
    assert shares.std() == pytest.approx(1 / math.sqrt(12), abs=0.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (7, 300)])
@pytest.mark.parametrize("name", AUGMENTS)
def test_any_shape_gives_a_view(size, name):
    for index in range(20):
        image = Image.new("RGB", size, (50, 100, 150))
        view = view_of(image, AUGMENTS[name], index)
        assert view.shape == (3, 24, 24)


def test_a_cut_that_cannot_have_the_aspect_is_the_largest_centred_one():
    box = box_of((300, 30), Augment(min_area=0.9, aspect=(3 / 4, 4 / 3)), 0)
    assert box == (130, 0, 170, 30)


def test_half_of_the_views_are_mirrored():
    half = Image.new("RGB", (24, 24))
    half.paste((255, 255, 255), (12, 0, 24, 24))
    straight = SMALL.apply(half)
    mirrored = 0
    for index in range(1000):
        view = view_of(half, Augment(flip=True), index)
        assert torch.equal(view, straight) or torch.equal(view, straight.flip(2))
        mirrored += torch.equal(view, straight.flip(2))
    assert 430 <= mirrored <= 570
    never = [view_of(half, Augment(flip=False), i) for i in range(50)]
    assert all(torch.equal(view, straight) for view in never)


def test_alternating_mirrors_show_every_image_both_ways_in_two_epochs():
    augment = Augment(alternate=True)
    images = np.stack([picture(24, 24, seed) for seed in range(8)] * 50).transpose(0, 3, 1, 2)
    draws = np.arange(len(images))
    even, odd, later, last = (
        move(images, augment, view_numbers(3, epoch, draws, alternate=True)) for epoch in (0, 1, 6, 7)
    )
    assert np.array_equal(even, odd[..., ::-1]) and np.array_equal(even, later) and np.array_equal(odd, last)
    mirrored = (even == images[..., ::-1]).all((1, 2, 3))
    assert ((even == images).all((1, 2, 3)) != mirrored).all()
    assert 150 <= mirrored.sum() <= 250
    # All else is drawn anew in every epoch, as without it.
    numbers = [view_numbers(3, 5, draws, alternate=alternate) for alternate in (False, True)]
    assert ((numbers[0] == numbers[1]).all(0)).sum() == NUMBERS - 1


def test_a_reflected_border_is_that_of_the_picture():
    image = picture(24, 24)
    augment = Augment(max_shift=0.125, reflect=True, flip=False)
    padded = torch.nn.functional.pad(SMALL.apply(image).float(), (3, 3, 3, 3), "reflect").byte()
    shifts = [padded[:, dy : dy + 24, dx : dx + 24] for dy in range(7) for dx in range(7)]
    for index in range(40):
        view = view_of(image, augment, index)
        assert sum(torch.equal(view, shift) for shift in shifts) >= 1


def test_shifts_reach_an_eighth_each_way_and_leave_zeros():
    white = Image.new("RGB", (24, 24), (255, 255, 255))
    augment = Augment(max_shift=0.125, flip=False)
    seen = set()
    for index in range(600):
        view = view_of(white, augment, index)[0]
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
        view = view_of(image, augment, index)
        assert sum(torch.equal(view, shift) for shift in shifts) == 1


def test_cutout_blanks_one_square_anywhere():
    white = Image.new("RGB", (24, 24), (255, 255, 255))
    augment = Augment(flip=False, cutout=0.25)
    hits = torch.zeros(24, 24)
    for index in range(400):
        view = view_of(white, augment, index)
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
        whole, holed = (view_of(image, a, index) for a in (plain, cut))
        kept = holed == whole
        assert kept.any() and (holed[~kept] == 0).all()


def test_interpolations_are_drawn_evenly(monkeypatch):
    used = []
    resize = module._resize

    def watched(pixels, name, mirrored, out):
        used.append(name)
        resize(pixels, name, mirrored, out)

    monkeypatch.setattr(module, "_resize", watched)
    for index in range(1200):
        view_of(picture(30, 30), AUGMENTS["paper"], index)
    counts = np.unique(used, return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 240
    used.clear()
    view_of(picture(30, 30), AUGMENTS["crop"], 0)
    assert used == ["bilinear"]


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "box", "nearest"])
@pytest.mark.parametrize("cut", [(0, 0, 90, 70), (11, 5, 30, 22), (3, 4, 5, 68)])
def test_resizing_is_pillows(name, cut):
    image = Image.fromarray(load_sample_image("flower.jpg")).resize((90, 70)).crop(cut)
    theirs = np.asarray(image.resize((24, 24), RESAMPLING[name])).transpose(2, 0, 1)
    for mirrored in (False, True):
        ours = np.empty((3, 24, 24), dtype=np.uint8)
        module._resize(np.asarray(image), name, mirrored, ours)
        expected = theirs[:, :, ::-1] if mirrored else theirs
        assert np.abs(ours.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("order", range(6))
def test_colours_change_as_with_pillow(order):
    """Pillow cuts off the fraction at each step, and takes a whole number for the mean; ours rounds once."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    rng = np.random.default_rng(order)
    # Values in the middle, so that nothing is cut to 0..255 on the way.
    image = Image.fromarray(rng.integers(90, 150, (24, 24, 3), dtype=np.uint8))
    numbers = rng.random(NUMBERS)
    numbers[module._ORDER] = (order + 0.5) / 6
    expected = image
    for kind in list(permutations(range(3)))[order]:
        expected = enhancers[kind](expected).enhance(0.8 + 0.4 * numbers[module._FACTORS + kind])
    view = recoloured(np.asarray(image).transpose(2, 0, 1), 0.2, numbers)
    difference = view.astype(int) - np.asarray(expected).transpose(2, 0, 1)
    assert np.abs(difference).max() <= 4
    assert 0 < difference.mean() < 2


def test_grey_views_change_as_their_coloured_ones_would():
    rng = np.random.default_rng(1)
    grey = rng.integers(90, 150, (1, 24, 24), dtype=np.uint8)
    for _ in range(20):
        numbers = rng.random(NUMBERS)
        coloured = recoloured(np.repeat(grey, 3, axis=0), 0.4, numbers)
        assert np.abs(recoloured(grey, 0.4, numbers).astype(int) - coloured).max() <= 1


@pytest.mark.parametrize("name, strength", [("crop", 0.2), ("paper", 0.4)])
def test_photometric_factors_stay_in_bounds_in_every_order(name, strength, monkeypatch):
    orders, drawn = [], []

    def recording(order, factors, mean):
        orders.append(order)
        drawn.append(factors)
        return 1.0, 0.0, 0.0

    monkeypatch.setattr(module, "_colour_change", recording)
    for index in range(400):
        view_of(picture(), AUGMENTS[name], index)
    factors = np.array(drawn)
    assert factors.shape == (400, 3)
    assert (1 - strength <= factors.min(0)).all() and (factors.min(0) <= 1 - 0.95 * strength).all()
    assert (1 + 0.95 * strength <= factors.max(0)).all() and (factors.max(0) <= 1 + strength).all()
    assert len(set(orders)) == 6


def test_values_are_cut_to_a_byte():
    view = np.array([[[0, 255]], [[0, 255]], [[0, 255]]], dtype=np.uint8)
    numbers = np.full(NUMBERS, 0.999)
    assert recoloured(view, 0.9, numbers)[:, 0].tolist() == [[0, 255]] * 3


def test_views_have_the_preprocessings_colours():
    image = Image.new("RGB", (30, 30), (200, 100, 50))
    bgr = Preprocess(height=8, width=8, color="BGR")
    view = view_of(image, Augment(min_area=0.5), 0, preprocess=bgr)
    assert view[:, 0, 0].tolist() == [50, 100, 200]
    grey = Preprocess(height=8, width=8, color="L", mean=(0.5,), std=(0.5,))
    assert view_of(image, AUGMENTS["paper"], 0, preprocess=grey).shape == (1, 8, 8)
    assert view_of(image, Augment(min_area=0.5), 0, preprocess=grey)[0, 0, 0] == image.convert("L").getpixel(
        (0, 0)
    )


def test_cuts_are_mirrored_as_often_as_not():
    half = Image.new("RGB", (240, 240))
    half.paste((255, 255, 255), (120, 0, 240, 240))
    plain = Augment(min_area=0.9, aspect=(1.0, 1.0), flip=False)
    mirrored = 0
    for index in range(400):
        straight, view = view_of(half, plain, index), view_of(half, replace(plain, flip=True), index)
        assert torch.equal(view, straight) or torch.equal(view, straight.flip(2))
        mirrored += torch.equal(view, straight.flip(2))
    assert 160 <= mirrored <= 240


def test_no_cut_of_a_reduced_photograph_has_to_be_enlarged():
    crop = AUGMENTS["crop"]
    reduce, factors = training_reduction(SMALL, crop), set()
    for size in [
        (60, 44),
        (150, 150),
        (240, 180),
        (300, 298),
        (600, 130),
        (130, 600),
        (1200, 900),
        (1000, 999),
    ]:
        factor = reduction(*size, reduce(*size))
        factors.add(factor)
        smaller = (-(-size[0] // factor), -(-size[1] // factor))
        boxes = np.array([box_of(smaller, crop, index) for index in range(300)])
        sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        if factor > 1:
            assert sides.min() >= 1.5 * 24 - 1
    assert factors == {1, 2, 4, 8}


@pytest.mark.parametrize("name", ["china", "flower"])
def test_cuts_of_a_reduced_photograph_are_near_those_of_the_whole(name):
    """The same cut of the photograph at 1/2 or 1/4 and of all of it, resized by Pillow."""
    picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    full, crop = decode_image(buffer.getvalue()), replace(AUGMENTS["crop"], photometric=0.0, flip=False)
    for side in (20, 40, 72):
        preprocess = Preprocess(height=side, width=side)
        photo = open_photo(buffer.getvalue(), name, training_reduction(preprocess, crop))
        assert photo.factor == {20: 8, 40: 4, 72: 2}[side]
        differences = []
        for numbers in view_numbers(0, 0, np.arange(30)):
            view = np.empty((3, side, side), dtype=np.uint8)
            cut_view(photo, preprocess, crop, numbers, view)
            box = [photo.factor * edge for edge in random_box(photo.size, crop, numbers)]
            box[2:] = min(box[2], full.width), min(box[3], full.height)
            exact = full.resize((side, side), Image.Resampling.BILINEAR, box)
            differences.append(np.abs(view.astype(int) - np.asarray(exact).transpose(2, 0, 1)).mean())
        assert max(differences) < 5
        assert np.mean(differences) < 3


@pytest.mark.parametrize("name", ["none", "shift", "cutout", "paper"])
def test_views_that_must_be_exact_are_not_reduced(name):
    assert training_reduction(SMALL, AUGMENTS[name]) is None
