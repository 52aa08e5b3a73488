"""What can be wrong, told as place, problem and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LISTED = 20  # faults of one source that are printed


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it stands, what it is, and how to mend it."""

    place: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.fix}"


class RowFault(Fault):
    """What is wrong with one row alone: the others can be used without it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean …?` where one of `names` is near, else nothing."""
    listed = [*names]
    swapped = [each for each in listed if sorted(each) == sorted(name)]  # the commonest slip
    meant = next(iter(swapped or difflib.get_close_matches(name, listed, n=1, cutoff=0.6)), "")
    return f"; did you mean `{meant}`?" if meant else ""


class MetierError(Exception):
    """The user's mistake or the machine's refusal: exit code 2, never a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [f"error: {self}", *([f"hint: {self.hint}"] if self.hint else [])]


class FaultsError(MetierError):
    """Every fault of one source at once."""

    def __init__(self, source: str, faults: Sequence[Fault], hint: str = "") -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault" + ("s" if len(self.faults) != 1 else "")
        lines = "".join(f"\n  {fault}" for fault in self.faults[:_LISTED])
        if more := len(self.faults[_LISTED:]):
            lines += f"\n  and {more} more; mend those above, then check again"
        super().__init__(f"{source} has {count}{lines}", hint)


class RecipeError(FaultsError):
    """A recipe that cannot be understood."""


class AbsentError(RecipeError):
    """Nothing to train on: every domain that would be is optional, and absent."""


class DataError(FaultsError):
    """Data that cannot be used as the recipe asks."""


class ModelError(MetierError):
    """A base or adapter that is absent, unreadable or of another kind."""


class DoesNotFit(MetierError):
    """The plan does not fit this machine; the message carries the arithmetic."""


class RunError(MetierError):
    """A run that cannot start, continue or be read."""
