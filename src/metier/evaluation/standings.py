"""Several strategies on the same held-out items: overall scores, paired tests, and who is as good for less.

Overall means the mean over the domains of the primary metric out of 1 (`metrics.out_of_one`), which all count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from metier.evaluation.answers import Answer
from metier.evaluation.metrics import Aligned, align, out_of_one
from metier.resampling import Floats, Statistic
from metier.scores import Difference, Score, holm, inferior, stratified, stratified_interval

OVERALL = "overall"
Answers = Sequence[Sequence[Answer]]
"""What an entry answered, a list a seed."""


@dataclass(frozen=True)
class Standing:
    """One entry: its overall score, each domain's (out of 1, mean over seeds), and each seed's overall value.

    `overall` is None where a domain lacks the primary metric: then nothing ranks it.
    """

    overall: Score | None
    domains: Mapping[str, Score]
    seeds: tuple[float, ...]

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds, None of one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Contrast:
    """An entry against another: overall and by domain; `p_inferior` is the chance that it is worse by the margin."""

    overall: Difference | None
    domains: Mapping[str, Difference]
    p_inferior: float | None = None


def stand(answers: Answers, domains: Sequence[str]) -> Standing:
    """An entry by itself. Raises ValueError where its seeds answered different items."""
    aligned = {each.domain: each for each in align(answers)}
    scores = {name: _interval([aligned[name]], name) for name in domains if name in aligned}
    complete = all(name in aligned for name in domains)
    overall = _interval([aligned[name] for name in domains], OVERALL) if complete else None
    seeds = (
        tuple(_value([aligned[name] for name in domains], index) for index in range(len(answers))) if complete else ()
    )
    return Standing(overall, scores, seeds)


def contrast(ours: Answers, theirs: Answers, domains: Sequence[str], margin: float) -> Contrast:
    """Ours minus theirs over the items that both answered, out of 1; Holm is the caller's. See `Contrast`."""
    found = {each.domain: each for each in align([*ours, *theirs])}
    sides = {name: _sides(found[name], len(ours)) for name in domains if name in found}
    by_domain = {name: stratified(name, [mine], [other], [groups]) for name, (mine, other, groups) in sides.items()}
    if len(sides) < len(domains):
        return Contrast(None, by_domain)
    mine, other, groups = zip(*(sides[name] for name in domains), strict=True)
    overall = stratified(OVERALL, mine, other, groups)
    return Contrast(overall, by_domain, inferior(mine, other, groups, margin))


def adjust(contrasts: Mapping[str, Contrast]) -> dict[str, Contrast]:
    """Holm over the entries: the overall tests are one family, the domains' another, and so is what is inferior."""
    overall = [(name, each.overall) for name, each in contrasts.items() if each.overall]
    whole = dict(zip([name for name, _ in overall], holm([each for _, each in overall]), strict=True))
    single = [(name, domain, each) for name, found in contrasts.items() for domain, each in found.domains.items()]
    parts = zip(single, holm([each for *_, each in single]), strict=True)
    domains: dict[str, dict[str, Difference]] = {name: {} for name in contrasts}
    for (name, domain, _), adjusted in parts:
        domains[name][domain] = adjusted
    known = {name: each.p_inferior for name, each in contrasts.items() if each.p_inferior is not None}
    p_inferior = _holm(known)
    return {
        name: replace(each, overall=whole.get(name), domains=domains[name], p_inferior=p_inferior.get(name))
        for name, each in contrasts.items()
    }


def per_doubling(points: Sequence[tuple[float, Answers]], domains: Sequence[str]) -> Score | None:
    """What doubling the examples added: the slope of the overall score over log2 of their number, by least squares.

    `points` are (examples, answers); None where fewer than two of them can be scored.
    """
    runs = [(count, answers) for count, answers in points if len(stand(answers, domains).seeds)]
    if len({count for count, _ in runs}) < 2:
        return None
    aligned = {each.domain: each for each in align([run for _, answers in runs for run in answers])}
    x = np.log2([count for count, answers in runs for _ in answers])
    slopes = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    strata = [aligned[name] for name in domains]
    statistics = [partial(_weighted, each, slopes) for each in strata]
    return stratified_interval("per doubling", statistics, [each.groups for each in strata])


def _sides(aligned: Aligned, ours: int) -> tuple[Statistic, Statistic, Sequence[str]]:
    count = len(aligned.statistics)
    weights = [np.repeat([1 / ours, 0], [ours, count - ours]), np.repeat([0, 1 / (count - ours)], [ours, count - ours])]
    return partial(_weighted, aligned, weights[0]), partial(_weighted, aligned, weights[1]), aligned.groups


def _weighted(aligned: Aligned, weights_R: Floats, weights_BN: Floats) -> Floats:
    """A weighted sum over the runs of their metric out of 1, for each of B resamples."""
    sums = np.zeros(len(weights_BN))
    for weight, statistic in zip(weights_R, aligned.statistics, strict=True):
        if weight:
            sums += weight * np.array([out_of_one(aligned.metric, each) for each in statistic(weights_BN).tolist()])
    return sums


def _interval(aligned: Sequence[Aligned], name: str) -> Score:
    statistics = [partial(_weighted, each, np.full(len(each.statistics), 1 / len(each.statistics))) for each in aligned]
    return stratified_interval(name, statistics, [each.groups for each in aligned])


def _value(aligned: Sequence[Aligned], index: int) -> float:
    """One run's overall score."""
    values = [each.statistics[index](np.ones((1, len(each.groups))))[0] for each in aligned]
    return float(np.mean([out_of_one(each.metric, value) for each, value in zip(aligned, values, strict=True)]))


def _holm(chances: Mapping[str, float]) -> dict[str, float]:
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(chances, key=chances.__getitem__)):
        least = max(least, min(1.0, (len(chances) - rank) * chances[name]))
        adjusted[name] = least
    return adjusted
