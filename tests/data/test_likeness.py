"""Pictures that look the same are grouped; others are not."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from inception.data import likeness
from inception.data.decode import decode_image
from inception.data.likeness import PictureFacts, examine, similar_groups


def scene(seed: int, size: int = 128) -> Image.Image:
    """A smooth random picture, like a photo out of focus."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def facts(image: Image.Image, kind: str = "PNG", **options) -> PictureFacts:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return examine(buffer.getvalue(), name="x", max_pixels=10**7)


def test_facts_of_a_file():
    grey = scene(0).convert("L")
    found = facts(grey, "JPEG")
    assert (found.format, found.mode, found.width, found.height) == ("JPEG", "L", 128, 128)
    assert len(found.thumbnail) == 256


def test_equal_pixels_are_equal_in_any_lossless_file():
    kept = {facts(scene(1), kind).pixels for kind in ("PNG", "BMP", "TIFF")}
    assert len(kept) == 1
    assert facts(scene(2)).pixels not in kept
    wide, tall = Image.new("RGB", (8, 4)), Image.new("RGB", (4, 8))
    assert facts(wide).pixels != facts(tall).pixels


@pytest.mark.parametrize("exhaustive", [100_000, 0])
def test_recompressed_resized_and_brightened_copies_are_found(exhaustive, monkeypatch):
    monkeypatch.setattr(likeness, "_MAX_EXHAUSTIVE", exhaustive)
    pictures = {f"{seed}": facts(scene(seed)) for seed in range(300)}
    copies = {
        "7 jpeg": facts(scene(7), "JPEG", quality=60),
        "7 small": facts(scene(7).resize((90, 90)), "JPEG"),
        "20 bright": facts(ImageEnhance.Brightness(scene(20)).enhance(1.02)),
    }
    groups = {frozenset(group) for group in similar_groups(pictures | copies)}
    if exhaustive:
        assert groups == {frozenset({"7", "7 jpeg", "7 small"}), frozenset({"20", "20 bright"})}
    else:
        assert all(len({name.split()[0] for name in group}) == 1 for group in groups)


def test_mirrored_and_flat_pictures_are_not_alike():
    mirrored = scene(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    flat = {f"flat {value}": facts(Image.new("L", (50, 50), value)) for value in (100, 101, 102)}
    assert similar_groups({"a": facts(scene(3)), "b": facts(mirrored)} | flat) == []
    assert similar_groups({}) == []


def test_equal_gradients_alone_are_not_enough():
    faint = facts(ImageEnhance.Contrast(scene(3)).enhance(0.5))
    assert similar_groups({"a": facts(scene(3)), "b": faint}) == []


@given(seeds=st.lists(st.integers(0, 6), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_groups_are_those_of_a_plain_comparison(seeds):
    known = {seed: facts(scene(seed, 32)) for seed in set(seeds)}
    named = {f"{position}": known[seed] for position, seed in enumerate(seeds)}
    expected = {
        frozenset(f"{position}" for position, other in enumerate(seeds) if other == seed)
        for seed in seeds
        if seeds.count(seed) > 1
    }
    assert {frozenset(group) for group in similar_groups(named)} == expected


def test_real_photos_are_not_taken_for_each_other(shared):
    with zipfile.ZipFile(shared / "data" / "imagenet-samples.zip") as archive:
        photos = {name: archive.read(name) for name in archive.namelist()[:40]}
    originals = {name: examine(data, name=name, max_pixels=10**8) for name, data in photos.items()}
    assert similar_groups(originals) == []
    copies = {
        f"copy of {name}": facts(decode_image(data).resize((224, 224)), "JPEG", quality=50)
        for name, data in photos.items()
    }
    found = {frozenset(group) for group in similar_groups(originals | copies)}
    assert found <= {frozenset({name, f"copy of {name}"}) for name in photos}
    assert len(found) >= 38
