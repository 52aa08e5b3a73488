"""Which labels are taken for which: a matrix where it can be read at a glance, else the pairs confused most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PAIRS = 20
_WIDEST = 16  # labels


@dataclass(frozen=True)
class Cell:
    """Items of one right label that got one answer, and their share of that label's."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Pair:
    wanted: str
    output: str
    count: int
    total: int


@dataclass(frozen=True)
class Confusion:
    """Of one domain: `matrix` or, with many labels, `pairs`; failed and unparsed stand apart from both."""

    domain: str
    labels: tuple[str, ...]
    matrix: tuple[tuple[Cell, ...], ...]
    pairs: tuple[Pair, ...]
    failed: int
    unparsed: int


def read_confusion(domain: Mapping[str, Any]) -> Confusion:
    labels, counts = domain["confusion"]["labels"], domain["confusion"]["matrix"]
    small = len(labels) <= _WIDEST
    return Confusion(
        domain=domain["domain"],
        labels=tuple(labels),
        matrix=tuple(read_cells(row, wanted) for wanted, row in enumerate(counts)) if small else (),
        pairs=() if small else _pairs(labels, counts),
        failed=domain["failed"],
        unparsed=domain["unparsed"],
    )


def read_cells(row: Sequence[int], wanted: int) -> tuple[Cell, ...]:
    """The counts of one right answer, `wanted` being its place among them."""
    total = max(1, sum(row))
    return tuple(Cell(number, round(number / total, 3), output == wanted) for output, number in enumerate(row))


def _pairs(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> tuple[Pair, ...]:
    found = [
        Pair(labels[wanted], labels[output], number, sum(row))
        for wanted, row in enumerate(counts)
        for output, number in enumerate(row)
        if number and wanted != output
    ]
    return tuple(sorted(found, key=lambda pair: (-pair.count, pair.total))[:_PAIRS])
