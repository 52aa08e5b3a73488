"""General questions that were lost and gained, guards, and which scale is recommended."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from metier.evaluation.answers import Answer, from_json, to_json
from metier.evaluation.forgotten import changed_choices, losses
from metier.evaluation.metrics import domain_scores
from metier.evaluation.tradeoff import Point, recommend


def question(number: int, before: bool, after: bool, **values: object) -> Answer:
    right, wrong = (-1.0, -2.0), (-2.0, -1.0)
    return Answer(
        id=f"q{number}",
        domain="general_choices",
        group=f"g{number}",
        kind="general",
        place=f"q.jsonl:{number}",
        prompt="What?",
        reference="A",
        labels=("A", "B"),
        output="A" if after else "B",
        label_logprobs=right if after else wrong,
        base_label_logprobs=right if before else wrong,
        kl=0.5,
        tokens=5,
        **values,  # type: ignore[arg-type]
    )


SIDES = [(True, True)] * 10 + [(True, False)] * 7 + [(False, True)] * 1 + [(False, False)] * 2
ANSWERS = [question(number, *sides) for number, sides in enumerate(SIDES)]


def test_lost_and_gained_questions_are_named_and_tested_exactly() -> None:
    found = changed_choices([from_json(to_json(each)) for each in ANSWERS])
    assert found
    assert (found.before, found.after) == (17 / 20, 11 / 20)
    assert [each.id for each in found.lost] == [f"q{number}" for number in range(10, 17)]
    assert [each.id for each in found.gained] == ["q17"]
    assert found.difference.p == pytest.approx(binomtest(7, 8).pvalue)
    assert found.difference.value == pytest.approx(-0.3)
    assert changed_choices([]) is None


def test_a_guard_is_red_where_more_was_lost_than_it_allows() -> None:
    found = changed_choices(ANSWERS)
    entries = losses(None, found, {"general_choices": 0.3, "general_text": 0.1})
    assert entries["guard"] == {"general_choices": {"limit": 0.3, "value": pytest.approx(0.3), "passed": True}}
    entries = losses(None, found, {"general_choices": 0.29})
    assert entries["guard"]["general_choices"]["passed"] is False
    assert entries["general_choices"]["lost"][0] == {
        "id": "q10",
        "place": "q.jsonl:10",
        "prompt": "What?",
        "reference": "A",
        "before": "A",
        "after": "B",
    }


def test_general_questions_have_scores_of_their_own() -> None:
    (scores,) = domain_scores(ANSWERS)
    values = {each.metric: each.value for each in scores.scores}
    assert values == pytest.approx({"accuracy": 0.55, "base_accuracy": 0.85, "kl": 0.1})


def curve(*scores: float) -> list[Point]:
    steps = len(scores) - 1
    return [Point(number / steps, score, (number / steps) ** 2) for number, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("points", "scale", "why"),
    [
        (curve(0.2, 0.3, 0.53, 0.6, 0.6), 0.5, "instead of +1.000"),
        (curve(0.2, 0.3, 0.4, 0.5, 0.6), 1.0, "it forgets +1.000"),
        (curve(0.2, 0.3, 0.47, 0.6, 0.5), 0.5, "(90%)"),  # of what the whole gains, not of what is best
        (curve(0.2, 0.3, 0.5, 0.4, 0.2), 0.5, "100%"),  # the whole is no better than the base
        (curve(0.2, 0.6, 0.6, 0.6, 0.6), 0.25, "100%"),
        (curve(0.6, 0.5, 0.4, 0.3, 0.2), 1.0, "no gain to keep"),
        ([Point(1.0, 0.6, 0.004)], 1.0, "forgets next to nothing"),
    ],
)
def test_the_smallest_scale_that_keeps_the_gain_is_recommended(points: list[Point], scale: float, why: str) -> None:
    found, said = recommend(points)
    assert found == scale
    assert why in said
