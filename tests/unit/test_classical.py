from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from metier import classical
from metier.classical import LabelBaseline, Nearest, NearestAnswer, vectorizer

TEXTS = [
    "profit rose sharply",
    "sales grew and profit rose",
    "the firm lost money",
    "losses widened again",
    "it is based in Espoo",
    "the office is in Oslo",
]
LABELS = ["positive", "positive", "negative", "negative", "neutral", "neutral"]


def test_the_baseline_learns_from_words_and_from_parts_of_words() -> None:
    predicted = LabelBaseline.fit(TEXTS, LABELS).predict(["profit rose", "a loss", "an office in Espoo"])
    assert predicted == ["positive", "negative", "neutral"]  # "loss" is in no row, "losses" is


def test_the_baseline_is_deterministic() -> None:
    first, second = (LabelBaseline.fit(TEXTS, LABELS).pipeline[-1] for _ in range(2))
    assert (first.coef_ == second.coef_).all()


def test_one_label_in_training_is_always_the_answer() -> None:
    assert LabelBaseline.fit(["a text", "another"], ["same", "same"]).predict(["x", ""]) == ["same", "same"]


def test_prompts_may_be_sums() -> None:
    assert LabelBaseline.fit(["1 + 1", "2 + 1"], ["two", "three"]).predict(["2 + 1"]) == ["three"]


def test_texts_without_a_word_are_refused() -> None:
    with pytest.raises(ValueError, match="empty vocabulary"):
        LabelBaseline.fit(["", " "], ["a", "b"])


def test_both_kinds_of_feature_are_there() -> None:
    names = set(vectorizer(["Good service"]).fit(["Good service"]).get_feature_names_out())
    assert {"words__good service", "words__good", "characters__oo", "characters__servi"} <= names
    assert "characters__d s" not in names  # never across words


def test_texts_without_a_word_are_told_apart_too() -> None:
    assert LabelBaseline.fit(["😀 😀", "😡 😡"] * 4, ["up", "down"] * 4).predict(["😡"]) == ["down"]


def test_the_nearest_prompts_answer_is_given_word_for_word() -> None:
    prompts = [f"how do I reset card number {number}?" for number in range(100)]
    answers = [f" Answer\n{number} " for number in range(100)]
    nearest = NearestAnswer.fit(prompts, answers)
    assert nearest.predict(prompts) == answers  # more prompts than are compared at once
    assert nearest.predict(["How do I reset card number 42, please?"]) == [answers[42]]


def test_ties_go_to_the_first_row() -> None:
    nearest = NearestAnswer.fit(["open an account", "open an account"], ["first", "second"])
    assert nearest.predict(["open an account", "好"]) == ["first", "first"]
    assert nearest.predict([]) == []


def fully_sorted(nearest: Nearest, queries: Sequence[str]) -> list[list[int]]:
    similarities = nearest.vectors.transform(queries) @ nearest.texts.T
    found: list[list[int]] = np.argsort(-similarities.toarray(), axis=1, kind="stable").tolist()
    return found


@pytest.mark.parametrize("held", [1, 130, 1 << 22])
def test_the_first_of_a_ranking_are_those_of_the_full_sort_ties_too(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(classical, "_SIMILARITIES", held)  # one query at a time, two, all
    nearest = Nearest.fit([f"{word} number {number % 4}" for number in range(13) for word in ("card", "loan", "好")])
    queries = ["card number 2", "loan", "好", "nothing of these", "number 3 of a loan"]
    whole = fully_sorted(nearest, queries)
    for count in (1, 2, 5, 14, 38, 39, 50):
        assert list(nearest.rank(queries, [count] * 5)) == [order[:count] for order in whole]
    assert [len(order) for order in nearest.rank(queries, [1, 2, 3, 4, 5])] == [1, 2, 3, 4, 5]


def test_of_many_texts_few_similarities_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "_SIMILARITIES", 100)
    nearest, shapes = Nearest.fit([f"text {number}" for number in range(40)]), []
    kernel = classical.linear_kernel

    def watched(*given: object, **named: object) -> object:
        shapes.append(kernel(*given, **named).shape)
        return kernel(*given, **named)

    monkeypatch.setattr(classical, "linear_kernel", watched)
    list(nearest.rank([f"query {number}" for number in range(5)], [3] * 5))
    assert shapes == [(2, 40), (2, 40), (1, 40)]
