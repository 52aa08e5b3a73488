"""What the numbers of a table promise: the references' values, intervals that cover, words that are rarely wrong.

The simulations draw thousands of comparisons and are marked slow; they rest on fewer resamples than a report does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from metier import resampling
from metier.evaluation.answers import Answer
from metier.evaluation.standings import NOT_WORSE, Contrast, Field, adjust
from metier.scores import Difference, f1, holm, interval, mcnemar, mean, paired, proportion

Bools = Sequence[bool] | np.ndarray[Any, np.dtype[np.bool_]]


def alone(n: int) -> list[str]:
    return [f"{number:05}" for number in range(n)]


# The references


@settings(max_examples=25, deadline=None)
@given(correct=st.lists(st.booleans(), min_size=1, max_size=60))
def test_the_interval_of_a_share_is_statsmodels_wilson(correct: list[bool]) -> None:
    found = proportion("accuracy", correct, alone(len(correct)))
    low, high = proportion_confint(sum(correct), len(correct), method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_test_of_two_shares_is_statsmodels_exact_mcnemar(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    table = [[sum(pair == (a, b) for pair in pairs) for b in (True, False)] for a in (True, False)]
    assert mcnemar("accuracy", ours, theirs, alone(len(pairs))).p == pytest.approx(
        their_mcnemar(table, exact=True).pvalue
    )


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels(seed: int) -> None:
    p = np.random.default_rng(seed).beta(0.3, 1, size=9).round(3).tolist()
    ours = holm([Difference("accuracy", 1, 0, 2, each, each, "", 1, 1) for each in p])
    assert [each.p_adjusted for each in ours] == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("seed", range(5))
def test_the_paired_bootstrap_is_scipys(seed: int) -> None:
    """The same up to the draws, and to the widening for n groups."""
    random = np.random.default_rng(seed)
    ours = random.normal(size=200)
    theirs = ours + random.normal(0.1, 0.5, size=200)
    found = paired("chrf", mean(ours), mean(theirs), alone(200))
    theirs_interval = stats.bootstrap(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, method="percentile", rng=seed
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs_interval), abs=0.01)
    assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.02)


# Comparisons


def answers(correct: Bools, domain: str = "d", groups: Sequence[str] | None = None) -> list[Answer]:
    groups = groups or alone(len(correct))
    return [
        Answer(
            id=str(number),
            domain=domain,
            group=group,
            kind="label",
            place="",
            prompt="",
            reference="yes",
            output="yes" if right else "no",
            labels=("yes", "no"),
        )
        for number, (right, group) in enumerate(zip(correct, groups, strict=True))
    ]


def judged(runs: dict[str, list[Answer]], margin: float = 0.02) -> dict[str, Contrast]:
    """Every arm against "base", as a table has it."""
    field = Field.of(runs)
    return adjust({name: field.contrast([name], ["base"], margin) for name in runs if name != "base"})


def test_one_domain_and_one_seed_is_the_paired_test() -> None:
    random = np.random.default_rng(0)
    base, ours = random.random(300) < 0.6, random.random(300) < 0.7
    found = judged({"base": answers(base), "ours": answers(ours)})["ours"].overall
    reference = paired("accuracy", mean(ours), mean(base), alone(300))
    assert found
    assert (found.value, found.low, found.high, found.p) == pytest.approx(
        (reference.value, reference.low, reference.high, reference.p)
    )


def test_domains_count_alike_whatever_their_size() -> None:
    many, few = [True] * 200, [False] * 10
    field = Field.of({"a": [*answers(many), *answers(few, "e")]})
    standing = field.stand(["a"])
    assert standing.overall
    assert standing.overall.value == pytest.approx(0.5)


def test_seeds_are_averaged_item_by_item() -> None:
    random = np.random.default_rng(1)
    seeds = [random.random(100) < 0.6 for _ in range(3)]
    field = Field.of({str(number): answers(each) for number, each in enumerate(seeds)})
    standing = field.stand(["0", "1", "2"])
    assert standing.overall
    assert standing.overall.value == pytest.approx(np.mean(seeds))
    assert standing.spread == pytest.approx(np.std([each.mean() for each in seeds], ddof=1))


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("seeds", [1, 7])
def test_all_right_or_all_wrong_is_not_certain(right: bool, seeds: int) -> None:
    said = [each for name in "abcd" for each in answers([right] * 100, domain=name)]
    keys = [str(seed) for seed in range(seeds)]
    standing = Field.of(dict.fromkeys(keys, said)).stand(keys)
    assert standing.overall
    for score, n in ((standing.overall, 400), *((each, 100) for each in standing.domains.values())):
        low, high = stats.binomtest(n * right, n).proportion_ci(method="wilson")
        assert (score.low, score.high) == pytest.approx((low, high), abs=0.012)
        assert score.value == right
    # Domains are drawn apart: all together vary less than each.
    assert standing.overall.high - standing.overall.low < 0.75 * (
        standing.domains["a"].high - standing.domains["a"].low
    )


def test_an_entry_against_itself_differs_in_nothing() -> None:
    random = np.random.default_rng(2)
    field = Field.of({"a": answers(random.random(50) < 0.5)})
    found = field.contrast(["a"], ["a"], 0.02).overall
    assert found
    assert (found.value, found.p) == (0.0, 1.0)


def test_what_doubling_adds_is_the_slope_over_log2() -> None:
    sizes = (50, 100, 400)
    right = {size: round(10 * math.log2(size)) for size in sizes}
    runs = {str(size): answers([True] * right[size] + [False] * (200 - right[size])) for size in sizes}
    field = Field.of(runs)
    slope = field.per_doubling([(size, [str(size)]) for size in sizes])
    x, y = np.log2(sizes), [right[size] / 200 for size in sizes]
    assert slope
    assert slope.value == pytest.approx(stats.linregress(x, y).slope)


def test_a_handful_of_items_never_shows_that_something_is_not_worse() -> None:
    """Eight items on which both agree leave room for much more than two points."""
    same = [True, False] * 4
    found = judged({"base": answers(same), "twin": answers(same)})["twin"]
    assert found.p_inferior is not None
    assert found.p_inferior > NOT_WORSE


# Simulations


def coverage(draw: Callable[[np.random.Generator], bool], rounds: int = 1000) -> float:
    random = np.random.default_rng(11)
    return sum(draw(random) for _ in range(rounds)) / rounds


@pytest.mark.parametrize("n", [100, 250, 1000])
def test_intervals_of_accuracy_cover(n: int) -> None:
    """Exactly, by every possible count: 93 to 97 % on average over p in a tenth's neighbourhood."""
    bounds = np.array([proportion_confint(k, n, method="wilson") for k in range(n + 1)])
    for middle in np.arange(0.1, 0.91, 0.1):
        shares = np.linspace(middle - 0.02, middle + 0.02, 41)
        inside = [np.flatnonzero((bounds[:, 0] <= p) & (p <= bounds[:, 1])) for p in shares]
        covered = [stats.binom.pmf(counts, n, p).sum() for counts, p in zip(inside, shares, strict=True)]
        assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.6, 0.85])
def test_intervals_of_f1_cover(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Macro F1 of three uneven classes, n = 300; the truth from a million items."""
    monkeypatch.setattr(resampling, "RESAMPLES", 1000)

    def drawn(random: np.random.Generator, n: int) -> tuple[Any, Any]:
        truth = random.choice(3, size=n, p=[0.5, 0.3, 0.2])
        return truth, np.where(random.random(n) < rate, truth, random.integers(3, size=n))

    def macro(truth: Any, predicted: Any) -> float:
        return float(f1(truth, predicted, 3)(np.ones((1, len(truth))))[0])

    right = macro(*drawn(np.random.default_rng(1), 1_000_000))

    def covers(random: np.random.Generator) -> bool:
        truth, predicted = drawn(random, 300)
        found = interval("macro_f1", f1(truth, predicted, 3), alone(300))
        return found.low <= right <= found.high

    assert 0.93 <= coverage(covers) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(25, 4), (60, 5)])
def test_intervals_of_clustered_items_cover(groups: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of one conversation are right or wrong together more often than not."""
    monkeypatch.setattr(resampling, "RESAMPLES", 1000)
    names = np.repeat(alone(groups), size).tolist()

    def covers(random: np.random.Generator) -> bool:
        shares = np.repeat(random.beta(1.4, 0.6, size=groups), size)
        found = proportion("accuracy", random.random(groups * size) < shares, names)
        return found.low <= 0.7 <= found.high

    assert 0.93 <= coverage(covers) <= 0.97


@pytest.mark.slow
def test_of_null_comparisons_few_say_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 comparisons of eight arms in two domains with a base that is as good: any *better* is a false one."""
    monkeypatch.setattr(resampling, "RESAMPLES", 2000)
    random = np.random.default_rng(5)
    wrong = {"overall": 0, "anywhere": 0}
    for _ in range(400):
        hardness = {"d": random.beta(2, 1, size=150), "e": random.beta(2, 1, size=150)}
        runs = {
            name: [each for domain, p in hardness.items() for each in answers(random.random(150) < p, domain)]
            for name in ("base", *"abcdefgh")
        }
        found = judged(runs).values()
        wrong["overall"] += any(each.overall and each.overall.verdict == "better" for each in found)
        wrong["anywhere"] += any(
            each.verdict == "better" for one in found for each in (one.overall, *one.domains.values()) if each
        )
    assert wrong["overall"] <= 20
    assert wrong["anywhere"] <= 20


def discordant(random: np.random.Generator, gain: float, share: float, n: int = 1200) -> tuple[Any, Any]:
    """Two runs that disagree on `share` of the items, ours ahead by `gain` of all."""
    base = random.random(n) < 0.6
    kind = random.random(n)
    up, down = (share + gain) / 2, (share - gain) / 2
    ours = np.where(kind < up, True, np.where(kind < up + down, False, base))
    return ours, np.where(kind < up, False, np.where(kind < up + down, True, base))


@pytest.mark.slow
def test_a_planted_gain_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five points at n = 1,200 with a tenth discordant, beside seven arms that gain nothing."""
    monkeypatch.setattr(resampling, "RESAMPLES", 2000)
    random, called = np.random.default_rng(6), 0
    for _ in range(100):
        ours, base = discordant(random, 0.05, 0.1)
        runs = {"base": answers(base), "ours": answers(ours)}
        runs |= {
            name: answers(np.where(random.random(1200) < 0.1, random.random(1200) < 0.6, base)) for name in "abcdefg"
        }
        found = judged(runs)["ours"].overall
        called += found is not None and found.verdict == "better"
    assert called >= 80


@pytest.mark.slow
@pytest.mark.parametrize(("behind", "least", "most"), [(0.0, 80, 100), (0.02, 0, 6), (0.05, 0, 0)])
def test_not_worse_is_said_where_it_is_true(
    behind: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an equal one at a twentieth discordant, nearly never of one that is behind by the margin of two points."""
    monkeypatch.setattr(resampling, "RESAMPLES", 2000)
    random, said = np.random.default_rng(7), 0
    for _ in range(100):
        ours, best = discordant(random, -behind, max(0.05, behind))
        found = judged({"base": answers(best), "ours": answers(ours)})["ours"].p_inferior
        said += found is not None and found < NOT_WORSE
    assert least <= said <= most
