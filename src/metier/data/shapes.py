"""Rows that hold more than a prompt and its answer: pairs, ratings, choices; found by the names of their columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from metier.data.columns import survey
from metier.data.majority import most
from metier.data.messages import message_list, speaker
from metier.data.replies import Choice, Unreadable, choice_list, rating_of, read_choices, read_replies
from metier.data.sources import Row, columns_of, text_of
from metier.domain import Domain
from metier.errors import DataError, Fault

_PAIRS = [("chosen", "rejected"), ("preferred_output", "non_preferred_output"), ("preferred", "dispreferred")]
_PAIRS += [("preferred_completion", "non_preferred_completion"), ("chosen_response", "rejected_response")]
_PAIRS += [("winner", "loser"), ("accepted", "rejected"), ("better", "worse"), ("good", "bad")]
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
_QUESTIONS = ("question", "query", "prompt", "stem", "sentence")
_RIGHT = "answer_key answerkey answer_idx answer_index correct_index correct_answer correct gold cop label target "
_RIGHT += "solution answer"
_SERIES = re.compile(r"(?P<stem>choice|option|opt?|ending|sol|answer)?[_ ]?(?P<letter>[a-h]|\d)", re.IGNORECASE)


_SIBLING = re.compile(r"(?P<stem>response|answer|completion|output|reply)[_ ]?(?:[a-h]|\d)", re.IGNORECASE)


def recognise(domain: Domain, rows: Sequence[Row]) -> dict[str, Any]:
    """The keys that such rows ask for; prompt and answer are left out where their names tell them anyway."""
    told = domain.rejected or domain.rating or domain.choices
    return _pair(rows) or ({} if told else _rating(rows)) or _choices(domain, rows)


def _pair(rows: Sequence[Row]) -> dict[str, Any]:
    columns = columns_of(rows)
    found = next((pair for pair in _PAIRS if set(pair) <= set(columns)), None)
    if not found:
        return {}
    chosen, rejected = found
    lists = [message_list(row.values.get(chosen)) for row in rows]
    if not most(map(bool, lists)):
        return {"answer": f"{{{chosen}}}", "rejected": rejected}
    whole = most(any(speaker(message) in ("user", "human") for message in each) for each in lists if each)
    before = [name for name in _HISTORIES if most(bool(message_list(row.values.get(name))) for row in rows)]
    return {"messages": (chosen,) if whole else (*before[:1], chosen), "rejected": rejected}


def _rating(rows: Sequence[Row]) -> dict[str, Any]:
    """A column of thumbs beside an answer: true and false, up and down, yes and no, 1 and 0.

    Raises `DataError` where all are alike: so nobody would learn what people disliked as if it were right.
    """
    columns = columns_of(rows)
    if not any(_ANSWERS & set(re.split(r"[\W_]+", name.lower())) for name in columns):
        return {}
    for name in columns:
        if name.lower() in _RATINGS:
            filled = [row.values[name] for row in rows if text_of(row.values.get(name)).strip()]
            values = [rating_of(value) for value in filled]
            if most(value is not None for value in values):
                if {True, False} <= {*values}:
                    return {"rating": name}
                raise _alike(rows, name, True in values)
    return {}


def _alike(rows: Sequence[Row], name: str, liked: bool) -> DataError:
    place = rows[0].place.rpartition(":")[0]
    problem = f"says that people {'liked' if liked else 'disliked'} every answer, which tells none from another"
    fix = f'to learn them as they are, remove the column, or write prompt and answer; to rate them, rating = "{name}"'
    return DataError(place, [Fault(f"{place}: {name}", problem, fix)])


def _choices(domain: Domain, rows: Sequence[Row]) -> dict[str, Any]:
    """The choices' columns, the prompt that letters them, and which of them is right."""
    columns = columns_of(rows)
    choices: str | tuple[str, ...] = next(_holding(rows), "") or _series(columns)
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
        free = [column for column in survey(rows) if column.name not in {*taken, right}]
        asking = [column for column in free if column.name.lower() in _QUESTIONS and column.is_filled]
        texts = [*asking, *(column for column in free if column.is_text)]
        if not texts:
            return {}
        question = f"{{{texts[0].name}}}"
        offered = ([each.text for each in found] for found in _readable(domain.model_copy(update=update), rows))
        lettered = most(texts == list(ascii_uppercase[: len(texts)]) for texts in offered)  # by the question itself
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
    values = [text_of(row.values.get(right)).strip() for row in rows]
    return most(map(str.isdecimal, values)) or most(
        _tells(domain, row, value) for row, value in zip(rows, values, strict=True)
    )


def _tells(domain: Domain, row: Row, answer: str) -> bool:
    with suppress(Unreadable):
        read_replies(domain, row, answer)
        return True
    return False


def _holding(rows: Sequence[Row]) -> Iterator[str]:
    """The columns that list choices."""
    for name in _CHOICES:
        if most(len(list(choice_list(row.values.get(name)))) > 1 for row in rows):
            yield name


def overlooked(rows: Sequence[Row], used: Collection[str]) -> list[str]:
    """Columns that a mapping without them would misread: choices to choose among, and another answer's like."""
    choices = [name for name in _holding(rows) if name != "answers"]  # several may be right
    columns = columns_of(rows)
    series = {name: match["stem"].lower() for name in columns if (match := _SIBLING.fullmatch(name))}
    alike = [name for name in series if name not in used and series[name] in {series.get(each) for each in used}]
    return [name for name in [*choices, *alike] if name not in used]


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
    values = [text_of(row.values.get(right)).strip() for row in rows]
    if not most(map(str.isdecimal, values)):
        return {}
    count = max(map(len, _readable(domain, rows)), default=0)
    numbers = {int(value) for value in values if value.isdecimal()}
    first = 0 if 0 in numbers else 1
    if max(numbers) >= count + first or (first and count not in numbers):  # 1 to 3 of four: counted from 0 or from 1?
        return {}
    return {str(index + first): letter for index, letter in enumerate(ascii_uppercase[:count])}


def _readable(domain: Domain, rows: Sequence[Row]) -> Iterator[list[Choice]]:
    """The choices of every row that has them; the others are told row by row later."""
    for row in rows:
        with suppress(Unreadable):
            yield read_choices(domain, row)
