"""Rows that hold more than a prompt and its answer: pairs, ratings, choices; found by the names of their columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from metier.data.columns import survey
from metier.data.messages import message_list
from metier.data.replies import Choice, Unreadable, choice_list, rating_of, read_choices, read_replies
from metier.data.sources import Row, columns_of, text_of
from metier.domain import Domain

_PAIRS = [("chosen", "rejected"), ("preferred_output", "non_preferred_output"), ("preferred", "dispreferred")]
_PAIRS += [("preferred_completion", "non_preferred_completion"), ("chosen_response", "rejected_response")]
_PAIRS += [("winner", "loser"), ("accepted", "rejected")]
_RATINGS: tuple[str, ...] = (
    "kto_tag",
    "thumbs",
    "thumb",
    "rating",
    "feedback",
    "liked",
    "like",
    "helpful",
    "useful",
    "desirable",
)
_RATINGS += ("is_desirable", "upvote", "vote", "label")
_ANSWERS = {"completion", "response", "output", "answer", "reply", "messages", "conversations"}
_HISTORIES = ["prompt", "messages", "conversations", "input"]
_CHOICES = ["choices", "options", "endings", "candidates", "answers"]
_RIGHT = "answer_key answerkey answer_idx answer_index correct_index correct_answer correct gold cop label target "
_RIGHT += "solution answer"
_SERIES = re.compile(r"(?P<stem>choice|option|opt?|ending|sol|answer)?[_ ]?(?P<letter>[a-h]|\d)", re.IGNORECASE)


def recognise(domain: Domain, rows: Sequence[Row]) -> dict[str, Any]:
    """The keys that such rows ask for; prompt and answer are left out where their names tell them anyway."""
    return _pair(rows) or _rating(rows) or _choices(domain, rows)


def _pair(rows: Sequence[Row]) -> dict[str, Any]:
    columns = columns_of(rows)
    found = next((pair for pair in _PAIRS if set(pair) <= set(columns)), None)
    if not found:
        return {}
    chosen, rejected = found
    first = message_list(rows[0].values.get(chosen))
    if not first:
        return {"answer": f"{{{chosen}}}", "rejected": rejected}
    whole = any(message.get("role", message.get("from")) in ("user", "human") for message in first)
    before = [name for name in _HISTORIES if name in columns and message_list(rows[0].values.get(name))]
    return {"messages": (chosen,) if whole else (*before[:1], chosen), "rejected": rejected}


def _rating(rows: Sequence[Row]) -> dict[str, Any]:
    """A column of thumbs beside an answer: true and false, up and down, yes and no, 1 and 0."""
    columns = columns_of(rows)
    if not any(_ANSWERS & set(re.split(r"[\W_]+", name.lower())) for name in columns):
        return {}
    for name in columns:
        if name.lower() in _RATINGS:
            values = [rating_of(row.values.get(name)) for row in rows]
            if {*values} == {True, False}:
                return {"rating": name}
    return {}


def _choices(domain: Domain, rows: Sequence[Row]) -> dict[str, Any]:
    """The choices' columns, the prompt that letters them, and which of them is right."""
    columns = columns_of(rows)
    listed = (name for name in _CHOICES if name in columns)
    holding = next((name for name in listed if all(len(list(choice_list(r.values.get(name)))) > 1 for r in rows)), None)
    choices: str | tuple[str, ...] = holding or _series(columns)
    if not choices:
        return {}
    taken = {choices} if isinstance(choices, str) else set(choices)
    right = next(
        (name for each in _RIGHT.split() for name in columns if name.lower() == each and name not in taken), None
    )
    if right is None and domain.answer is None:
        return {}
    update: dict[str, Any] = {"choices": choices}
    if domain.answer is None:
        update["answer"] = f"{{{right}}}"
    if domain.prompt is None:
        texts = [column for column in survey(rows) if column.is_text and column.name not in {*taken, right}]
        named = [
            column for column in texts if column.name.lower() in ("question", "query", "prompt", "stem", "sentence")
        ]
        if not texts:
            return {}
        question = f"{{{(named or texts)[0].name}}}"
        first = [each.text for each in next(_readable(domain.model_copy(update=update), rows), [])]
        lettered = first == list(ascii_uppercase[: len(first)])  # by the question itself
        update["prompt"] = question if lettered else f"{question}\n{{choices}}\nAnswer:"
    if not any(_readable(domain.model_copy(update=update), rows)):
        return {}
    if domain.label_map is None and right and (mapped := _numbered(domain.model_copy(update=update), rows, right)):
        update["label_map"] = mapped
    return update if right is None or _answered(domain.model_copy(update=update), rows, right) else {}


def _answered(domain: Domain, rows: Sequence[Row], right: str) -> bool:
    """Whether the column does tell the right choice, in most rows: it may hold an explanation instead.

    Numbers do, even where it is unclear from what they count: then people are asked.
    """
    if all(text_of(row.values.get(right)).strip().isdecimal() for row in rows):
        return True
    found = 0
    for row in rows:
        with suppress(Unreadable):
            read_replies(domain, row, text_of(row.values.get(right)))
            found += 1
    return 2 * found > len(rows)


def _series(columns: Sequence[str]) -> tuple[str, ...]:
    """choice0 … choice3, opa … opd, A … D: columns that count from their first on."""
    by_stem: dict[str, list[tuple[str, str]]] = {}
    for name in columns:
        if match := _SERIES.fullmatch(name):
            by_stem.setdefault((match["stem"] or "").lower(), []).append((match["letter"].lower(), name))
    for found in by_stem.values():
        marks = sorted(found)
        wanted = (chr(ord(marks[0][0]) + index) for index in range(len(marks)))
        run = list(takewhile(lambda pair: pair[0] == pair[1][0], zip(wanted, marks, strict=True)))
        if len(run) > 1 and marks[0][0] in ("a", "0", "1"):
            return tuple(name for _, (_, name) in run)
    return ()


def _numbered(domain: Domain, rows: Sequence[Row], right: str) -> dict[str, str]:
    """What the numbers of right choices mean, counted from 0 or from 1; none where they are no such numbers."""
    values = {text_of(row.values.get(right)).strip() for row in rows}
    if not all(value.isdecimal() for value in values):
        return {}
    most = max(map(len, _readable(domain, rows)), default=0)
    numbers = {int(value) for value in values}
    first = 0 if 0 in numbers else 1
    if max(numbers) >= most + first or (first and most not in numbers):  # 1 to 3 of four: counted from 0 or from 1?
        return {}
    return {str(index + first): letter for index, letter in enumerate(ascii_uppercase[:most])}


def _readable(domain: Domain, rows: Sequence[Row]) -> Iterator[list[Choice]]:
    """The choices of every row that has them; the others are told row by row later."""
    for row in rows:
        with suppress(Unreadable):
            yield read_choices(domain, row)
