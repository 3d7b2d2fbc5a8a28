"""Batches one ahead of their step: same batches, same order, the copy begun early."""

import torch

from inception.data.loader import Batch
from inception.train.feed import feed, one_ahead


def test_the_next_is_begun_before_the_present_is_handed_out():
    events = []

    def start(item: int) -> int:
        events.append(("begun", item))
        return item

    events.extend(("used", item) for item in one_ahead(range(3), start))
    assert events == [
        ("begun", 0),
        ("begun", 1),
        ("used", 0),
        ("begun", 2),
        ("used", 1),
        ("used", 2),
    ]


def test_none_and_one():
    assert list(one_ahead([], lambda item: item)) == []
    assert list(one_ahead([5], lambda item: item)) == [5]


def test_on_the_cpu_batches_pass_unchanged():
    batches = [
        Batch(torch.full((2, 3, 4, 4), n, dtype=torch.uint8), torch.tensor([n, n]), torch.tensor([0, 1]), n)
        for n in range(3)
    ]
    fed = list(feed(iter(batches), torch.device("cpu")))
    assert [batch.position for batch in fed] == [0, 1, 2]
    assert all(torch.equal(a.images, b.images) for a, b in zip(fed, batches, strict=True))
