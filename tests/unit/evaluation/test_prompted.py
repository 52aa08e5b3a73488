"""What a chat model is asked of a closed set, and which reply its text is."""

from __future__ import annotations

from typing import Any

import pytest

from metier.data.items import Item, Message
from metier.evaluation.metrics import domain_scores
from metier.evaluation.prompted import answered, messages, parse
from metier.inference.journal import Reply

_MOODS = ("negative", "neutral", "positive")


def item(text: str = "How is this? Shares rise.", **changes: Any) -> Item:
    values: dict[str, Any] = {
        "id": "1",
        "domain": "mood",
        "group": "1",
        "place": "x.csv:2",
        "row": 0,
        "messages": (Message("system", "Be brief."), Message("user", text)),
        "replies": _MOODS,
        "answer": 2,
        "kind": "label",
    }
    return Item(**values | changes)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("positive", "positive"),
        ("  Positive.\n", "positive"),
        ("**POSITIVE**", "positive"),
        ('"positive"!', "positive"),
        ("The sentiment of this news is positive, I think.", "positive"),
        ("Positive. It is positive because shares rise.", "positive"),
        ("<think>negative? neutral?</think> positive", "positive"),
        ("positive or neutral", None),
        ("nonpositive", None),
        ("<think>positive, I guess", None),
        ("It depends.", None),
        ("", None),
    ],
)
def test_a_text_says_a_label_or_none(text: str, found: str | None) -> None:
    assert parse(text, _MOODS) == found


@pytest.mark.parametrize(
    ("text", "names", "found"),
    [
        ("this is not spam", ("spam", "not spam"), "not spam"),
        ("spam, clearly", ("spam", "not spam"), "spam"),
        ("A good choice is B", ("A", "B"), None),  # A is how the sentence begins
        ("I think that a good choice is B.", ("A", "B"), "B"),
        ("(b)", ("A", "B"), "B"),
        ("-", ("+", "-"), "-"),
        ("card_arrival", ("card arrival", "card lost"), "card arrival"),
        ("Été", ("été", "hiver"), "été"),
        ("1", ("1", "10"), "1"),
        ("10", ("1", "10"), "10"),
        ("C++", ("C", "C++"), "C++"),
        ("c", ("C", "c"), None),  # who tells them apart by case is not guessed
    ],
)
def test_names_within_names_letters_and_signs(text: str, names: tuple[str, ...], found: str | None) -> None:
    assert parse(text, names) == found


def test_labels_are_named_where_the_prompt_does_not() -> None:
    asked = messages(item())
    assert [each["role"] for each in asked] == ["system", "user"]
    assert asked[1]["content"].startswith("How is this? Shares rise.\n\n")
    assert all(f"- {name}" in asked[1]["content"] for name in _MOODS)
    named = "Negative, neutral or positive? Shares rise."
    assert messages(item(named))[1]["content"] == named
    assert messages(item("Hello", kind="open", replies=("Hi",), answer=0))[1]["content"] == "Hello"


def test_examples_and_passages_are_messages() -> None:
    shots = ((Message("user", "Shares fall."), Message("assistant", "negative")),)
    asked = messages(item(shots=shots, question="A passage.\n\nShares rise."))
    assert [each["content"] for each in asked[:3]] == ["Be brief.", "Shares fall.", "negative"]
    assert asked[3]["content"].startswith("A passage.\n\nShares rise.")


def test_of_a_pair_a_letter_is_asked() -> None:
    pair = item("Which plan?", kind="preference", replies=("Take this.", "Take that."), answer=1)
    asked = messages(pair)[-1]["content"]
    assert "A: Take this." in asked
    assert "B: Take that." in asked
    given = answered(pair, Reply(200, "B", "stop"))
    assert (given.output, given.label_logprobs) == ("Take that.", ())
    (scores,) = domain_scores([given])
    assert [score.metric for score in scores.scores] == ["accuracy"]  # there is no margin without log-probabilities
    assert scores.scores[0].value == 1


def test_what_is_no_label_is_counted_apart() -> None:
    texts = ["positive", "It depends.", "", "neutral"]
    given = [answered(item(id=str(index)), Reply(200, text, "stop")) for index, text in enumerate(texts)]
    given.append(answered(item(id="4"), Reply(500, failed="500: broken")))
    (scores,) = domain_scores(given)
    assert (scores.n, scores.unparsed, scores.failed) == (5, 2, 1)
    assert scores.confusion is not None
    assert sum(map(sum, scores.confusion.matrix)) == 2
    assert [answer.output for answer in given] == [*texts, None]


def test_of_an_open_answer_tokens_and_end_are_kept() -> None:
    asked = item(kind="open", replies=("Hi there.",), answer=0)
    given = answered(asked, Reply(200, " Hi. ", "length", tokens_in=9, tokens_out=3))
    assert (given.output, given.new_tokens, given.stopped) == ("Hi.", 3, False)
    assert answered(asked, Reply(200, "Hi.")).stopped is None
