"""What can be wrong, told as place, problem and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it stands, what it is, and how to mend it."""

    place: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.fix}"


class MetierError(Exception):
    """The user's mistake or the machine's refusal: exit code 2, never a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class FaultsError(MetierError):
    """Every fault of one source at once."""

    def __init__(self, source: str, faults: Sequence[Fault], hint: str = "") -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault" + ("s" if len(self.faults) != 1 else "")
        lines = "".join(f"\n  {fault}" for fault in self.faults)
        super().__init__(f"{source} has {count}{lines}", hint)


class RecipeError(FaultsError):
    """A recipe that cannot be understood."""


class DataError(FaultsError):
    """Data that cannot be used as the recipe asks."""


class ModelError(MetierError):
    """A base or adapter that is absent, unreadable or of another kind."""


class DoesNotFit(MetierError):
    """The plan does not fit this machine; the message carries the arithmetic."""


class RunError(MetierError):
    """A run that cannot start, continue or be read."""


class MissingExtra(MetierError):
    """A house whose vendor is not installed."""
