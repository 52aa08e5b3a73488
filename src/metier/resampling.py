"""Draws over groups with replacement: how far a statistic would vary if other groups had been drawn.

Shapes: B resamples, N items, G groups (items of one group move together).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Statistic = Callable[[Floats], Floats]
"""Maps B resampling weights over N items, shape (B, N), to B values, shape (B,)."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 17
_CELLS = 1_000_000  # weights drawn at once; with their copies well under 100 MB


def group_indices(metric: str, groups: Sequence[str]) -> tuple[Integers, int]:
    """Each item's group as an index, and how many groups; sorted, so that item order changes no draw."""
    if not groups:
        raise ValueError(f"{metric}: no items to score")
    index = {group: number for number, group in enumerate(sorted(set(groups)))}
    return np.array([index[group] for group in groups], dtype=np.int64), len(index)


def whole(statistic: Statistic, group_N: Integers) -> float:
    """The statistic over every item once."""
    return float(statistic(np.ones((1, len(group_N))))[0])


def bootstrap(statistic: Statistic, group_N: Integers, total: int, stream: int = 0) -> Floats:
    """The statistic on RESAMPLES draws of `total` groups with replacement; the same draws every time of a stream."""
    random = np.random.default_rng([_SEED, stream] if stream else _SEED)
    values = []
    for rows in _chunks(RESAMPLES, len(group_N)):
        drawn_BG = random.integers(total, size=(len(rows), total)) + total * np.arange(len(rows))[:, None]
        counts_BG = np.bincount(drawn_BG.ravel(), minlength=drawn_BG.size).reshape(drawn_BG.shape)
        values.append(statistic(counts_BG[:, group_N].astype(float)))
    return np.concatenate(values)


def least_p(difference: Statistic, group_N: Integers, total: int) -> float:
    """2 / 2^k where k groups, each taken alone, differ; counted only until it is too small to matter."""
    differing = 0
    for rows in _chunks(total, len(group_N)):
        alone_BN = (group_N == np.array(rows)[:, None]).astype(float)
        differing += int(np.count_nonzero(difference(alone_BN)))
        if 2.0 ** (1 - differing) < 1 / RESAMPLES:
            break
    return float(2.0 ** (1 - differing))


def _chunks(count: int, items: int) -> Iterator[range]:
    """`count` rows in ranges of at most _CELLS weights."""
    size = max(1, _CELLS // items)
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def unseen(losses: Sequence[float], stream: int = 0) -> Floats:
    """What a loss that no item showed may have taken, on every resample: one virtual group a stratum.

    In n groups without a single loss there may still be one in n: as the rule of three has it (Hanley and
    Lippman-Hand 1983), which this gives for shares. `losses` is by stratum what such a group would take.
    """
    random = np.random.default_rng([_SEED, len(losses), 3 + stream])
    drawn_SB = random.poisson(1.0, size=(len(losses), RESAMPLES))
    return np.asarray(np.array(losses) @ drawn_SB)


def influence(statistic: Statistic, group_N: Integers, total: int) -> float:
    """The most that leaving out one group changes the statistic; a whole group's share of 1 where none does."""
    most, everything = 0.0, whole(statistic, group_N)
    for rows in _chunks(total, len(group_N)) if total > 1 else ():
        without_BN = (group_N != np.array(rows)[:, None]).astype(float)
        most = max(most, float(np.abs(statistic(without_BN) - everything).max()))
    return most or 1 / total


def percentiles(values_B: Floats, total: int) -> tuple[float, float]:
    tail = _expanded((1 - CONFIDENCE) / 2, total)
    low, high = np.quantile(values_B, [tail, 1 - tail])
    return float(low), float(high)


def _expanded(tail: float, total: int) -> float:
    """The bootstrap's tail that leaves out `tail` of the truth (Hesterberg 2014, "expanded percentile").

    Resampling k groups gives a spread too small by sqrt((k - 1) / k), and normal tails where t's with
    k - 1 degrees are due: with six groups nominal 5 % would be 17 %.
    """
    if total < 2:
        return tail
    return float(stats.norm.cdf(stats.t.ppf(tail, total - 1) * (total / (total - 1)) ** 0.5))


def from_expanded(tail: float, total: int) -> float:
    """The inverse of `_expanded`."""
    if total < 2 or tail >= 0.5:
        return tail
    return float(stats.t.cdf(stats.norm.ppf(tail) * ((total - 1) / total) ** 0.5, total - 1))
