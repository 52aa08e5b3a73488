"""Which examples make up each optimizer step, and how much a target token of each domain counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice

import numpy as np

from metier.trees import Example


@dataclass(frozen=True)
class Unit:
    """What a step takes as a whole, `weight` being what it counts beside the others.

    Rows of one conversation; a liked and a disliked reply; or one that people `liked` or not, with another's reply
    to the same prompt, where that fits. `replay` marks general rows beside the recipe's own.
    """

    rows: tuple[Example, ...]
    weight: float = 1.0
    liked: bool = True
    replay: bool = False

    @property
    def tokens(self) -> int:
        return sum(len(row.tokens) for row in self.rows)


def batches(sizes: Sequence[int], batch_size: int, epochs: float, seed: int) -> Iterator[list[tuple[int, int]]]:
    """For each step the examples as (domain, index), drawn as they are asked for.

    In every epoch each example occurs once, in an order drawn from `seed` and the epoch alone, and the
    domains are spread evenly, so that every batch has about the shares of the whole.
    """
    drawn = chain.from_iterable(
        _epoch(sizes, np.random.default_rng([seed, epoch])) for epoch in range(math.ceil(epochs))
    )
    for _ in range(max(1, math.ceil(epochs * sum(sizes) / batch_size))):
        if batch := list(islice(drawn, batch_size)):
            yield batch


def beside(steps: Iterable[list[Unit]], pool: Sequence[Unit], share: float) -> Iterator[list[Unit]]:
    """Each step with general units behind its own: the share of all that it takes, one at least.

    The pool goes round, and where it has more than a run takes, what is left over is never seen.
    """
    general = cycle(pool)
    for units in steps:
        yield [*units, *islice(general, max(1, round(share / (1 - share) * len(units))))]


def _epoch(sizes: Sequence[int], random: np.random.Generator) -> list[tuple[int, int]]:
    """One pass: each domain shuffled, its examples at even distances, all merged by place."""
    places: list[tuple[float, int, int]] = []
    for domain, size in enumerate(sizes):
        offset = random.random()
        shuffled = random.permutation(size).tolist()
        places += [((rank + offset) / size, domain, index) for rank, index in enumerate(shuffled)]
    return [(domain, index) for _, domain, index in sorted(places)]


def shares(counts: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    """What one target token of each domain counts, or one pair, of which it has `counts`.

    Domains weigh equally (times their own `weight`) however many they have; the mean over all is 1. A plain
    token mean would nearly ignore a domain of short answers.
    """
    total, share = sum(counts.values()), sum(weights[name] for name in counts)
    return {name: weights[name] / share * total / count for name, count in counts.items() if count}


def weighted(unit: Unit, weight: float, paired: bool) -> Unit:
    """What a domain counts lies in the unit where whole log-probabilities are compared, else in each target."""
    if paired:
        return replace(unit, weight=weight * unit.weight)
    rows = [Example(row.tokens, tuple(weight * each for each in row.weights)) for row in unit.rows]
    return replace(unit, rows=tuple(rows))
