"""Rows that wait to be scored or read between two steps of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

from metier.inference.logprobs import Read
from metier.trees import Example

_TOKENS = 2048  # of rows that are scored or read between two steps, where one request, or one row, has not more

Result = TypeVar("Result")


@dataclass
class Scoring:
    """Rows whose weighted log-probability is wanted, all at once: they share what they have in common."""

    rows: Sequence[Example]
    adapter: str
    result: Future[list[float]] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return sum(len(row.tokens) for row in self.rows)

    def fail(self, error: Exception) -> None:
        fail(self.result, error)


@dataclass
class Reading:
    """Rows whose tokens are weighed, piece by piece: what was `found` grows until there is something of each."""

    rows: Sequence[Sequence[int]]
    top: int
    adapter: str
    begin: int
    tenant: str
    result: Future[list[list[Read]]] = field(default_factory=Future)
    found: list[list[Read]] = field(default_factory=list)

    @property
    def next_rows(self) -> Sequence[Sequence[int]]:
        """Those that are read now: one, and as many more as have so few tokens."""
        rest = self.rows[len(self.found) :]
        sizes = accumulate(map(len, rest))
        return rest[: max(1, sum(size <= _TOKENS for size in sizes))]

    def fail(self, error: Exception) -> None:
        fail(self.result, error)


def together(alike: Sequence[Scoring | Reading], another: Scoring | Reading) -> bool:
    """Whether they are done at once: rows to be scored, of one adapter, up to a size."""
    scored = [each for each in (*alike, another) if isinstance(each, Scoring) and each.adapter == another.adapter]
    return len(scored) == len(alike) + 1 and sum(each.size for each in scored) <= _TOKENS


def fail(done: Future[Any], error: Exception) -> None:
    if done.set_running_or_notify_cancel():
        done.set_exception(error)


def fulfil(done: Future[Result], work: Callable[[], Result]) -> None:
    """Unless whoever asked has left meanwhile."""
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(work())
    except Exception as error:  # raised where the result is asked for
        done.set_exception(error)
