"""Maps that are needed at the same time never share memory."""

from hypothesis import given
from hypothesis import strategies as st

from inception.runtime.native.places import packed

pieces = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=30
)


@given(pieces)
def test_packed_pieces(found):
    wanted = [(size, first, first + length, str(i)) for i, (size, first, length) in enumerate(found)]
    starts, total = packed(wanted)
    for size, first, last, name in wanted:
        assert 0 <= starts[name] <= starts[name] + size <= total
        for other_size, other_first, other_last, other in wanted:
            if other != name and first <= other_last and other_first <= last:
                apart = starts[name] + size <= starts[other] or starts[other] + other_size <= starts[name]
                assert apart


@given(pieces)
def test_memory_is_shared(found):
    """Pieces one after the other take no more than the largest."""
    wanted = [(size, 2 * i, 2 * i, str(i)) for i, (size, _, _) in enumerate(found)]
    assert packed(wanted)[1] == max(size for size, *_ in wanted)
