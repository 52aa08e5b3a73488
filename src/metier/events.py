"""What a long work says while it runs; only the edge draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """`done` of `total` in a phase, with the values measured there."""

    phase: str
    done: int = 0
    total: int = 0
    values: Mapping[str, float | int | str] = field(default_factory=dict)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener of a caller who wants to hear nothing."""
