"""Pairs, ratings and choices are told by most rows; what differs in a row is that row's fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metier.data.guessing import complete
from metier.data.items import Item, make_items
from metier.data.sources import Row
from metier.domain import Domain
from metier.errors import DataError, Fault
from tests.unit.data.foreign import CHOICES, COUNT, PAIRS, RATINGS, SHAPES, asked, assistant, rows, said, user, worse


def table(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(f"x:{number}", number, each) for number, each in enumerate(values)]


def understood(values: list[dict[str, Any]], notes: list[Fault] | None = None) -> tuple[Domain, list[Item]]:
    domain = complete(Domain(name="d", data="x.jsonl"), table(values))
    return domain, make_items(domain, table(values), (notes if notes is not None else []).append)


def refused(values: list[dict[str, Any]]) -> list[str]:
    with pytest.raises(DataError) as raised:
        understood(values)
    return [str(fault) for fault in raised.value.faults]


@pytest.mark.parametrize("name", RATINGS)
@pytest.mark.parametrize("odd", [None, "", "perhaps"])
def test_a_row_without_its_thumb_is_that_rows_fault(name: str, odd: Any) -> None:
    values = rows(RATINGS[name])
    column = list(values[0])[-1]
    values[3][column] = odd
    (fault,) = refused(values)
    assert fault.startswith(f"x:3: {column}: ")
    assert fault.endswith("write true or false")


@pytest.mark.parametrize(("liked", "told"), [(True, "people liked every answer"), (False, "people disliked every")])
def test_thumbs_that_are_all_alike_are_refused_and_never_learned(liked: bool, told: str) -> None:
    values = [{"prompt": asked(n), "completion": worse(n), "label": liked} for n in range(20)]
    (fault,) = refused(values)
    assert told in fault
    assert 'rating = "label"' in fault


@pytest.mark.parametrize("name", CHOICES)
def test_a_faulty_row_leaves_multiple_choice_what_it_is(name: str) -> None:
    good, _ = understood(rows(CHOICES[name]))
    values = rows(CHOICES[name])
    answer = str(good.answer)[1:-1]
    values[0][answer] = "none of them"
    assert complete(Domain(name="d", data="x.jsonl"), table(values)) == good
    (fault,) = refused(values)
    assert fault.startswith(f"x:0: {answer}: 'none of them' is")


@pytest.mark.parametrize("value", [None, [], ["alone"], "some text"])
def test_a_row_without_choices_is_that_rows_fault(value: Any) -> None:
    values = rows(CHOICES["choice_list"])
    values[0]["choices"] = value
    assert refused(values)[0].startswith("x:0: choices: holds ")


def test_choices_that_nothing_uses_are_asked_about() -> None:
    values = [
        {"question": asked(n), "choices": [f"red {n}", f"green {n}"], "solution": f"It is green: {said(n)}"}
        for n in range(20)
    ]
    (fault,) = refused(values)
    assert "choices would not be used" in fault
    assert 'prompt = "{question}" and answer = "{solution}"' in fault


def test_a_pair_whose_first_row_is_odd_stays_a_pair_of_messages() -> None:
    good, _ = understood(rows(PAIRS["chat_preference"]))
    values = rows(PAIRS["chat_preference"])
    values[0]["chosen"] = "a text"
    assert complete(Domain(name="d", data="x.jsonl"), table(values)) == good


def compared(number: int, winner: Any, names: tuple[str, str] = ("response_a", "response_b")) -> dict[str, Any]:
    return {"prompt": asked(number), **dict(zip(names, (said(number), worse(number)), strict=True)), "winner": winner}


@pytest.mark.parametrize(
    ("names", "winners"),
    [
        (("response_a", "response_b"), ("a", "b")),
        (("response_a", "response_b"), ("A", "response_b")),
        (("response_a", "response_b"), ("model_a", "model_b")),
        (("answer_1", "answer_2"), (1, "2")),
        (("response_0", "response_1"), ("0", 1)),
    ],
)
def test_two_answers_and_the_better_one_are_a_pair(names: tuple[str, str], winners: tuple[Any, Any]) -> None:
    domain, found = understood(translated([compared(n, winners[n % 2], names) for n in range(20)]))
    assert domain.rejected == "rejected"
    assert [item.reference for item in found[:2]] == [said(0), worse(1)]
    assert [item.other for item in found[:2]] == [worse(0), said(1)]


def translated(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from metier.data.dialects import translate

    return translate(values)


def test_conversations_are_compared_too() -> None:
    values = [
        {
            "conversation_a": [user(asked(n)), assistant(said(n))],
            "conversation_b": [user(asked(n)), assistant(worse(n))],
            "winner": f"model_{'ab'[n % 2]}",
        }
        for n in range(20)
    ]
    _, found = understood(translated(values))
    assert [(item.reference, item.other) for item in found[:2]] == [(said(0), worse(0)), (worse(1), said(1))]


def test_ties_are_left_out_with_a_note_and_a_winner_that_is_none_is_a_fault() -> None:
    values = [compared(n, ("a", "b", "tie", "both")[n % 4]) for n in range(20)]
    notes: list[Fault] = []
    _, found = understood(translated(values), notes)
    assert len(found) == 10
    assert [str(note) for note in notes] == ["domain d: 10 rows call both answers alike; they are left out"]
    values[0]["winner"] = "c"
    assert all(fault.startswith("x:0: ") for fault in refused(translated(values)))


def test_one_of_two_answers_is_not_taken_where_nothing_tells_the_better() -> None:
    values = [{"prompt": asked(n), "response_a": said(n), "response_b": worse(n), "note": "x"} for n in range(20)]
    (fault,) = refused(translated(values))
    assert "response_b would not be used" in fault


NUMBERS = {"integer": lambda n: str(n * 7 % 97), "decimal": lambda n: f"{n}.5", "equation": lambda n: f"x={n}"}
NUMBERS |= {"year": lambda n: str(1900 + n), "date": lambda n: f"2020-01-{n + 1:02}", "sum": lambda n: str(n % 9)}


_UNNAMED = {"camel_ai", "metharme", "summarizetldr"}  # no standard name says that theirs are answers


def shortened(value: Any, short: Any) -> Any:
    """The same row with short answers."""
    if isinstance(value, dict):
        return {key: shortened(each, short) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each, short) for each in value]
    for number in range(COUNT):
        value = value.replace(said(number), short(number)) if isinstance(value, str) else value
    return value


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("name", [name for name in SHAPES if said(1) in json.dumps(SHAPES[name](1))])
def test_a_short_answer_is_the_answer_or_is_asked_about(name: str, kind: str) -> None:
    good = [item for item in understood(translated(rows(SHAPES[name])))[1] if not item.place.endswith(":0")]
    short = [shortened(row, NUMBERS[kind]) for row in rows(SHAPES[name])]
    if name in _UNNAMED:
        assert "do not tell which is prompt and which answer" in refused(translated(short))[0]
        return
    _, found = understood(translated(short))
    found = [item for item in found if not item.place.endswith(":0")]
    for item, other in zip(good, found, strict=True):
        assert other.reference == shortened(item.reference, NUMBERS[kind])
        assert [each.content for each in other.messages] == [
            shortened(each.content, NUMBERS[kind]) for each in item.messages
        ]


@pytest.mark.parametrize("name", ["completion", "alpaca", "gpteacher", "oasst", "load_qa", "dolly", "open_orca"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_a_standard_name_needs_no_readable_answer(name: str, kind: str) -> None:
    domain, found = understood([shortened(row, NUMBERS[kind]) for row in rows(SHAPES[name])])
    assert (found[1].kind, found[1].reference) == ("open", NUMBERS[kind](1))
    assert found[1].messages[-1].content == asked(1)
    assert domain.labels is None
