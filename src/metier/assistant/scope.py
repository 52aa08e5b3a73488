"""What an assistant is there for: questions that belong to none of its domains are declined politely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from metier.assistant.likeness import FEWEST, Learned, lines
from metier.assistant.phrases import Lexicon, latest
from metier.assistant.rules import ASSETS

_ELSEWHERE, _HEALTH = ASSETS / "elsewhere", ASSETS / "safety"
_LOST = 0.01  # of messages that do belong here, at most so many are declined
_TENTH = 10  # of the messages on health, every so many is kept for the threshold
_MOST = 5000  # questions that are learned from


@dataclass(frozen=True)
class Scope:
    """Tells whether somebody asks what `domains` are there for."""

    domains: tuple[str, ...]
    learned: Learned
    threshold: float

    @classmethod
    def fit(
        cls,
        domains: Sequence[str],
        train: Sequence[str],
        validation: Sequence[str],
        lexicon: Lexicon,
        *,
        medical: bool,
    ) -> Self:
        """Learn from what users of the domains asked, and from messages of our own that belong to no trade.

        The threshold is the highest that declines next to none of the validation questions. People tell of their
        health in more ways than any data set knows: where one domain is `medical`, all that the safety rules learn from
        belongs here, too. The same texts give the same scope.
        """
        every, health = max(1, len(train) // _MOST), _health() if medical else []
        ours = [*train[::every], *(text for place, text in enumerate(health) if place % _TENTH)]
        learned = Learned.fit(ours, elsewhere()[0], lexicon)
        belong = [texts for texts in (validation or train, health[::_TENTH]) if texts]
        lowest = [float(np.sort(learned.margins(texts))[int(_LOST * len(texts))]) for texts in belong]
        return cls(tuple(domains), learned, min(0.0, *lowest))

    def covers(self, turns: Sequence[str]) -> bool:
        """Whether any of what somebody said belongs here, or is too short to tell."""
        turns = latest(turns)
        return any(len(turn.split()) < FEWEST for turn in turns) or max(self.learned.margins(turns)) >= self.threshold

    def declined(self, texts: Sequence[str]) -> int:
        """How many of these would be, each by itself."""
        return sum(not self.covers([text]) for text in texts)


def elsewhere() -> tuple[list[str], list[str]]:
    """Messages that belong to no trade: those that are learned from, and those that are kept to count."""
    return lines(_ELSEWHERE / "learned.txt"), lines(_ELSEWHERE / "kept.txt")


def other_business() -> list[str]:
    """From customers of all trades, and from people who talk about anything: none is in danger."""
    return [*lines(ASSETS / "mood" / "calm.txt"), *elsewhere()[0]]


def _health() -> list[str]:
    return [text for path in sorted(_HEALTH.glob("*.txt")) for text in lines(path)]
