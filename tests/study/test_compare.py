"""Networks side by side."""

from inception.study.compare import compare


def test_numbers_are_those_of_the_networks_without_heads():
    first, second = compare(["googlenet", "lenet5", "googlenet"], rounds=1)
    assert (first.model, first.image_size) == ("googlenet", 224)
    assert (first.parameters, first.multiply_adds) == (6_998_552, 1_582_671_872)
    assert first.weight_mib == 6_998_552 * 4 / 2**20
    assert first.median_ms > second.median_ms > 0
    assert first.activation_mib > second.activation_mib > 0


def test_image_size_is_taken():
    (small,) = compare(["googlenet"], rounds=1, image_size=112)
    assert small.multiply_adds < 0.3 * 1_582_671_872
