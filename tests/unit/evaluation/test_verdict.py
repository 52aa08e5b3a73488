from __future__ import annotations

from dataclasses import replace

from metier.evaluation.answers import Answer
from metier.evaluation.metrics import DomainDifferences, DomainScores, compare, decisive, domain_scores
from metier.evaluation.verdict import of_forgetting, sentence
from metier.scores import Difference

GAIN = Difference("chrf", 5.0, 3.0, 7.0, 0.001, 0.001, "paired bootstrap", 40, 40, True)
LOSS = replace(GAIN, value=-5.0, low=-7.0, high=-3.0)
EVEN = replace(GAIN, value=0.1, low=-1.0, high=1.0, p=0.9, p_adjusted=0.9)


def record(domain: str, difference: Difference) -> DomainDifferences:
    return DomainDifferences(domain, "label" if difference.metric == "accuracy" else "open", 40, (difference,))


def scored(domain: str) -> DomainScores:
    return DomainScores(domain, "open", 40, 0, 0, (), None)


def pair(number: int, margin: float | None, right: bool, domain: str = "pairs") -> Answer:
    """Two replies; the classical baseline says only which one it takes."""
    logprobs = () if margin is None else (-50.0, -50.0 - margin)
    kept = {"kind": "preference", "labels": ("yes", "no"), "reference": "yes", "prompt": "?", "place": f"f:{number}"}
    kept |= {"output": "yes" if right else "no", "label_logprobs": logprobs}
    return Answer(id=f"{number}", domain=domain, group=f"{number}", **kept)  # type: ignore[arg-type]


def test_where_one_side_lacks_the_primary_metric_the_next_one_decides() -> None:
    ours = [pair(number, -60.0 - number, right=False) for number in range(40)]
    theirs = [pair(number, None, right=True) for number in range(40)]
    (record,) = compare(ours, theirs)
    assert decisive(record) is record.differences[0]
    assert record.differences[0].metric == "accuracy"
    told = sentence({"the classical baseline": [record]}, None, domain_scores(ours))
    assert told == "Against the classical baseline: worse on pairs (accuracy)."


def test_what_decides_is_one_family_for_holm_whatever_its_metric() -> None:
    def both(margin: float | None) -> list[Answer]:
        closed = [replace(pair(number, None, right=margin is None, domain="b"), kind="choice") for number in range(9)]
        return [*(pair(number, margin, right=margin is None) for number in range(9)), *closed]

    deciding = [decisive(record) for record in compare(both(-60.0), both(None))]
    assert [(each.metric, each.p_adjusted) for each in deciding if each] == [("accuracy", 4 / 2**9)] * 2  # twice p


def test_beside_a_margin_stands_how_often_the_liked_answer_is_the_likelier_one() -> None:
    ours = [pair(number, -10.0 - number, right=number < 10) for number in range(40)]
    theirs = [pair(number, -20.0 - number, right=number < 4) for number in range(40)]
    told = sentence({"the untuned base": compare(ours, theirs)}, None, domain_scores(ours))
    assert told == (
        "Against the untuned base: better on pairs "
        "(margin; the liked answer is the likelier one in 25.0 %, before 10.0 %)."
    )


def test_domains_are_named_once_with_the_metric_that_decides() -> None:
    hits = replace(GAIN, metric="accuracy")
    records = [record("a", GAIN), record("b", GAIN), record("c", hits), record("d", LOSS), record("e", EVEN)]
    assert sentence({"the untuned base": records}, None, []) == (
        "Against the untuned base: better on a, b (chrF) and c (accuracy), worse on d (chrF), "
        "no difference shown on e (chrF)."
    )


def test_without_opponents_it_says_what_was_measured() -> None:
    assert sentence({}, None, [scored("a"), scored("b")]) == "Measured on a, b."


def test_what_is_surely_too_small_to_matter_is_no_forgetting() -> None:
    lost = Difference("loss", 0.004, 0.001, 0.008, 0.001, 0.001, "paired bootstrap", 40, 40, False)
    assert (of_forgetting(lost), lost.verdict) == ("negligible", "worse")
    assert "forgot next to nothing: +0.004 nats" in sentence({}, lost, [])
    assert of_forgetting(replace(lost, high=0.012)) == "worse"
    assert of_forgetting(replace(lost, value=-0.02, low=-0.03, high=-0.011)) == "better"


def test_a_clear_interval_over_too_few_passages_is_explained() -> None:
    few = Difference("loss", -0.8, -0.92, -0.74, 0.062, 0.062, "paired bootstrap", 5, 5, False)
    assert sentence({}, few, []).endswith("[\N{MINUS SIGN}0.920, \N{MINUS SIGN}0.740], too few items to show it.")


def test_metrics_that_go_the_other_way_are_told() -> None:
    exact = replace(EVEN, metric="exact_match")
    longer = replace(LOSS, metric="repetition", value=0.2, low=0.1, high=0.3, higher_is_better=False)
    differing = replace(record("shop", GAIN), differences=(GAIN, exact, longer))
    told = sentence({"the untuned base": [differing, record("bank", GAIN)]}, None, [scored("shop"), scored("bank")])
    assert told == "Against the untuned base: better on shop (chrF; worse by repetition) and bank (chrF)."
    undecided = replace(record("shop", EVEN), differences=(EVEN, longer))
    assert "worse" not in sentence({"the untuned base": [undecided]}, None, [scored("shop")])
