"""Numbers by place: the published generator, and nothing but (seed, epoch, draw) counts."""

import numpy as np
import pytest

from inception.data.draws import philox, uniforms

# kat_vectors of Random123: counter, key, output of philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_the_generator_is_philox(counter, key, expected):
    counters = np.array([words(counter)] * 3, dtype=np.uint64).T
    assert philox(counters, tuple(words(key))).T.tolist() == [words(expected)] * 3


def test_a_draws_numbers_do_not_depend_on_its_neighbours():
    draws = [5, 0, 2**40, 5, 77]
    together = uniforms(3, 2, draws, 32)
    assert together.shape == (5, 32)
    for row, draw in zip(together, draws, strict=True):
        assert np.array_equal(row, uniforms(3, 2, [draw], 32)[0])
    assert np.array_equal(uniforms(3, 2, draws, 8), together[:, :8])
    others = [uniforms(4, 2, draws, 32), uniforms(3, 3, draws, 32), uniforms(3 + 2**32, 2, draws, 32)]
    others += [uniforms(-3, 2, draws, 32), uniforms(3, 2, [6, 1, 2**40 + 1, 6, 78], 32)]
    assert all((other != together).mean() > 0.99 for other in others)


def test_numbers_are_even_and_do_not_follow_each_other():
    numbers = uniforms(0, 0, range(4000), 32)
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    # 128,000 numbers in 64 bins: the sum of squares is near 63, its deviation 11.
    counts = np.histogram(numbers, 64, (0, 1))[0]
    assert 20 < ((counts - 2000) ** 2 / 2000).sum() < 120
    tables = np.corrcoef(numbers.T) - np.eye(32), np.corrcoef(numbers[:-1].T, numbers[1:].T)[:32, 32:]
    assert all(np.abs(table).max() < 5 / np.sqrt(4000) for table in tables)
