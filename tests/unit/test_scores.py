from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from metier import resampling
from metier.scores import Difference, f1, holm, interval, mcnemar, mean, paired, proportion, ratio


def alone(n: int) -> list[str]:
    """Every item its own group."""
    return [f"{number:05}" for number in range(n)]


def difference(p: float, value: float = 1.0, higher_is_better: bool = True) -> Difference:
    return Difference("accuracy", value, value - 1, value + 1, p, p, "exact McNemar", 9, 9, higher_is_better)


# Statistics


def test_ratio_divides_weighted_sums() -> None:
    values = ratio([3.0, 8.0], [2.0, 10.0])(np.array([[1.0, 1.0], [4.0, 0.0], [1.0, 3.0]]))
    assert values == pytest.approx([11 / 12, 12 / 8, 27 / 32])


def test_mean_is_numpys_weighted_average() -> None:
    random = np.random.default_rng(0)
    values, weights = random.normal(size=7), random.integers(1, 4, size=(5, 7)).astype(float)
    assert mean(values)(weights) == pytest.approx([np.average(values, weights=row) for row in weights])


@pytest.mark.parametrize("average", ["macro", "weighted"])
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3), st.integers(0, 3)), min_size=1))
def test_f1_is_scikit_learns(average: str, pairs: list[tuple[int, int, int]]) -> None:
    truth, predicted, weights = (np.array(column) for column in zip(*pairs, strict=True))
    if not weights.any():
        weights[0] = 1
    ours = f1(truth, predicted, 4, average)(weights[None].astype(float))  # type: ignore[arg-type]
    labels = sorted(set(truth.tolist()))
    theirs = f1_score(truth, predicted, labels=labels, average=average, sample_weight=weights, zero_division=0)
    assert ours == pytest.approx([theirs])


def test_f1_counts_an_unparsed_answer_as_missed_and_as_no_class() -> None:
    # Class 0: one of two found and nothing else claimed, so 2/3; class 1: found; class 2: no item has it.
    assert f1([0, 0, 1], [0, -1, 1], classes=3)(np.ones((1, 3))) == pytest.approx([(2 / 3 + 1) / 2])


@pytest.mark.parametrize(("truth", "predicted"), [([-1], [0]), ([2], [0]), ([0], [2]), ([0], [-2])])
def test_f1_refuses_an_index_that_is_no_class(truth: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match="classes are 0 … 1"):
        f1(truth, predicted, classes=2)


def test_a_value_that_is_not_finite_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match="value 1 of 3 is not finite"):
        mean([0.0, math.nan, 1.0])
    with pytest.raises(ValueError, match="value 0 of 1 is not finite"):
        ratio([math.inf], [1.0])


def test_a_denominator_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="positive denominators"):
        ratio([1.0, 1.0], [1.0, 0.0])


# Intervals


def test_the_interval_of_a_mean_is_the_normal_one_for_many_items() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=600)
    score = interval("chrf", mean(values), alone(600))
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(600)
    assert score.value == pytest.approx(values.mean())
    assert (score.value - score.low, score.high - score.value) == pytest.approx((half, half), rel=0.06)
    assert (score.n, score.groups, score.higher_is_better) == (600, 600, True)


def test_copies_of_an_item_in_its_group_tell_nothing_new() -> None:
    values = np.random.default_rng(2).normal(size=30)
    once = interval("loss", mean(values), alone(30))
    thrice = interval("loss", mean(np.repeat(values, 3)), np.repeat(alone(30), 3).tolist())
    assert (thrice.n, thrice.groups) == (90, 30)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_the_interval_is_the_same_in_any_item_order_and_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(3).normal(size=40), [str(number // 2) for number in range(40)]
    first = interval("loss", mean(values), groups)
    assert interval("loss", mean(values), groups) == first
    monkeypatch.setattr(resampling, "_CELLS", 40 * 3001)
    turned = interval("loss", mean(values[::-1]), groups[::-1])
    assert (turned.low, turned.high) == pytest.approx((first.low, first.high), rel=1e-12)


def test_intervals_cover_the_truth_and_only_with_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 400)
    random = np.random.default_rng(4)
    covered = {"by group": 0, "by item": 0}
    for _ in range(200):
        nats = np.repeat(random.exponential(size=40), 5) + random.normal(size=200)
        tokens = random.integers(5, 15, size=200)
        loss = ratio(nats * tokens, tokens)  # nats per token; the truth is 1
        for name, groups in (("by group", np.repeat(alone(40), 5).tolist()), ("by item", alone(200))):
            score = interval("loss", loss, groups)
            covered[name] += score.low <= 1 <= score.high
    assert 0.88 * 200 <= covered["by group"] <= 0.99 * 200
    assert covered["by item"] < 0.8 * 200


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_proportion_has_wilsons_interval(correct: int, n: int, low: float, high: float) -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    score = proportion("accuracy", np.arange(n) < correct, alone(n))
    assert score.value == correct / n
    assert (score.low, score.high) == pytest.approx((low, high), abs=5e-5)


def test_a_proportion_with_groups_is_wider_than_wilsons() -> None:
    correct = np.repeat(np.arange(20) < 12, 5)  # whole conversations are right or wrong: 20 facts, not 100
    grouped = proportion("accuracy", correct, np.repeat(alone(20), 5).tolist())
    single = proportion("accuracy", correct, alone(100))
    assert grouped.value == single.value == 0.6
    assert grouped.high - grouped.low > 1.8 * (single.high - single.low)


def test_a_perfect_proportion_is_not_certain() -> None:
    grouped = proportion("accuracy", [True] * 60, np.repeat(alone(20), 3).tolist())
    assert (grouped.low, grouped.high) == pytest.approx(stats.binomtest(20, 20).proportion_ci(method="wilson"))


def test_no_items_are_refused_by_name() -> None:
    for call in (
        lambda: interval("loss", mean([]), []),
        lambda: proportion("loss", [], []),
        lambda: paired("loss", mean([]), mean([]), []),
        lambda: mcnemar("loss", [], [], []),
    ):
        with pytest.raises(ValueError, match="loss: no items"):
            call()


# Paired tests


@pytest.mark.parametrize("groups", [6, 10])
def test_few_groups_are_not_called_better_more_often_than_promised(groups: int) -> None:
    """The plain percentile bootstrap is wrong about 17 of 100 times with six groups where 5 are promised."""
    random = np.random.default_rng(3)
    drawn = [random.normal(size=(2, groups)) for _ in range(200)]
    wrong = sum(paired("chrf", mean(ours), mean(theirs), alone(groups)).p < 0.05 for ours, theirs in drawn)
    assert wrong <= 20  # 5 % of 200, and chance


def test_a_plain_gain_is_better_and_a_plain_loss_worse() -> None:
    random = np.random.default_rng(5)
    theirs = random.normal(size=100)
    ours = theirs + random.normal(1, 0.5, size=100)
    up = paired("chrf", mean(ours), mean(theirs), alone(100))
    assert up.value == pytest.approx((ours - theirs).mean())
    assert up.p < 0.001
    assert (up.verdict, up.test) == ("better", "paired bootstrap")
    assert 0 < up.low < up.value < up.high
    down = paired("loss", mean(ours), mean(theirs), alone(100), higher_is_better=False)
    assert (down.verdict, down.p) == ("worse", up.p)


def test_p_is_twice_the_smaller_tail_of_the_normal_for_many_items() -> None:
    random = np.random.default_rng(6)
    gain = random.normal(size=500)
    gain += 0.07 - gain.mean()
    theirs = random.normal(size=500)
    expected = 2 * stats.norm.sf(0.07 / (gain.std() / math.sqrt(500)))
    assert 0.05 < expected < 0.2
    ours = paired("chrf", mean(theirs + gain), mean(theirs), alone(500))
    assert ours.p == pytest.approx(expected, rel=0.15)
    assert ours.verdict == "no difference shown"


def test_equal_runs_have_p_one() -> None:
    values = [0.1, 0.2, 0.3]
    for theirs in (values, values[::-1]):  # the same numbers in another order, summed with another rounding
        same = paired("chrf", mean(values), mean(theirs), ["one"] * 3)
        assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    correct = [True, False, True]
    assert mcnemar("accuracy", correct, correct, alone(3)).p == 1
    assert mcnemar("accuracy", correct, correct, ["a", "a", "b"]).p == 1


@pytest.mark.parametrize(("differing", "p"), [(1, 1.0), (2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_few_differing_groups_prove_little(differing: int, p: float) -> None:
    ours = np.arange(differing) + 1.0
    assert paired("chrf", mean(ours), mean(np.zeros(differing)), alone(differing)).p == p
    # The same in a crowd of ties, where the bootstrap alone would say e^-k.
    crowd = np.where(np.arange(50) < differing, 1.0, 0.0)
    assert paired("chrf", mean(crowd), mean(np.zeros(50)), alone(50)).p >= p


def test_a_difference_within_one_group_is_none() -> None:
    clustered = mcnemar("accuracy", [True] * 20, [False] * 20, ["one conversation"] * 20)
    assert (clustered.p, clustered.groups, clustered.n) == (1.0, 1, 20)
    assert clustered.test == "exact McNemar over 1 group"


def test_false_alarms_are_about_as_rare_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 400)
    random = np.random.default_rng(7)
    groups, alarms = np.repeat(alone(40), 3).tolist(), 0
    for _ in range(200):
        ours, theirs = (np.repeat(random.normal(size=40), 3) + random.normal(size=120) for _ in range(2))
        alarms += paired("chrf", mean(ours), mean(theirs), groups).p < 0.05
    assert 2 <= alarms <= 20


def test_mcnemar_is_the_sign_test_on_disagreements() -> None:
    ours = [True] * 8 + [False] * 1 + [True] * 20 + [False] * 11
    theirs = [False] * 8 + [True] * 1 + [True] * 20 + [False] * 11
    result = mcnemar("accuracy", ours, theirs, alone(40))
    assert result.test == "exact McNemar"
    assert result.p == pytest.approx(2 * (math.comb(9, 0) + math.comb(9, 1)) / 2**9)
    assert result.value == pytest.approx(7 / 40)
    assert result.verdict == "better"
    assert mcnemar("accuracy", theirs, ours, alone(40)).verdict == "worse"


def test_mcnemar_over_groups_counts_sign_patterns() -> None:
    """Group differences +2, +1, −1: of eight sign patterns all but ±(2 − 1 − 1) … are at least 2 from zero."""
    ours = [True, True, True, False, False, True]
    theirs = [False, False, False, False, True, True]
    result = mcnemar("accuracy", ours, theirs, ["a", "a", "b", "b", "c", "c"])
    sums = [abs(x * 2 + y + z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    assert result.p == pytest.approx(sum(each >= 2 for each in sums) / 8)
    assert result.test == "exact McNemar over 3 groups"
    assert result.groups == 3


# Holm and the verdict


def test_holm_on_a_known_case_keeps_the_order() -> None:
    adjusted = holm([difference(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [one.p for one in adjusted] == [0.01, 0.04, 0.03, 0.005]
    assert [one.p_adjusted for one in adjusted] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_adjustment_and_bonferroni(ps: list[float]) -> None:
    adjusted = [one.p_adjusted for one in holm([difference(p) for p in ps])]
    assert all(p <= a <= min(1, len(ps) * p) + 1e-12 for p, a in zip(ps, adjusted, strict=True))
    assert sorted(adjusted) == [a for _, a in sorted(zip(ps, adjusted, strict=True))]
    assert min(adjusted) == pytest.approx(min(1, len(ps) * min(ps)))


@pytest.mark.parametrize(
    ("p", "value", "higher_is_better", "verdict"),
    [
        (0.04, 1.0, True, "better"),
        (0.04, -1.0, True, "worse"),
        (0.04, 1.0, False, "worse"),
        (0.04, -1.0, False, "better"),
        (0.05, 1.0, True, "no difference shown"),
        (0.04, 0.0, False, "no difference shown"),
    ],
)
def test_the_verdict_needs_p_and_takes_the_sign(p: float, value: float, higher_is_better: bool, verdict: str) -> None:
    assert difference(p, value, higher_is_better).verdict == verdict


def test_the_verdict_reads_the_adjusted_p() -> None:
    assert difference(0.03).verdict == "better"
    assert [one.verdict for one in holm([difference(0.03), difference(0.03)])] == ["no difference shown"] * 2


def test_why_an_interval_without_0_may_show_nothing() -> None:
    few = Difference("loss", -0.8, -0.92, -0.74, 0.062, 0.062, "paired bootstrap", 5, 5, False)
    assert few.unshown == "too few items to show it"
    assert replace(few, n=20).unshown == "too few groups to show it"
    assert replace(few, p=0.03).unshown == "not shown once p is adjusted for the number of tests"
    assert not replace(few, high=0.1).unshown
    assert not replace(few, p_adjusted=0.01).unshown
