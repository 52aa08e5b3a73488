"""Metrics that a user brings for open answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from metier.errors import MetierError
from metier.figures import HABITS

Measure = Callable[[str, str], float]
Own = Mapping[str, Measure]
"""A name, and a function of output and reference; higher is better."""


def check_own(own: Own) -> None:
    """Raises `MetierError` for a name that is empty or a built-in metric's."""
    for name in own:
        if not name.strip() or name in HABITS:
            why = "belongs to a built-in metric" if name.strip() else "is empty"
            raise MetierError(f"metrics: the name {name!r} {why}", "choose another")


def checked(name: str, measure: Measure) -> Measure:
    """The same function; raises `MetierError` where it gives no finite number."""

    def finite(output: str, reference: str) -> float:
        found = float(measure(output, reference))
        if not math.isfinite(found):
            raise MetierError(f"metrics: {name} gave {found} for {output[:60]!r}", "return a finite number")
        return found

    return finite
