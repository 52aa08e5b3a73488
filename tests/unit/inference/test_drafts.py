from __future__ import annotations

import pytest

from metier.inference import drafts
from metier.inference.drafts import Draft, Phrases

KEY, OTHER = ("mine", "bank"), ("theirs", "bank")
PROMPT = (1, 2, 3, 4)
ANSWER = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def draft(phrases: Phrases, key: tuple[str, str] = KEY, prompt: tuple[int, ...] = PROMPT) -> Draft:
    return Draft(key, prompt, phrases)


def said(made: Draft, tokens: list[int]) -> Draft:
    for token in tokens:
        made.said(token)
    return made


def test_a_former_answer_of_the_same_key_is_guessed_from_its_first_token_on() -> None:
    phrases = Phrases()
    assert draft(phrases).guess(9) == ()
    said(draft(phrases), ANSWER).learn()
    assert draft(phrases).guess(9) == (10,)
    assert draft(phrases, OTHER).guess(9) == ()
    assert draft(phrases, prompt=(9, 8, 2, 3, 4)).guess(9) == (10,)  # as a template ends
    assert said(draft(phrases), [7, 8, 12, 13]).guess(9) == ()
    assert said(draft(phrases), [7, 12, 13, 14]).guess(9) == (15,)


def test_the_better_it_guessed_the_further_it_guesses() -> None:
    phrases = Phrases()
    said(draft(phrases), ANSWER).learn()
    made = draft(phrases)
    lengths = list[int]()
    for right in (1, 3, 7, 2, 0):
        made.judge(right)
        lengths.append(len(made.guess(100)))
    assert lengths == [3, 7, 8, 5, 1]
    made.judge(3)
    assert [len(made.guess(most)) for most in (2, 0, -3)] == [2, 0, 0]


def test_what_stands_in_its_own_talk_is_guessed_first() -> None:
    phrases = Phrases()
    said(draft(phrases), [2, 3, 4, 99]).learn()
    made = said(draft(phrases, prompt=(2, 3, 4, 5, 6, 7)), [2, 3, 4])
    made.judge(1)
    assert made.guess(9) == (5, 6, 7)
    assert said(made, [5, 8, 3, 4, 5]).guess(1) == (8,)  # the latest
    made = said(draft(phrases, prompt=(2, 3, 4, 5)), [9, 2, 3, 4])
    made.judge(3)
    assert made.guess(4) == (5, 9, 2, 3)


def test_who_goes_round_in_circles_is_guessed_to_go_on() -> None:
    made = said(draft(Phrases()), [7, 8, 9, 7, 8, 9])
    made.judge(3)
    assert made.guess(5) == (7, 8, 9, 7, 8)


def test_short_prompts_and_answers_are_no_fault() -> None:
    phrases = Phrases()
    made = draft(phrases, prompt=())
    assert made.guess(3) == ()
    said(made, [5, 6]).learn()
    assert said(draft(phrases, prompt=()), [5, 6, 7]).guess(3) == ()


def test_of_a_long_answer_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that differs in a number from a thousand others is not held whole for that number's sake."""
    monkeypatch.setattr(drafts, "_LEARNED", 100)
    phrases = Phrases()
    said(draft(phrases), [*range(10, 510)]).learn()
    assert len(phrases._behind) == 100
    assert max(map(len, phrases._behind.values())) == 8
    assert said(draft(phrases), [507, 508, 509]).guess(1) == ()
    assert said(draft(phrases), [505, 506, 507]).guess(1) == (508,)


def test_of_an_adapter_that_goes_nothing_stays_and_of_others_all() -> None:
    phrases = Phrases()
    for key in (KEY, ("mine", "clinic")):
        said(draft(phrases, key), ANSWER).learn()
    phrases.forget("bank")
    assert draft(phrases).guess(1) == ()
    assert draft(phrases, ("mine", "clinic")).guess(1) == (10,)


def test_what_was_said_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "_KEPT", 12)
    phrases = Phrases()
    for prompt in ((1, 2, 3), (4, 5, 6), (1, 2, 3)):
        said(draft(phrases, prompt=prompt), [10, 11, 12, 13, prompt[0], 14, 15, 16]).learn()
    assert draft(phrases, prompt=(1, 2, 3)).guess(1) == (10,)
    assert draft(phrases, prompt=(4, 5, 6)).guess(1) == ()
