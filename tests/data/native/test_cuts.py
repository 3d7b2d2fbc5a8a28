"""Cuts are resized and recoloured alike, to the bit, by compiled code and by PyTorch and NumPy."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception.data.native import cuts as module
from inception.data.native.cuts import mean_grey, recolour, resize_cut
from inception.native import compiler

compiled_here = pytest.mark.skipif(module.library() is None, reason="no C compiler here")
sides, seeds = st.integers(1, 400), st.integers(0, 2**32 - 1)


def without_compiler(work):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "library", lambda: None)
        return work()


def pixels_of(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth, noisy, or black and white, which is what rounds to both ends of a byte."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return (np.arange(height * width * 3) // 7 % 256).reshape(height, width, 3).astype(np.uint8)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return noise if seed % 3 == 1 else (noise > 127).astype(np.uint8) * 255


def resized(pixels: np.ndarray, shape: tuple[int, int], name: str, mirrored: bool) -> np.ndarray:
    out = np.full((3, *shape), 7, dtype=np.uint8)
    resize_cut(pixels, name, mirrored, out)
    return out


@compiled_here
@given(sides, sides, sides, sides, st.sampled_from(["bilinear", "bicubic"]), st.booleans(), seeds)
def test_resizing_is_pytorchs_to_the_bit(height, width, out_height, out_width, name, mirrored, seed):
    # A cut from within: what lies beside it must not be seen.
    cut = pixels_of(height + 3, width + 5, seed)[2 : 2 + height, 1 : 1 + width]
    arguments = cut, (out_height, out_width), name, mirrored
    assert np.array_equal(resized(*arguments), without_compiler(lambda: resized(*arguments)))


@compiled_here
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape, size", [((3000, 4000), 224), ((1, 6000), 17), ((6000, 1), 9), ((2, 2), 700)])
def test_much_larger_and_much_smaller_cuts(name, shape, size):
    arguments = pixels_of(*shape, 1), (size, size), name, True
    assert np.array_equal(resized(*arguments), without_compiler(lambda: resized(*arguments)))


@compiled_here
def test_arrays_of_another_layout():
    pixels = pixels_of(40, 50, 1)
    for odd in (pixels[::2, ::-1], np.asfortranarray(pixels), pixels[..., ::-1], pixels[::-1]):
        plain = np.ascontiguousarray(odd)
        assert np.array_equal(
            resized(odd, (24, 24), "bilinear", False), resized(plain, (24, 24), "bilinear", False)
        )


@compiled_here
def test_threads_resize_side_by_side():
    cuts = [pixels_of(100 + seed, 120 - seed, seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        views = list(pool.map(lambda cut: resized(cut, (64, 48), "bilinear", True), cuts))
    for cut, view in zip(cuts, views, strict=True):
        assert np.array_equal(
            view, without_compiler(lambda cut=cut: resized(cut, (64, 48), "bilinear", True))
        )


@compiled_here
@given(
    st.sampled_from([1, 3]),
    st.integers(1, 60),
    st.integers(1, 60),
    seeds,
    *[st.floats(-2, 2)] * 2,
    st.floats(-300, 300),
)
def test_colours_are_numpys_to_the_bit(channels, height, width, seed, keep, blend, add):
    view = np.ascontiguousarray(pixels_of(height, width, seed).transpose(2, 0, 1)[:channels])

    def changed():
        copy = view.copy()
        recolour(copy, keep, blend, add)
        return mean_grey(view), copy

    (mean, ours), (expected_mean, expected) = changed(), without_compiler(changed)
    assert mean == expected_mean
    assert np.array_equal(ours, expected)


@compiled_here
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", [(0.5, -0.5, 0.0), (0.5, -0.3, 10.5), (0.5, -0.4, -20.3), (1.1, 0.1, 0.2)])
def test_sums_are_rounded_in_numpys_order(channels, change):
    """Settings under which products and sums taken together, or in another order, give other bytes."""
    view = np.random.default_rng(0).integers(0, 256, (channels, 512, 512), dtype=np.uint8)
    view[:, 0, :256] = np.arange(256)

    def changed():
        copy = view.copy()
        recolour(copy, *change)
        return copy

    assert np.array_equal(changed(), without_compiler(changed))


def test_views_that_c_code_could_not_write_to_are_refused():
    pixels, wide = pixels_of(9, 9, 1), np.zeros((3, 8, 16), dtype=np.uint8)
    fixed = np.zeros((3, 8, 8), dtype=np.uint8)
    fixed.flags.writeable = False
    for out in (wide[:, :, :8], wide[:, :, ::-1], fixed, fixed.astype(np.float32)):
        with pytest.raises(ValueError, match="contiguous"):
            resize_cut(pixels, "bilinear", False, out)


def test_short_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "library", lambda: SimpleNamespace(resize=lambda *_: 0))
    with pytest.raises(MemoryError, match="9 x 7"):
        resized(pixels_of(7, 9, 1), (4, 4), "bilinear", False)


@compiled_here
def test_threads_compile_once(monkeypatch, tmp_path):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path))
    calls, before = [], compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda *arguments: calls.append(before(*arguments)))
    module._outcome.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert len({id(found) for found in pool.map(lambda _: module.library(), range(8))}) == 1
    assert len(calls) == 1


def test_grey_is_that_of_the_eye():
    view = np.array([[[255, 0]], [[0, 0]], [[0, 255]]], dtype=np.uint8)
    assert mean_grey(view) == pytest.approx((0.299 + 0.114) * 255 / 2)
    assert mean_grey(view[:1].copy()) == 127.5


def test_sums_of_large_views_do_not_overflow():
    view = np.full((1, 4200, 4200), 255, dtype=np.uint8)
    assert mean_grey(view) == 255.0


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "COMPILERS", ("no-such-compiler",))
    module._outcome.cache_clear()
    try:
        assert module.library() is None
        pixels = np.full((9, 9, 3), 77, dtype=np.uint8)
        assert (resized(pixels, (4, 4), "bilinear", False) == 77).all()
    finally:
        module._outcome.cache_clear()
