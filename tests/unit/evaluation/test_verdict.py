from __future__ import annotations

from dataclasses import replace

from metier.evaluation.metrics import DomainDifferences
from metier.evaluation.verdict import of_forgetting, sentence
from metier.scores import Difference

GAIN = Difference("chrf", 5.0, 3.0, 7.0, 0.001, 0.001, "paired bootstrap", 40, 40, True)
LOSS = replace(GAIN, value=-5.0, low=-7.0, high=-3.0)
EVEN = replace(GAIN, value=0.1, low=-1.0, high=1.0, p=0.9, p_adjusted=0.9)


def record(domain: str, difference: Difference) -> DomainDifferences:
    return DomainDifferences(domain, "label" if difference.metric == "accuracy" else "open", 40, (difference,))


def test_domains_are_named_once_with_the_metric_that_decides() -> None:
    hits = replace(GAIN, metric="accuracy")
    records = [record("a", GAIN), record("b", GAIN), record("c", hits), record("d", LOSS), record("e", EVEN)]
    assert sentence({"the untuned base": records}, None, []) == (
        "Against the untuned base: better on a, b (chrf) and c (accuracy), worse on d (chrf), "
        "no difference shown on e (chrf)."
    )


def test_without_opponents_it_says_what_was_measured() -> None:
    assert sentence({}, None, ["a", "b"]) == "Measured on a, b."


def test_what_is_surely_too_small_to_matter_is_no_forgetting() -> None:
    lost = Difference("loss", 0.004, 0.001, 0.008, 0.001, 0.001, "paired bootstrap", 40, 40, False)
    assert (of_forgetting(lost), lost.verdict) == ("negligible", "worse")
    assert "forgot next to nothing: +0.004 nats" in sentence({}, lost, [])
    assert of_forgetting(replace(lost, high=0.012)) == "worse"
    assert of_forgetting(replace(lost, value=-0.02, low=-0.03, high=-0.011)) == "better"
