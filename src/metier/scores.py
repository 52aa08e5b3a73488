"""Scores with their uncertainty: intervals, paired tests, Holm. Statistics only, nothing about models.

Shapes: B resamples, N items, G groups (items of one group move together), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from metier.resampling import (
    CONFIDENCE,
    Floats,
    Integers,
    Statistic,
    bootstrap,
    from_expanded,
    group_indices,
    influence,
    least_p,
    percentiles,
    unseen,
    whole,
)

SIGNIFICANCE = 0.05
_ROUNDING = 1e-12
_MANY = 1_000_000  # groups, with which tails are the normal ones


@dataclass(frozen=True)
class Score:
    """A metric's value with its 95 % interval, in the metric's own unit.

    `n` items were scored, in `groups` independent groups. `higher_is_better` is None where neither
    direction is (a length).
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    groups: int
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs on the same items: 95 % interval, two-sided p, and p adjusted by `holm`."""

    metric: str
    value: float
    low: float
    high: float
    p: float
    p_adjusted: float
    test: str
    n: int
    groups: int
    higher_is_better: bool = True

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown"]:
        """What may be said of ours: a direction only where the adjusted p is below 0.05."""
        if self.p_adjusted >= SIGNIFICANCE or self.value == 0:
            return "no difference shown"
        return "better" if (self.value > 0) == self.higher_is_better else "worse"

    @property
    def unshown(self) -> str:
        """Why no difference is shown although the interval leaves 0 out, or ""."""
        if self.verdict != "no difference shown" or self.low <= 0 <= self.high:
            return ""
        if self.p < SIGNIFICANCE:
            return "not shown once p is adjusted for the number of tests"
        return f"too few {'groups' if self.groups < self.n else 'items'} to show it"


def mean(values_N: npt.ArrayLike) -> Statistic:
    """The weighted mean of one value per item. Raises ValueError for a value that is not finite."""
    values = _finite(values_N)
    return ratio(values, np.ones_like(values))


def ratio(numerators_N: npt.ArrayLike, denominators_N: npt.ArrayLike) -> Statistic:
    """Sum over sum, as nats per token. Raises ValueError unless denominators are positive, all finite."""
    numerators, denominators = _finite(numerators_N), _finite(denominators_N)
    if (denominators <= 0).any():
        raise ValueError("a ratio needs positive denominators")

    def statistic(weights_BN: Floats) -> Floats:
        return np.asarray((weights_BN @ numerators) / (weights_BN @ denominators))

    return statistic


def f1(
    truth_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    classes: int,
    average: Literal["macro", "weighted"] = "macro",
) -> Statistic:
    """F1 over the classes 0 … `classes` - 1, in 0 … 1, as scikit-learn's over the labels that occur.

    A prediction of -1 (no answer, or one that is no class) counts for no class; its item is still missed.
    "weighted" weighs each class by its items, "macro" alike all that some item has. Raises ValueError for an
    index out of range.
    """
    truth, predicted = np.asarray(truth_N), np.asarray(predicted_N)
    if ((truth < 0) | (truth >= classes) | (predicted < -1) | (predicted >= classes)).any():
        raise ValueError(f"classes are 0 … {classes - 1}, and -1 for a prediction that is none of them")
    true_NC = (truth[:, None] == np.arange(classes)).astype(float)
    claimed_NC = (predicted[:, None] == np.arange(classes)).astype(float)
    hit_NC = true_NC * claimed_NC

    def statistic(weights_BN: Floats) -> Floats:
        true_BC = weights_BN @ true_NC
        either_BC = true_BC + weights_BN @ claimed_NC
        f1_BC = 2 * (weights_BN @ hit_NC) / np.where(either_BC == 0, 1, either_BC)
        share_BC = np.broadcast_to(true_NC.any(axis=0), true_BC.shape) if average == "macro" else true_BC
        return np.asarray((f1_BC * share_BC).sum(axis=1) / share_BC.sum(axis=1))

    return statistic


def bleu(*columns_N: npt.ArrayLike) -> Statistic:
    """BLEU of a corpus, 0 … 100, from what each item adds to it: a drawn corpus has exactly its own BLEU.

    Columns are words of the output and of the reference, then by length 1 to 4 the runs of words that match, and all
    there are (Papineni et al. 2002). As sacrebleu has it (Post 2018): lengths without a match count 1/2, 1/4, … of
    one ("exp"), and it is 0 where nothing matches, or no output has four words.
    """
    counts_NC = np.stack([_finite(column) for column in columns_N], axis=1)

    def statistic(weights_BN: Floats) -> Floats:
        counts_BC = weights_BN @ counts_NC
        written_B, wanted_B = counts_BC[:, 0], counts_BC[:, 1]
        matching_BL, all_BL = counts_BC[:, 2:6], counts_BC[:, 6:10]
        missed_BL = matching_BL == 0
        smoothed_BL = np.where(missed_BL, 0.5 ** missed_BL.cumsum(axis=1), matching_BL)
        defined_B = (all_BL > 0).all(axis=1) & ~missed_BL.all(axis=1)
        precision_BL = np.where(defined_B[:, None], smoothed_BL / np.where(all_BL > 0, all_BL, 1), 1)
        brevity_B = np.minimum(0, 1 - wanted_B / np.where(written_B > 0, written_B, 1))
        return np.asarray(np.where(defined_B, 100 * np.exp(brevity_B + np.log(precision_BL).mean(axis=1)), 0.0))

    return statistic


def kappa(ours_N: npt.ArrayLike, theirs_N: npt.ArrayLike, classes: int) -> Statistic:
    """Cohen's kappa of two raters over the classes 0 … `classes` - 1, -1 … 1 (Cohen 1960): agreement beyond chance.

    0 where both only ever say one and the same class: there is nothing beyond chance then.
    """
    ours_NC = (np.asarray(ours_N)[:, None] == np.arange(classes)).astype(float)
    theirs_NC = (np.asarray(theirs_N)[:, None] == np.arange(classes)).astype(float)
    agreed_N = (ours_NC * theirs_NC).sum(axis=1)

    def statistic(weights_BN: Floats) -> Floats:
        total_B = weights_BN.sum(axis=1)
        agreed_B = weights_BN @ agreed_N / total_B
        chance_B = ((weights_BN @ ours_NC) * (weights_BN @ theirs_NC)).sum(axis=1) / total_B**2
        known_B = chance_B < 1 - _ROUNDING
        return np.asarray(np.where(known_B, (agreed_B - chance_B) / np.where(known_B, 1 - chance_B, 1), 0.0))

    return statistic


def auc(scores_N: npt.ArrayLike, positive_N: npt.ArrayLike) -> Statistic:
    """The area under the ROC curve: how often a positive item scores above a negative one, ties counting half.

    In 0 … 1, and 0.5 where one side is empty (Hanley and McNeil 1982). Raises ValueError for a score that is not
    finite.
    """
    scores, positive = _finite(scores_N), np.asarray(positive_N, dtype=bool)
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)

    def statistic(weights_BN: Floats) -> Floats:
        sorted_BN = weights_BN[:, order]
        above_BU = np.add.reduceat(sorted_BN * positive[order], starts, axis=1)
        below_BU = np.add.reduceat(sorted_BN * ~positive[order], starts, axis=1)
        won_B = (above_BU * (below_BU.cumsum(axis=1) - below_BU / 2)).sum(axis=1)
        pairs_B = above_BU.sum(axis=1) * below_BU.sum(axis=1)
        return np.asarray(np.where(pairs_B > 0, won_B / np.where(pairs_B > 0, pairs_B, 1), 0.5))

    return statistic


@dataclass(frozen=True)
class Drawn:
    """A number that follows from items: its value, and its values on B resamples of their groups.

    `fewest` is the number of groups in the stratum that has the fewest. Linear in every field but the counts.
    """

    value: float
    draws_B: Floats
    n: int
    groups: int
    fewest: int

    @classmethod
    def of(cls, statistic: Statistic, groups: Sequence[str], stream: int = 0, what: str = "statistic") -> Drawn:
        """One stratum; whoever shares groups and stream is drawn alike, so that differences are paired.

        Raises ValueError, naming `what`, without items.
        """
        group_N, total = group_indices(what, groups)
        return cls(whole(statistic, group_N), bootstrap(statistic, group_N, total, stream), len(groups), total, total)

    @classmethod
    def mean(cls, strata: Sequence[Drawn]) -> Drawn:
        """Over strata that were drawn independently and count alike."""
        draws_B = np.asarray(np.mean([each.draws_B for each in strata], axis=0))
        n, groups = sum(each.n for each in strata), sum(each.groups for each in strata)
        fewest = min(each.fewest for each in strata)
        return cls(float(np.mean([each.value for each in strata])), draws_B, n, groups, fewest)

    @classmethod
    def weighted(cls, weights: Sequence[float], parts: Sequence[Drawn]) -> Drawn:
        """A weighted sum over the same items. The same numbers summed in another order are equal."""
        draws_B = np.sum([weight * each.draws_B for weight, each in zip(weights, parts, strict=True)], axis=0)
        value = float(sum(weight * each.value for weight, each in zip(weights, parts, strict=True)))
        return replace(parts[0], value=_exact(value), draws_B=np.where(np.abs(draws_B) < _ROUNDING, 0.0, draws_B))

    def allowing(self, stream: int) -> Drawn:
        """Of a score in 0 … 1: with the losses that no item showed (`resampling.unseen`) where it is at an end.

        All items right, or all wrong, is no proof that others will be. Strata are told apart by their `stream`. The
        rule of three needs no wider tails, so that it counts for no number of groups.
        """
        end = round(self.value)
        if max(abs(self.draws_B - end).max(), abs(self.value - end)) > _ROUNDING:
            return self
        draws_B = np.clip(np.abs(end - unseen([1 / self.groups], stream)), 0.0, 1.0)
        return replace(self, value=float(end), draws_B=draws_B, fewest=_MANY)

    def score(self, metric: str) -> Score:
        low, high = percentiles(self.draws_B, self.fewest)
        return Score(metric, self.value, low, high, self.n, self.groups)

    def difference(self, metric: str, floor: float) -> Difference:
        """As `paired` has it, of a number that is a difference; `floor` is the least p that the items allow."""
        tail = min(int((self.draws_B <= 0).sum()), int((self.draws_B >= 0).sum()))
        p = min(1.0, max(2 * from_expanded((1 + tail) / (len(self.draws_B) + 1), self.fewest), floor))
        low, high = percentiles(self.draws_B, self.fewest)
        return Difference(metric, self.value, low, high, p, p, "paired bootstrap", self.n, self.groups)

    def p_behind(self, margin: float, losses: Sequence[float]) -> float:
        """One-sided p of the null that a difference is -`margin` or less; `losses` as `resampling.unseen` has them."""
        behind = int((self.draws_B - unseen(losses) <= -margin).sum())
        return from_expanded((1 + behind) / (len(self.draws_B) + 1), self.fewest)


def interval(
    metric: str,
    statistic: Statistic,
    groups: Sequence[str],
    higher_is_better: bool | None = True,
) -> Score:
    """The statistic with its bootstrap interval (expanded percentile); `groups` names each item's group.

    One group alone gives an interval without width: it says nothing about others.
    Raises ValueError without items.
    """
    return replace(Drawn.of(statistic, groups, what=metric).score(metric), higher_is_better=higher_is_better)


def proportion(metric: str, correct: npt.ArrayLike, groups: Sequence[str]) -> Score:
    """The share of items that are correct, in 0 … 1.

    Wilson's interval (Wilson 1927) where every item is its own group. Where items share groups, the
    bootstrap over groups; if that has no width (all groups alike), Wilson's with groups for items.
    """
    score = interval(metric, mean(correct), groups)
    if score.groups < score.n and score.low < score.high:
        return score
    low, high = _wilson(score.value, score.groups)
    return replace(score, low=low, high=high)


def paired(
    metric: str,
    ours: Statistic,
    theirs: Statistic,
    groups: Sequence[str],
    higher_is_better: bool = True,
) -> Difference:
    """Ours minus theirs over the same items, by bootstrap over groups.

    p = min(1, 2 min((1 + #{d <= 0}) / (B + 1), (1 + #{d >= 0}) / (B + 1))) (Davison & Hinkley 1997, 4.4),
    its tail widened for few groups as the interval's (`_expanded`), and never below 2 / 2^k when only k
    groups differ at all: that is the least that any test blind to who is who can give, and without this
    floor a single item would prove anything.
    Raises ValueError without items.
    """
    difference = _minus(ours, theirs)
    drawn = Drawn.of(difference, groups, what=metric)
    found = drawn.difference(metric, least_p(difference, *group_indices(metric, groups)))
    over = "1 group" if drawn.groups == 1 else f"{drawn.groups} groups"
    test = f"paired bootstrap over {over}" if drawn.groups < drawn.n else "paired bootstrap"
    return replace(found, test=test, higher_is_better=higher_is_better)


def mcnemar(
    metric: str,
    ours_correct: npt.ArrayLike,
    theirs_correct: npt.ArrayLike,
    groups: Sequence[str],
) -> Difference:
    """The difference of two shares of correct items, in -1 … 1.

    McNemar's exact test: under the null the sign of each group's difference is a fair coin's, and p is the
    exact share of sign patterns whose sum is at least as far from zero. Where every item is its own group
    this is the binomial over the items on which the two disagree. The interval is the paired bootstrap's.
    Raises ValueError without items.
    """
    ours, theirs = np.asarray(ours_correct, dtype=bool), np.asarray(theirs_correct, dtype=bool)
    by_bootstrap = paired(metric, mean(ours), mean(theirs), groups)
    group_N, total = group_indices(metric, groups)
    won = np.bincount(group_N, weights=ours.astype(float) - theirs, minlength=total).round().astype(int)
    p = _sign_flip_p(won)
    test = "exact McNemar" if total == len(groups) else f"exact McNemar over {total} group" + "s" * (total > 1)
    return replace(by_bootstrap, p=p, p_adjusted=p, test=test)


def extremes(ours: Statistic, theirs: Statistic, groups: Sequence[str]) -> tuple[float, float]:
    """The least two-sided p that the groups in which the two differ allow (see `paired`), and the most that one
    group changes their difference."""
    difference, of_groups = _minus(ours, theirs), group_indices("difference", groups)
    return least_p(difference, *of_groups), influence(difference, *of_groups)


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences, in the same order, their p adjusted for being one family (Holm 1979)."""
    adjusted = adjust_holm([each.p for each in differences])
    return [replace(each, p_adjusted=p) for each, p in zip(differences, adjusted, strict=True)]


def adjust_holm(chances: Sequence[float]) -> list[float]:
    """p values of one family, adjusted, in the same order."""
    adjusted, least = list(chances), 0.0
    for rank, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        adjusted[index] = least = max(least, min(1.0, (len(chances) - rank) * chances[index]))
    return adjusted


def _minus(ours: Statistic, theirs: Statistic) -> Statistic:
    def difference(weights_BN: Floats) -> Floats:
        ours_B, theirs_B = ours(weights_BN), theirs(weights_BN)
        # The same numbers summed in another order are equal, whatever rounding says.
        return np.where(np.isclose(ours_B, theirs_B, rtol=1e-12, atol=1e-12), 0.0, ours_B - theirs_B)

    return difference


def _exact(value: float) -> float:
    return 0.0 if abs(value) < _ROUNDING else value


def _finite(values_N: npt.ArrayLike) -> Floats:
    values = np.asarray(values_N, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(values)))} of {values.size} is not finite")
    return values


def _sign_flip_p(differences: Integers) -> float:
    """Two-sided, exact: the distribution of a sum of whole numbers with random signs, by convolution."""
    sizes = np.abs(differences[differences != 0])
    chances = np.ones(1)  # of each sum of the sizes whose sign is plus
    for size in sizes:
        longer = np.zeros(len(chances) + size)
        longer[: len(chances)] += chances / 2
        longer[size:] += chances / 2
        chances = longer
    signed = np.abs(2 * np.arange(len(chances)) - sizes.sum())
    return float(min(1.0, chances[signed >= abs(int(differences.sum()))].sum()))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval for a share of `n` independent items, continuity uncorrected."""
    z2 = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) ** 0.5 / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
