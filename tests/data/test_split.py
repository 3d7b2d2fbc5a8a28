"""The automatic split: stratified, disjoint, reproducible, and indifferent to what is elsewhere."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception.data.split import stratified_split
from inception.errors import UsageError

CLASSES = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 60), min_size=1)
FRACTIONS = st.tuples(st.floats(0, 0.4), st.floats(0, 0.4))


def listed(sizes: dict[str, int]) -> tuple[list[str], list[str]]:
    pairs = [(f"{label}/{number}.png", label) for label, size in sizes.items() for number in range(size)]
    return [key for key, _ in pairs], [label for _, label in pairs]


def divide(sizes: dict[str, int], test: float, val: float, seed: int = 0) -> dict[str, str]:
    keys, labels = listed(sizes)
    return dict(zip(keys, stratified_split(keys, labels, {"test": test, "val": val}, seed), strict=True))


@given(sizes=CLASSES, fractions=FRACTIONS, seed=st.integers(0, 5))
def test_every_class_gets_its_share(sizes, fractions, seed):
    assigned = divide(sizes, *fractions, seed)
    for label, size in sizes.items():
        counts = Counter(split for key, split in assigned.items() if key.startswith(label))
        assert sum(counts.values()) == size
        assert counts["train"] >= 1
        for split, fraction in zip(("test", "val"), fractions, strict=True):
            wanted = size * fraction
            if size >= 3 and fraction > 0:
                assert counts[split] >= 1
            assert counts[split] == 0 if fraction == 0 else counts[split] <= max(1, wanted + 0.5)
            if size >= 5:
                assert counts[split] >= wanted - 0.5


@given(sizes=CLASSES, other=CLASSES, seed=st.integers(0, 5))
def test_other_classes_do_not_matter(sizes, other, seed):
    alone = divide(sizes, 0.1, 0.2, seed)
    together = divide(sizes | {f"z{label}": size for label, size in other.items()}, 0.1, 0.2, seed)
    assert all(together[key] == split for key, split in alone.items())


@given(sizes=CLASSES, order=st.randoms())
def test_the_order_of_the_files_does_not_matter(sizes, order):
    keys, labels = listed(sizes)
    shuffled = list(zip(keys, labels, strict=True))
    order.shuffle(shuffled)
    mixed, mixed_labels = zip(*shuffled, strict=True)
    splits = stratified_split(list(mixed), list(mixed_labels), {"test": 0.1, "val": 0.2})
    assert dict(zip(mixed, splits, strict=True)) == divide(sizes, 0.1, 0.2)


@given(size=st.integers(3, 80), seed=st.integers(0, 5))
def test_one_more_file_moves_at_most_one_across_each_border(size, seed):
    before, after = divide({"a": size}, 0.2, 0.2, seed), divide({"a": size + 1}, 0.2, 0.2, seed)
    assert sum(after[key] != split for key, split in before.items()) <= 3


def test_another_seed_is_another_division():
    sizes = {"a": 100, "b": 100}
    assert divide(sizes, 0.2, 0.1) == divide(sizes, 0.2, 0.1)
    assert divide(sizes, 0.2, 0.1) != divide(sizes, 0.2, 0.1, seed=1)


def test_the_division_is_the_same_for_ever():
    # A bundle trained last year must still be evaluated on images that it has not seen.
    chosen = [key for key, split in divide({"cat": 10, "dog": 10}, 0.2, 0.0).items() if split == "test"]
    assert chosen == ["cat/5.png", "cat/7.png", "dog/2.png", "dog/3.png"]


@pytest.mark.parametrize("fractions", [{"val": 1.0}, {"val": -0.1}, {"test": 0.5, "val": 0.5}])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(UsageError, match="val_fraction"):
        stratified_split(["a"], [0], fractions)
