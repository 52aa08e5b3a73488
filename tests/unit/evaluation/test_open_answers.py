"""What open answers are measured by, task by task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

from metier.data.items import make_items
from metier.data.sources import Row
from metier.domain import Domain
from metier.errors import RecipeError
from metier.evaluation.answering import blank
from metier.evaluation.answers import Answer, from_json, to_json
from metier.evaluation.measures import OPEN, bleu_counts, repetition, rouge_l, rouge_n
from metier.evaluation.metrics import align, compare, domain_scores, out_of_one, primary_values
from metier.figures import HABITS
from metier.recipe import Recipe
from metier.scores import bleu

_WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "dogs", "run", "over", "grass"]


def texts(seed: int, count: int, longest: int = 12) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(_WORDS, random.integers(0, longest))) for _ in range(count)]


def answer(number: int, output: str | None, **values: Any) -> Answer:
    base = {"domain": "d", "group": f"g{number}", "kind": "open", "reference": "the cat sat on the mat"}
    return Answer(id=str(number), place=f"d:{number}", prompt="?", output=output, **{**base, **values})


# Measures


def test_rouge_on_cases_done_by_hand() -> None:
    ours, theirs = "the cat the cat", "the cat is on the mat"
    assert rouge_n(ours, theirs, 1) == pytest.approx(100 * 2 * 3 / (4 + 6))  # the: 2, cat: 1
    assert rouge_n(ours, theirs, 2) == pytest.approx(100 * 2 * 1 / (3 + 5))  # "the cat" once
    assert (rouge_n("", "text", 1), rouge_n("one", "one", 2), rouge_n("One, two!", "one two", 2)) == (0, 0, 100)


def test_rouge_is_that_of_the_rouge_score_package() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for ours, theirs in zip(texts(1, 60), texts(2, 60), strict=True):
        wanted = scorer.score(theirs, ours)
        found = {
            "rouge1": rouge_n(ours, theirs, 1),
            "rouge2": rouge_n(ours, theirs, 2),
            "rougeL": rouge_l(ours, theirs),
        }
        assert found == pytest.approx({name: 100 * each.fmeasure for name, each in wanted.items()})


def test_repetition_counts_runs_of_four_words_said_before() -> None:
    assert repetition("call us now please, call us now please!") == pytest.approx(1 / 5)
    assert repetition("no " * 10) == pytest.approx(6 / 7)
    assert (repetition("a b c d e"), repetition("no no no"), repetition("")) == (0, 0, 0)


@pytest.mark.parametrize("longest", [3, 6, 14])
def test_bleu_of_any_drawn_corpus_is_sacrebleu_s(longest: int) -> None:
    ours, theirs = texts(longest, 30, longest), texts(longest + 1, 30, longest)
    statistic = bleu(*zip(*map(bleu_counts, ours, theirs), strict=True))
    drawn_BN = np.random.default_rng(0).integers(0, 3, size=(20, 30))
    drawn_BN[0] = 1
    for weights, found in zip(drawn_BN, statistic(drawn_BN.astype(float)), strict=True):
        again = [index for index, times in enumerate(weights) for _ in range(times)]
        wanted = corpus_bleu([ours[index] for index in again], [[theirs[index] for index in again]])
        assert found == pytest.approx(wanted.score, abs=1e-9)


def test_bleu_of_nothing_is_zero_and_of_the_same_is_100() -> None:
    ones = np.ones((1, 1))
    for output, wanted in (("", 0), ("xyz", 0), ("a cat sat down here", 100)):
        assert bleu(*((each,) for each in bleu_counts(output, "a cat sat down here")))(ones)[0] == pytest.approx(wanted)


# By task


def test_each_task_has_its_metrics_the_primary_one_first() -> None:
    primary = {"support": "chrf", "summary": "rouge_l", "translation": "chrf", "code": "pass_rate"}
    assert {task: metrics[0].name for task, metrics in OPEN.items()} == primary
    assert {metric.name for metrics in OPEN.values() for metric in metrics} <= {*HABITS}
    for task, first in primary.items():
        ours = [answer(number, "the cat sat", task=task, passed=number < 3, tests="x") for number in range(4)]
        (scores,) = domain_scores(ours)
        (metric,) = (name for _, name in primary_values(ours))
        (aligned,) = align({"a": ours, "b": ours})
        assert scores.scores[0].metric == metric == aligned.metric == first
        assert out_of_one(first, 75.0 if HABITS[first].unit == "of 100" else 0.75) == 0.75
    assert {score.metric for score in scores.scores} == {"pass_rate", "chrf", "timeout_rate", "repetition", "length"}


def test_code_that_nobody_ran_is_measured_by_its_text() -> None:
    ours, theirs = ([answer(n, text, task="code", tests="x") for n in range(8)] for text in ("the cat sat", "dog"))
    assert [score.metric for score in domain_scores(ours)[0].scores] == ["chrf", "repetition", "length"]
    assert [metric for _, metric in primary_values(ours)] == ["chrf"]
    assert align({"a": ours, "b": theirs})[0].metric == "chrf"


def test_failing_and_late_code_counts() -> None:
    ours = [answer(n, "x", task="code", passed=n == 0, error="timed out" if n == 1 else "") for n in range(4)]
    found = {score.metric: score.value for score in domain_scores(ours)[0].scores}
    assert (found["pass_rate"], found["timeout_rate"]) == (0.25, 0.25)
    theirs = [answer(n, "x", task="code", passed=False) for n in range(4)]
    (first, *_) = compare(ours, theirs)[0].differences
    assert (first.metric, first.value, first.test) == ("pass_rate", 0.25, "exact McNemar")


def test_the_task_travels_with_the_answer_and_old_answers_are_support() -> None:
    domain = Domain(name="d", data="x.csv", prompt="{q}", answer="{a}", task="code", tests="t")
    (item,) = make_items(domain, [Row("x.csv:2", 0, {"q": "add", "a": "def add(): ...", "t": "assert add"})])
    made = from_json(to_json(blank(item)))
    assert (made.task, made.tests) == ("code", "assert add")
    old = '{"id": "1", "domain": "d", "group": "g", "kind": "open", "place": "d:1", "prompt": "?", "reference": "r"}'
    assert from_json(old).task == "support"


def test_answers_for_two_tasks_are_not_one_domain() -> None:
    with pytest.raises(ValueError, match="another task"):
        domain_scores([answer(0, "x"), answer(1, "x", task="summary")])
    with pytest.raises(ValueError, match="task or tests"):
        compare([answer(0, "x")], [answer(0, "x", task="summary")])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"task": "code"}, "there are none"),
        ({"tests": "t"}, "of code alone"),
        ({"task": "summary", "labels": ["a", "b"]}, "open answers"),
        ({"task": "poem"}, "it should be 'support', 'summary', 'translation' or 'code'"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(keys: dict[str, Any], said: str, tmp_path: Any) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.of({"model": "nano", "domain": [{"name": "d", "data": "x.csv", **keys}]}, tmp_path / "r.toml")


def test_bleu_has_an_interval() -> None:
    ours = [
        answer(n, text, reference=other, task="translation")
        for n, (text, other) in enumerate(zip(texts(5, 40), texts(6, 40), strict=True))
    ]
    score = next(each for each in domain_scores(ours)[0].scores if each.metric == "bleu")
    wanted = corpus_bleu([each.output or "" for each in ours], [[each.reference for each in ours]]).score
    assert score.value == pytest.approx(wanted)
    assert 0 <= score.low < score.value < score.high
