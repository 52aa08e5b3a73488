"""What a column is, most of its cells decide.

One odd cell never changes how the other rows are read: where a guess asks what a column holds, it asks `most`
of the cells that hold anything, and those that differ are faults of their own rows.
"""

from __future__ import annotations

from collections.abc import Iterable


def most(says: Iterable[bool], share: float = 0.5) -> bool:
    """Whether more than a share of them say so; none say nothing."""
    told = list(says)
    return sum(told) > share * len(told)
