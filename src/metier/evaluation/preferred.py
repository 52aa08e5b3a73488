"""Which of two runs' answers was preferred, item by item → win rates, tests, and how far two raters agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from metier.evaluation.answers import Answer
from metier.evaluation.measures import output_of
from metier.scores import Difference, Score, holm, interval, kappa, mcnemar, mean, proportion

Side = Literal["first", "second", "tie"]
SIDES: tuple[Side, ...] = ("first", "second", "tie")
_POINTS = {"first": 0.0, "second": 1.0, "tie": 0.5}
Key = tuple[str, str]
"""Of an item: its domain and id."""


@dataclass(frozen=True)
class Contest:
    """Two runs' answers to one open item."""

    first: Answer
    second: Answer

    @property
    def key(self) -> Key:
        return self.first.domain, self.first.id

    @property
    def texts(self) -> tuple[str | None, str | None]:
        """What the two said, None of an answer that failed."""
        return output_of(self.first), output_of(self.second)

    @property
    def settled(self) -> Side | None:
        """What needs no judge: an answer beats none, and equal texts are a tie."""
        first, second = self.texts
        if first == second:
            return "tie"
        return "second" if first is None else "first" if second is None else None


@dataclass(frozen=True)
class Verdict:
    """Who won a contest. `orders`: what was said with the first run's answer in front, then with the second's."""

    contest: Contest
    winner: Side
    orders: tuple[Side, ...] = ()


@dataclass(frozen=True)
class Wins:
    """The second run against the first in one domain: `rate` counts a tie as half a win.

    `difference` is the share of items won minus the share lost, by the exact sign test over groups. `words` are the
    mean lengths of the first's and the second's answers; `longer` counts how often the longer one won, of `decided`
    items of unequal length.
    """

    domain: str
    won: int
    lost: int
    tied: int
    rate: Score
    difference: Difference
    words: tuple[float, float]
    longer: int
    decided: int


@dataclass(frozen=True)
class Position:
    """What the order did to a judge that saw `n` items in both: verdicts `changed`, and who won by place."""

    n: int
    changed: int
    first_place: int
    second_place: int
    ties: int


@dataclass(frozen=True)
class Agreement:
    """Of two raters on the same items: the share of equal verdicts, and Cohen's kappa."""

    raw: Score
    kappa: Score


def count_wins(verdicts: Sequence[Verdict]) -> list[Wins]:
    """By domain, in order of appearance; Holm over the domains."""
    domains: dict[str, list[Verdict]] = {}
    for each in verdicts:
        domains.setdefault(each.contest.first.domain, []).append(each)
    found = [_wins(domain, items) for domain, items in domains.items()]
    adjusted = holm([each.difference for each in found])
    return [replace(each, difference=difference) for each, difference in zip(found, adjusted, strict=True)]


def position(verdicts: Sequence[Verdict]) -> Position | None:
    """None where nothing was shown in both orders."""
    both = [each.orders for each in verdicts if len(each.orders) == 2]
    if not both:
        return None
    first = sum((one == "first") + (other == "second") for one, other in both)
    ties = sum((one == "tie") + (other == "tie") for one, other in both)
    changed = sum(one != other for one, other in both)
    return Position(len(both), changed, first, 2 * len(both) - first - ties, ties)


def agreement(ours: Sequence[Verdict], theirs: Mapping[Key, Side]) -> Agreement | None:
    """Over the items that both raters judged; None where there is none."""
    common = [each for each in ours if each.contest.key in theirs]
    if not common:
        return None
    groups = [each.contest.first.group for each in common]
    mine = [SIDES.index(each.winner) for each in common]
    other = [SIDES.index(theirs[each.contest.key]) for each in common]
    raw = proportion("agreement", [one == two for one, two in zip(mine, other, strict=True)], groups)
    return Agreement(raw, interval("kappa", kappa(mine, other, len(SIDES)), groups))


def _wins(domain: str, verdicts: Sequence[Verdict]) -> Wins:
    groups = [each.contest.first.group for each in verdicts]
    won, lost, tied = ([each.winner == side for each in verdicts] for side in ("second", "first", "tie"))
    test = mcnemar("won_minus_lost", won, lost, groups)
    uneven = [*_uneven(verdicts)]
    return Wins(
        domain=domain,
        won=sum(won),
        lost=sum(lost),
        tied=sum(tied),
        rate=interval("win_rate", mean([_POINTS[each.winner] for each in verdicts]), groups),
        difference=replace(test, test=test.test.replace("exact McNemar", "exact sign test")),
        words=(_words(verdicts, 0), _words(verdicts, 1)),
        longer=sum(each.winner == longer for each, longer in uneven),
        decided=len(uneven),
    )


def _uneven(verdicts: Sequence[Verdict]) -> Iterator[tuple[Verdict, Side]]:
    """Those that were won by one, with the side whose answer has more words."""
    for each in verdicts:
        first, second = (len((text or "").split()) for text in each.contest.texts)
        if each.winner != "tie" and first != second:
            yield each, "first" if first > second else "second"


def _words(verdicts: Sequence[Verdict], side: int) -> float:
    return fmean(len((each.contest.texts[side] or "").split()) for each in verdicts)
