from __future__ import annotations

from itertools import islice

from metier.data.mixing import batches


def test_every_epoch_has_every_example_once() -> None:
    drawn = [each for batch in batches([5, 3], 4, 3, seed=1) for each in batch]
    for epoch in range(3):
        assert sorted(drawn[8 * epoch : 8 * epoch + 8]) == [(0, i) for i in range(5)] + [(1, i) for i in range(3)]
    assert [len(batch) for batch in batches([5], 4, 1, seed=1)] == [4, 1]


def test_the_first_steps_of_a_long_training_are_drawn_alone() -> None:
    first = list(islice(batches([40, 2], 8, 1e9, seed=3), 5))
    assert first == list(batches([40, 2], 8, 1, seed=3))[:5]
