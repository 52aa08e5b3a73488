"""Which strategy to take, and why: the cheapest that is shown not to be worse than the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from metier.comparison.costs import Cost
from metier.evaluation.standings import NOT_WORSE, OVERALL, Contrast, Standing
from metier.figures import as_kept, decimal, figure, interval
from metier.grid import Comparison
from metier.scores import Difference, Score

Unit = Literal["money", "time", "parameters"]
_NONE = "no difference shown"


@dataclass(frozen=True)
class Candidate:
    """A line that can be ranked; `guarded` tells that no guard of it says no."""

    name: str
    standing: Standing
    cost: Cost
    guarded: bool

    @property
    def value(self) -> float:
        assert self.standing.overall, "what has none is no candidate"
        return self.standing.overall.value


@dataclass(frozen=True)
class Advice:
    """The best, the one to take (None where guards forbid all that are good enough), and a sentence that says why."""

    best: str | None
    recommended: str | None
    rests_on: Unit
    verdict: str


def advise(
    comparison: Comparison,
    candidates: Sequence[Candidate],
    against_base: Mapping[str, Contrast],
    against_best: Mapping[str, Contrast],
) -> Advice:
    """`candidates` by score, the highest first; the contrasts are adjusted."""
    if not candidates:
        nothing = "Nothing can be ranked: no strategy has every domain's primary metric."
        return Advice(None, None, "parameters", nothing)
    best, unit = candidates[0], _unit(comparison, candidates)
    good = [each for each in candidates if each is best or _not_worse(against_best[each.name])]
    allowed = [each for each in good if each.guarded]
    chosen = min(allowed, key=lambda each: (_price(comparison, each.cost, unit), -each.value), default=None)
    cheaper = any(
        _price(comparison, each.cost, unit) < _price(comparison, best.cost, unit) for each in candidates if each.guarded
    )
    reason = _reason(best, chosen, against_best, decimal(100 * comparison.margin, 1), cheaper=cheaper)
    return Advice(best.name, chosen.name if chosen else None, unit, f"{_head(best, against_base)}; {reason}.")


def answer_of(question: tuple[str, str, Difference]) -> str:
    """Is prompting enough? The best tuned line beside the best that is only asked."""
    tuned, asked, found = question
    ends = _spanned(found)
    if found.verdict == _NONE:
        return f"That tuning ({tuned}) differs from prompting ({asked}) is not shown: {ends}."
    return f"Tuning ({tuned}) is {found.verdict} than prompting ({asked}): {ends}."


def _not_worse(found: Contrast) -> bool:
    return found.p_inferior is not None and found.p_inferior < NOT_WORSE


def _unit(comparison: Comparison, candidates: Sequence[Candidate]) -> Unit:
    """What is known of all: money, else time, else what was trained."""
    costs = [each.cost for each in candidates]
    priced = comparison.price_per_hour is not None or any(cost.price is not None for cost in costs)
    if priced and all(_money(comparison, cost) is not None for cost in costs):
        return "money"
    return "time" if all(cost.answering is not None and cost.training is not None for cost in costs) else "parameters"


def _price(comparison: Comparison, cost: Cost, unit: Unit) -> float:
    """What tuning and `volume` answers take."""
    if unit == "money":
        return _money(comparison, cost) or 0.0
    return _seconds(comparison, cost) if unit == "time" else cost.parameters


def price_of_1000(comparison: Comparison, cost: Cost) -> float | None:
    """What a thousand answers cost: an endpoint's own price, or this machine's time where that has one."""
    if cost.elsewhere or comparison.price_per_hour is None or cost.answering is None:
        return cost.price
    return cost.answering / 3600 * comparison.price_per_hour


def _money(comparison: Comparison, cost: Cost) -> float | None:
    """An endpoint's own price, or this machine's time, which counts as nothing where it has no price; None where it
    is not known."""
    if cost.elsewhere:
        return None if cost.price is None else cost.price * comparison.volume / 1000
    if comparison.price_per_hour is None:
        return 0.0
    return None if cost.answering is None else _seconds(comparison, cost) / 3600 * comparison.price_per_hour


def _seconds(comparison: Comparison, cost: Cost) -> float:
    return (cost.training or 0.0) + comparison.volume / 1000 * (cost.answering or 0.0)


def _head(best: Candidate, against_base: Mapping[str, Contrast]) -> str:
    score = best.standing.overall
    assert score
    said = f"Best is {best.name} with {figure(OVERALL, as_kept(score.value))} of 100 {_interval(score)}"
    found = against_base.get(best.name)
    if not (found and found.overall):
        return said
    if found.overall.verdict == _NONE:
        return f"{said}, of which no difference to the untuned base is shown"
    return f"{said}, {_by(found.overall)} than the untuned base"


def _reason(
    best: Candidate, chosen: Candidate | None, against_best: Mapping[str, Contrast], margin: str, *, cheaper: bool
) -> str:
    if chosen is None:
        return "a guard says no to it and to every strategy as good as it"
    if chosen is best:
        why = f"nothing cheaper is shown to stay within {margin} points of it" if cheaper else "it is the cheapest, too"
        return f"take it: {why}"
    gap = against_best[chosen.name].overall
    assert gap
    forbidden = "" if best.guarded else "a guard says no to it; "
    cheapest = f"the cheapest that is shown to stay within {margin} points of it"
    return f"{forbidden}take {chosen.name}: {cheapest} ({_spanned(gap)})"


def _by(difference: Difference) -> str:
    size = figure(OVERALL, as_kept(abs(difference.value)))
    return f"{difference.verdict} by {size} {_interval(difference, signed=True)}"


def _spanned(found: Difference) -> str:
    return f"{figure(OVERALL, as_kept(found.value), signed=True)} {_interval(found, signed=True)}"


def _interval(found: Score | Difference, *, signed: bool = False) -> str:
    return interval(OVERALL, as_kept(found.low), as_kept(found.high), signed=signed)
