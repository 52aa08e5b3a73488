"""What a row offers as replies: labels, choices, a liked and a disliked answer, one that was rated, or the answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from metier.data.messages import message_list, said
from metier.data.sources import Row, text_of
from metier.data.templates import closed_set
from metier.domain import Domain
from metier.errors import nearest
from metier.files import digest

Kind = Literal["open", "label", "choice", "preference", "rated", "passage"]
_LISTED = 12  # labels named in a fault
_LIKED = {"true", "1", "1.0", "yes", "up", "good", "like", "liked", "+1", "👍", "positive", "chosen", "desirable"}
_DISLIKED = {"false", "0", "0.0", "no", "down", "bad", "dislike", "disliked", "-1", "👎", "negative", "rejected"}
_RATINGS = dict.fromkeys(_LIKED, True) | dict.fromkeys([*_DISLIKED, "undesirable"], False)


@dataclass(frozen=True)
class Replies:
    """The possible replies, of which `right` is the one; `options` are what lettered ones stand for."""

    kind: Kind
    texts: tuple[str, ...]
    right: int = 0
    options: tuple[str, ...] = ()
    liked: bool = True


@dataclass(frozen=True)
class Choice:
    """One of a question's choices, with the name that its file gives it."""

    name: str
    text: str


class Unreadable(ValueError):
    """A cell that is not what its column should hold: the field, the problem and how to mend it."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.field, self.problem, self.fix = field, problem, fix


def read_replies(domain: Domain, row: Row, answer: str) -> Replies:
    """The replies to a row's last question, whose answer stands in the data as `answer`. Raises `Unreadable`."""
    if domain.choices:
        return _among_choices(domain, row, answer)
    if domain.rejected:
        return _pair(domain, row, answer)
    if domain.rating:
        return Replies("rated", (answer,), liked=_liked(domain.rating, row))
    if labels := closed_set(domain):
        return Replies("label", labels, labels.index(_label(domain, answer, labels)))
    return Replies("open", (answer,))


def letters(choices: Sequence[Choice]) -> str:
    """The choices as a prompt lists them."""
    return "\n".join(f"{letter}. {choice.text}" for letter, choice in zip(ascii_uppercase, choices, strict=False))


def read_choices(domain: Domain, row: Row) -> list[Choice]:
    """A row's choices, from their columns or from one that holds them all. Raises `Unreadable`."""
    assert domain.choices
    if isinstance(domain.choices, tuple):
        texts = [text_of(row.values.get(name)).strip() for name in domain.choices]
        found = [Choice(letter, text) for letter, text in zip(ascii_uppercase, texts, strict=False)]
    else:
        found = list(choice_list(row.values.get(domain.choices)))
    while found and not found[-1].text:  # a question with fewer choices than the table has columns
        found.pop()
    field = domain.choices if isinstance(domain.choices, str) else "choices"
    if not 2 <= len(found) <= len(ascii_uppercase):
        fix = 'write ["one", "another"], or name the columns: choices = ["a", "b"]'
        raise Unreadable(field, f"holds {len(found)} choices", fix)
    if empty := [each.name for each in found if not each.text]:
        raise Unreadable(field, f"choice {empty[0]} is empty", "fill it in or remove the row")
    return found


def choice_list(value: Any) -> Iterable[Choice]:
    """The choices of a cell: a list of texts or of {label, text}, {text: […], label: […]}, or {A: text, …}."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        names = value.get("label") or list(ascii_uppercase)
        value = [{"label": name, "text": text} for name, text in zip(names, value["text"], strict=False)]
    elif isinstance(value, dict):
        value = [{"label": name, "text": text} for name, text in value.items()]
    for letter, each in zip(ascii_uppercase, value if isinstance(value, list) else [], strict=False):
        named = each if isinstance(each, dict) else {"label": letter, "text": each}
        yield Choice(text_of(named.get("label")).strip() or letter, text_of(named.get("text")).strip())


def _among_choices(domain: Domain, row: Row, answer: str) -> Replies:
    choices = read_choices(domain, row)
    texts = tuple(each.text for each in choices)
    lettered = tuple(ascii_uppercase[: len(texts)])
    value = answer.strip()
    if domain.label_map is not None:
        if value not in domain.label_map:
            problem = f"{value!r} is not in label_map{nearest(value, domain.label_map)}"
            raise Unreadable("", problem, _allowed(domain.label_map))
        value = domain.label_map[value]
    named = (tuple(each.name for each in choices), lettered, tuple(letter.lower() for letter in lettered))
    for names in named if domain.label_map is not None else (texts, *named):
        if value in names:
            return _chosen(domain, texts, names.index(value))
    problem = f"{value!r} is none of the choices {', '.join(lettered)}"
    raise Unreadable("", problem, 'write a letter or a choice\'s text; numbers need label_map, such as { 0 = "A", … }')


def _chosen(domain: Domain, texts: tuple[str, ...], right: int) -> Replies:
    """Letters where the prompt lists the choices; else their texts, each of which continues the prompt."""
    if "{choices}" in (domain.prompt or ""):
        return Replies("choice", tuple(ascii_uppercase[: len(texts)]), right, options=texts)
    if len(set(texts)) < len(texts):
        raise Unreadable("choices", "has the same choice twice", "put {choices} into prompt, which letters them")
    return Replies("choice", texts, right)


def _pair(domain: Domain, row: Row, answer: str) -> Replies:
    column = str(domain.rejected)
    *asked, other = _spoken(row.values.get(column)) or [""]
    liked = _spoken(row.values.get(domain.messages[-1])) if isinstance(domain.messages, tuple) else []
    if asked and liked and asked != liked[:-1]:
        raise Unreadable(column, "answers another question than the liked answer", "remove the row")
    if not other:
        raise Unreadable(column, "is empty", "remove the row or fill it in")
    if other == answer.strip():
        raise Unreadable(column, "is the same as the liked answer", "remove the row")
    # In an order that does not tell: equally likely replies go to the first.
    first, second = sorted((answer, other), key=digest)
    return Replies("preference", (first, second), right=int(second == answer))


def _spoken(value: Any) -> list[str]:
    """What the messages of a conversation say, or a text by itself."""
    messages = message_list(value)
    return [text_of(value).strip()] if messages is None else [said(message) or "" for message in messages]


def rating_of(value: Any) -> bool | None:
    """Whether a cell says that people liked an answer; None where it says neither."""
    return _RATINGS.get(re.sub(r"^thumbs?[ _-]?", "", text_of(value).strip().lower()))


def _liked(column: str, row: Row) -> bool:
    found = rating_of(row.values.get(column))
    if found is None:
        raise Unreadable(column, f"{text_of(row.values.get(column))!r} is no rating", "write true or false")
    return found


def _label(domain: Domain, answer: str, labels: Sequence[str]) -> str:
    """The label that a value of the data stands for."""
    value = answer.strip()
    if domain.bins is not None:
        return _bin(domain, value)
    mapped = domain.label_map or {}
    named = domain.labels or mapped.values()  # what is a label already needs no mapping
    if domain.label_map is not None and value not in mapped and value not in named:
        problem = f"{value!r} is not in label_map{nearest(value, mapped)}"
        raise Unreadable("", problem, _allowed(mapped))
    label = mapped.get(value, value)
    if label not in labels:
        raise Unreadable("", f"{label!r} is no label{nearest(label, labels)}", _allowed(labels))
    return label


def _bin(domain: Domain, value: str) -> str:
    assert domain.bins
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise Unreadable("", f"{value!r} is no number", "bins need numbers; remove the row or mend it")
    label = next((label for label, bound in domain.bins.items() if number < bound), None)
    if label is None:
        last = list(domain.bins)[-1]
        raise Unreadable("", f"{value} is above every bin", f"raise the last bound, to inf if need be: {last} = inf")
    return label


def _allowed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", … {len(listed)} in all" if len(listed) > _LISTED else ""
    return f"allowed: {', '.join(listed[:_LISTED])}{more}"
