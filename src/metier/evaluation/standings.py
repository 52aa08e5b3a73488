"""Several strategies on the same held-out items: overall scores, paired tests, and who is as good for less.

Overall means the mean over the domains of the primary metric out of 1 (`metrics.out_of_one`), which all count alike.
Every run is drawn once, on the same resamples; whatever is compared is a weighted sum of these draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from metier.evaluation.answers import Answer
from metier.evaluation.metrics import Aligned, align, out_of_one
from metier.resampling import Floats, Statistic
from metier.scores import Difference, Drawn, Score, adjust_holm, extremes, holm

OVERALL = "overall"
NOT_WORSE = 0.025  # one-sided, beside the two-sided 0.05 of all other tests
Keys = Sequence[str]
"""The runs of an entry, one a seed, whose mean counts."""


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


@dataclass(frozen=True)
class Field:
    """All runs of a comparison, drawn on the same resamples: by domain and run."""

    domains: tuple[str, ...]
    aligned: Mapping[str, Aligned]
    drawn: Mapping[str, Mapping[str, Drawn]]

    @classmethod
    def of(cls, runs: Mapping[str, Sequence[Answer]]) -> Self:
        """Raises ValueError where runs were asked other items of a domain."""
        aligned = {each.domain: each for each in align(runs)}
        drawn = {each.domain: _drawn(each, stream) for stream, each in enumerate(aligned.values())}
        return cls(tuple(aligned), aligned, drawn)

    def stand(self, keys: Keys) -> Standing:
        """An entry by itself."""
        weights = [1 / len(keys)] * len(keys)
        drawn = self._weighted(dict(zip(keys, weights, strict=True)))
        found = {name: each.allowing(stream) for stream, (name, each) in enumerate(drawn.items())}
        overall = Drawn.mean([*found.values()]).score(OVERALL) if len(found) == len(self.domains) else None
        values = [[self.drawn[name][key].value for name in self.domains] for key in keys] if overall else []
        seeds = tuple(float(np.mean(each)) for each in values)
        return Standing(overall, {name: each.score(name) for name, each in found.items()}, seeds)

    def contrast(self, ours: Keys, theirs: Keys, margin: float) -> Contrast:
        """Ours minus theirs, out of 1; Holm is the caller's."""
        weights = {key: 1 / len(ours) for key in ours}
        for key in theirs:
            weights[key] = weights.get(key, 0.0) - 1 / len(theirs)
        found = self._weighted(weights)
        bounds = {name: self._extremes(name, weights) for name in found}
        domains = {name: each.difference(name, bounds[name][0]) for name, each in found.items()}
        if len(found) < len(self.domains):
            return Contrast(None, domains)
        whole = Drawn.mean([*found.values()])
        floor = 2.0 * float(np.prod([least / 2 for least, _ in bounds.values()]))
        losses = [most / len(found) for _, most in bounds.values()]
        return Contrast(whole.difference(OVERALL, floor), domains, whole.p_behind(margin, losses))

    def per_doubling(self, points: Sequence[tuple[float, Keys]]) -> Score | None:
        """What doubling the examples added: the slope of the overall score over log2 of their number.

        By least squares over `points` of (examples, runs). None where fewer than two can be scored.
        """
        scored = [(count, key) for count, keys in points for key in keys if self._complete(key)]
        if len({count for count, _ in scored}) < 2:
            return None
        x = np.log2([count for count, _ in scored])
        slopes = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        found = self._weighted({key: float(each) for each, (_, key) in zip(slopes, scored, strict=True)})
        return Drawn.mean([*found.values()]).score("per doubling")

    def _complete(self, key: str) -> bool:
        return all(key in self.drawn[name] for name in self.domains)

    def _weighted(self, weights: Mapping[str, float]) -> dict[str, Drawn]:
        """A weighted sum over runs in every domain in which all of them can be scored."""
        return {
            name: Drawn.weighted([*weights.values()], [runs[key] for key in weights])
            for name, runs in self.drawn.items()
            if all(key in runs for key in weights)
        }

    def _extremes(self, name: str, weights: Mapping[str, float]) -> tuple[float, float]:
        """The least p that a domain's items allow, and the most that a group of them changes the difference."""
        its = self.aligned[name]

        def side(sign: float) -> Statistic:
            chosen = [(sign * weight, _of_one(its.metric, its.statistics[key])) for key, weight in weights.items()]
            return lambda weights_BN: np.asarray(
                sum((weight * of(weights_BN) for weight, of in chosen if weight > 0), np.zeros(len(weights_BN)))
            )

        return extremes(side(1.0), side(-1.0), its.groups)


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
    p_inferior = dict(zip(known, adjust_holm([*known.values()]), strict=True))
    return {
        name: replace(each, overall=whole.get(name), domains=domains[name], p_inferior=p_inferior.get(name))
        for name, each in contrasts.items()
    }


def _drawn(aligned: Aligned, stream: int) -> dict[str, Drawn]:
    return {
        run: Drawn.of(_of_one(aligned.metric, statistic), aligned.groups, stream)
        for run, statistic in aligned.statistics.items()
    }


def _of_one(metric: str, statistic: Statistic) -> Statistic:
    """The same, where 1 is perfect."""

    def of_one(weights_BN: Floats) -> Floats:
        return np.array([out_of_one(metric, value) for value in statistic(weights_BN).tolist()])

    return of_one
