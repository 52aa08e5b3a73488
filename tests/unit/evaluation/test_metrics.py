from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sklearn.metrics import f1_score

from metier.evaluation.answers import Answer
from metier.evaluation.forgotten import forgetting
from metier.evaluation.measures import METRICS, chrf, rouge_l
from metier.evaluation.metrics import (
    Confusion,
    compare,
    domain_scores,
    to_dict,
)
from metier.scores import Difference, Score

LABELS = ("yes", "no", "maybe")


def answer(number: int, **values: Any) -> Answer:
    base = {"domain": "bank", "group": f"g{number}", "kind": "open", "reference": "the card is blocked"}
    return Answer(id=f"{number:03}", place=f"bank.jsonl:{number}", prompt="user: hi", **{**base, **values})


def label(number: int, reference: str, output: str | None, **values: Any) -> Answer:
    return answer(number, kind="label", labels=LABELS, reference=reference, output=output, **values)


def text(number: int, logprob: float, base_logprob: float | None, **values: Any) -> Answer:
    kinds = {"kind": "text", "domain": "general", "tokens": 10 * (number + 1)}
    return answer(number, logprob=logprob, base_logprob=base_logprob, **{**kinds, **values})


def labels(right: range, n: int = 40, **values: Any) -> list[Answer]:
    return [label(number, "yes", "yes" if number in right else "no", **values) for number in range(n)]


def by_metric(scores: tuple[Score, ...]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


def differences(ours: list[Answer], theirs: list[Answer]) -> dict[tuple[str, str], Difference]:
    return {
        (domain.domain, difference.metric): difference
        for domain in compare(ours, theirs)
        for difference in domain.differences
    }


# Text measures


def test_chrf_on_a_case_done_by_hand() -> None:
    # 1-grams: precision 1, recall 2/3; 2-grams: 1, 1/2; longer ones exist on one side only. F2 of the means.
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    assert chrf("ab", "abc") == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall))
    assert (chrf("same text", "same text"), chrf("", "text"), chrf("xyz", "abc")) == (100, 0, 0)


def test_rouge_l_on_cases_done_by_hand() -> None:
    assert rouge_l("the cat sat on the mat", "the cat is on the mat") == pytest.approx(100 * 5 / 6)
    assert rouge_l("b a", "a b c d") == pytest.approx(100 * 2 * 1 / 6)  # order counts
    assert rouge_l("Hello, WORLD_wide!", "hello world wide") == 100  # punctuation and case do not
    assert rouge_l("große Freude", "Freude") == pytest.approx(100 * 2 / 3)
    assert (rouge_l("", "text"), rouge_l("text", "..."), rouge_l("", "")) == (0, 0, 0)


# Scores of one run


def test_failed_and_unparsed_labels_are_wrong_and_no_class() -> None:
    answers = [
        label(0, "yes", "yes"),
        label(1, "yes", "no"),
        label(2, "no", "no"),
        label(3, "no", "No, I think"),
        label(4, "maybe", "maybe", failed="cut off: whatever it says, it has failed"),
        label(5, "maybe", "maybe"),
    ]
    (scores,) = domain_scores(answers)
    assert (scores.domain, scores.kind, scores.n, scores.failed, scores.unparsed) == (
        "bank",
        "label",
        6,
        1,
        1,
    )
    assert scores.confusion == Confusion(LABELS, ((1, 1, 0), (0, 1, 0), (0, 0, 1)))
    metrics = by_metric(scores.scores)
    assert list(metrics) == ["accuracy", "macro_f1", "weighted_f1"]
    assert metrics["accuracy"].value == 0.5
    truth, predicted = [a.reference for a in answers], ["yes", "no", "no", "?", "?", "maybe"]
    for average in ("macro", "weighted"):
        expected = f1_score(truth, predicted, labels=LABELS, average=average)
        assert metrics[f"{average}_f1"].value == pytest.approx(expected)
    # Wilson's for 3 of 6, as the items share no group.
    assert (metrics["accuracy"].low, metrics["accuracy"].high) == pytest.approx((0.1876, 0.8124), abs=1e-4)


def test_open_answers() -> None:
    answers = [
        answer(0, output="the card is blocked", logprob=-2.0, tokens=4, stopped=True),
        answer(1, output="your card", logprob=-7.0, tokens=5, stopped=False),
        answer(2, output=None, failed="longer than max_length", logprob=-99.0, tokens=1, stopped=False),
    ]
    (scores,) = domain_scores(answers)
    metrics = by_metric(scores.scores)
    assert (scores.failed, scores.unparsed, scores.confusion) == (1, 0, None)
    assert metrics["chrf"].value == pytest.approx((100 + chrf("your card", "the card is blocked") + 0) / 3)
    assert metrics["rouge_l"].value == pytest.approx((100 + 100 * 2 / 6 + 0) / 3)
    assert (metrics["loss"].value, metrics["loss"].n) == (9 / 9, 2)
    assert metrics["stop_rate"].value == 0.5
    assert metrics["length"].value == 3
    assert [metrics[name].higher_is_better for name in ("chrf", "loss", "length")] == [True, False, None]


def test_a_text_domain_is_measured_per_token() -> None:
    answers = [text(0, -20.0, -18.0, kl=0.5), text(1, -30.0, -30.0, kl=1.0), text(2, -1.0, -1.0, failed="no")]
    (scores,) = domain_scores(answers)
    assert {score.metric: score.value for score in scores.scores} == {
        "loss": pytest.approx(50 / 30),
        "base_loss": pytest.approx(48 / 30),
        "kl": pytest.approx(1.5 / 30),
    }
    assert (scores.n, scores.failed) == (3, 1)


def test_metrics_without_values_are_absent() -> None:
    (classical,) = domain_scores([answer(0, output="the card")])
    assert [score.metric for score in classical.scores] == ["chrf", "rouge_l", "repetition", "length"]
    (base,) = domain_scores([text(0, -3.0, None)])
    assert [score.metric for score in base.scores] == ["loss"]


def test_primary_metrics_are_measured_first() -> None:
    for items in (labels(range(2), n=3), [answer(0, output="x")], [text(0, -3.0, -2.0)]):
        (scores,) = domain_scores(items)
        assert scores.scores[0].metric == METRICS[scores.kind][0].name


def test_items_of_a_conversation_are_one_group() -> None:
    turns = [answer(number, group=f"c{number // 2}", output="x") for number in range(6)]
    (scores,) = domain_scores(turns)
    assert {(score.n, score.groups) for score in scores.scores} == {(6, 3)}


def test_domains_keep_their_order_and_their_ids() -> None:
    answers = [answer(0, domain="b", output="x"), answer(0, domain="a", output="x")]
    assert [scores.domain for scores in domain_scores(answers)] == ["b", "a"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (label(0, "yes", "yes"), "bank: item 000 is answered twice"),
        (label(1, "perhaps", "yes"), "bank: item 001: 'perhaps' is none of the labels"),
        (replace(label(1, "yes", "yes"), labels=("yes", "no")), "bank: item 001 has other labels"),
    ],
)
def test_answers_that_contradict_themselves_are_refused(second: Answer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        domain_scores([label(0, "yes", "yes"), second])


# Two runs


def test_accuracy_is_compared_by_mcnemar_and_the_rest_by_bootstrap() -> None:
    (domain,) = compare(labels(range(30)), labels(range(10, 25))[::-1])  # pairing is by id, not by order
    assert (domain.domain, domain.kind, domain.n) == ("bank", "label", 40)
    accuracy, macro, weighted = domain.differences
    assert (accuracy.metric, accuracy.test, accuracy.verdict) == ("accuracy", "exact McNemar", "better")
    assert accuracy.value == pytest.approx(15 / 40)
    assert accuracy.p == pytest.approx(2 / 2**15)
    assert {macro.test, weighted.test} == {"paired bootstrap"}
    assert differences(labels(range(10, 25)), labels(range(30)))["bank", "accuracy"].verdict == "worse"


def test_a_run_against_itself_shows_no_difference() -> None:
    for items in (labels(range(9)), [answer(n, output="card", logprob=-1.0, tokens=2) for n in range(5)]):
        for difference in differences(items, items).values():
            assert (difference.value, difference.p, difference.verdict) == (0, 1, "no difference shown")


def test_the_classical_run_is_compared_only_on_what_it_has() -> None:
    ours = [answer(n, output="the card is", logprob=-1.0, tokens=2, stopped=True) for n in range(8)]
    theirs = [answer(n, output="nothing of it") for n in range(8)]
    found = differences(ours, theirs)
    assert [metric for _, metric in found] == ["chrf", "rouge_l", "repetition"]
    assert found["bank", "chrf"].verdict == "better"


def test_loss_is_compared_over_items_that_both_have() -> None:
    ours = [answer(n, output="x", logprob=-1.0 * (n + 1), tokens=2) for n in range(8)]
    theirs = [replace(a, logprob=a.logprob and a.logprob - 2) for a in ours]
    theirs[0] = replace(theirs[0], output=None, failed="longer than max_length")
    found = differences(ours, theirs)
    assert (found["bank", "loss"].n, found["bank", "chrf"].n) == (7, 8)
    assert found["bank", "loss"].value == pytest.approx(-1.0)
    assert found["bank", "loss"].verdict == "better"  # lower


def test_holm_adjusts_the_primary_metrics_of_all_domains_together() -> None:
    ours = labels(range(7), domain="a") + labels(range(9), domain="b")
    ours += [answer(n, domain="c", output="the card is blocked") for n in range(7)]
    theirs = [replace(a, output="no" if a.kind == "label" else "xyz") for a in ours]
    found = differences(ours, theirs)
    assert found["b", "accuracy"].p == pytest.approx(2 / 2**9)
    assert found["b", "accuracy"].p_adjusted == pytest.approx(3 * 2 / 2**9)
    assert found["a", "accuracy"].p_adjusted == pytest.approx(2 * 2 / 2**7)
    assert found["c", "chrf"].p == pytest.approx(2 / 2**7)
    assert found["c", "chrf"].p_adjusted == pytest.approx(2 * 2 / 2**7)
    for metric in ("macro_f1", "weighted_f1"):  # a family of two, without the open domain
        small, large = sorted((found["a", metric], found["b", metric]), key=lambda one: one.p)
        assert small.p_adjusted == pytest.approx(2 * small.p)
        assert large.p_adjusted == pytest.approx(max(2 * small.p, large.p))
    assert found["c", "rouge_l"].p_adjusted == found["c", "rouge_l"].p


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (labels(range(3), n=4), "bank: 1 items are in one run only, 004 among them"),
        (labels(range(3), n=5, domain="shop"), "only they have"),
        (labels(range(3), n=5, group="one"), "bank: item 000 differs between the runs"),
        (
            [replace(a, reference="no") for a in labels(range(3), n=5)],
            "bank: item 000 differs between the runs",
        ),
    ],
)
def test_runs_on_other_items_are_not_compared(theirs: list[Answer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(labels(range(3), n=5), theirs)


def test_forgetting_is_the_rise_of_loss_over_the_base() -> None:
    passages = [text(n, -22.0 - n, -20.0) for n in range(8)]
    others = [text(8, -1.0, None), answer(9, output="x", logprob=-9.0, base_logprob=-1.0, tokens=1)]
    result = forgetting(passages + others)
    assert (result.metric, result.n, result.higher_is_better) == ("loss", 8, False)
    assert result.value == pytest.approx(sum(2 + n for n in range(8)) / sum(10 * (n + 1) for n in range(8)))
    assert result.verdict == "worse"
    with pytest.raises(ValueError, match="no passage"):
        forgetting(passages[:0])


# JSON


def test_records_become_plain_json() -> None:
    ours, theirs = labels(range(30)), labels(range(10, 25))
    (scores,), (domain,) = domain_scores(ours), compare(ours, theirs)
    plain = json.loads(json.dumps([to_dict(scores), to_dict(domain)], allow_nan=False))
    assert plain[0]["confusion"] == {"labels": list(LABELS), "matrix": [[30, 10, 0], [0, 0, 0], [0, 0, 0]]}
    assert plain[0]["scores"][0] == {
        "metric": "accuracy",
        "value": 0.75,
        "low": pytest.approx(0.5981, abs=1e-4),
        "high": pytest.approx(0.8581, abs=1e-4),
        "n": 40,
        "groups": 40,
        "higher_is_better": True,
    }
    accuracy = plain[1]["differences"][0]
    assert accuracy["verdict"] == "better"
    assert accuracy["p_adjusted"] == domain.differences[0].p_adjusted
    assert to_dict(domain.differences[0]) == to_dict(domain)["differences"][0]
