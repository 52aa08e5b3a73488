"""Rows → conversations, in the three shapes that files have: templates over columns, a list a row, a message a row."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise, starmap
from typing import Any

from metier.data.messages import DETAILS, in_one, is_learned, message_list, said, speaker, unread
from metier.data.objects import listed
from metier.data.replies import Unreadable, letters, read_choices
from metier.data.sources import Row, columns_of, text_of
from metier.data.templates import (
    Template,
    answer_template,
    prompt_template,
    shared_system,
    system_template,
    template_faults,
)
from metier.data.times import kind_of, moments
from metier.data.tools import RESULTS, tools_of, write_result, write_tools
from metier.domain import Domain
from metier.errors import DataError, Fault, nearest

Note = Callable[[Fault], None]

_ROLES = {
    "system": "system developer instruction instructions",
    "user": "user human customer client consumer visitor guest patient caller enduser member subscriber "
    "buyer shopper requester requestor asker prompter student applicant tenant "
    "tool function observation ipython toolresponse",
    "assistant": "assistant functioncall agent bot chatbot ai gpt chatgpt model llm support operator advisor adviser "
    "doctor physician nurse therapist representative rep csr staff employee expert helpdesk technician teacher tutor",
}
ROLES = {name: role for role, names in _ROLES.items() for name in names.split()}
_SHOWN_ROLES = "user, human, customer, client, patient; assistant, agent, bot, support, operator; system"


@dataclass(frozen=True)
class Turn:
    """One message; `place` and `field` tell where it stands.

    `key` is what the row itself says, whatever the template around it; `id` is the row's own, where there
    is a column for it. What is not `learned` is only read, as part of the history.
    """

    role: str
    content: str
    place: str
    field: str
    key: str
    id: str
    learned: bool = True

    def fault(self, problem: str, fix: str) -> Fault:
        return Fault(f"{self.place}: {self.field}", problem, fix)


@dataclass(frozen=True)
class Conversation:
    """Alternating turns, an optional system message first, that end with the assistant; `group` may be empty."""

    number: int
    group: str
    turns: tuple[Turn, ...]


def read_conversations(domain: Domain, rows: Sequence[Row], note: Note) -> Iterator[Conversation | Fault]:
    """The conversations of `rows`, or the faults of one; `domain` has a whole mapping.

    `note` hears of what is left out. Raises `DataError` where the mapping does not suit the rows.
    """
    if faults := [*_mapping_faults(domain, columns_of(rows))]:
        raise DataError(f"domain {domain.name}", faults)
    unnamed = _id_faults(domain, rows)
    if unnamed and domain.conversation:  # without one of its messages it would be another conversation
        raise DataError(f"domain {domain.name}", list(unnamed.values()))
    yield from unnamed.values()
    rows = [row for row in rows if row.number not in unnamed]
    if domain.messages:
        for row in rows:
            yield from _checked(_conversation(domain, row.number, row, _from_list(domain, row)))
        for told in _unlearned(domain, rows):
            note(told)
    elif domain.conversation:
        yield from _from_messages(domain, rows, note)
    else:
        columns = columns_of(rows)
        templates = {"user": prompt_template(domain, columns), "assistant": answer_template(domain, columns)}
        for row in rows:
            yield from _checked(_conversation(domain, row.number, row, _from_templates(domain, row, templates)))


def role_of(name: str, domain: Domain) -> str | None:
    """system, user or assistant; None for a name that nobody knows."""
    own = {key.strip().lower(): role for key, role in domain.role_map.items()}
    plain = name.strip().lower()
    return own.get(plain) or ROLES.get(re.sub(r"[\s_-]", "", plain))


def _mapping_faults(domain: Domain, columns: list[str]) -> Iterator[Fault]:
    """Keys that name a column which is not there, and roles that do not exist."""
    named: list[tuple[str, str | None]] = []
    if domain.messages:
        named += [("messages", name) for name in _message_columns(domain)]
    elif domain.conversation:
        named += [(key, getattr(domain, key)) for key in ("conversation", "role", "content", "time")]
    else:
        named.append(("history", domain.history))
        yield from template_faults(domain, columns)
    if domain.system and shared_system(domain) is None:
        named.append(("system", domain.system[1:-1]))
    for key in ("rejected", "rating", "choices", "tests") if domain.conversation else ():
        if getattr(domain, key) is not None:
            problem = "tells nothing of a conversation that has a row a message"
            yield Fault(f"domain {domain.name}: {key}", problem, "remove it, or give a row a conversation")
    for key, name in (*named, *_of_any_shape(domain)):
        if name is not None and name not in columns:
            problem = f"there is no column {name!r}{nearest(name, columns)}"
            yield Fault(f"domain {domain.name}: {key}", problem, f"columns are {', '.join(columns)}")
    for name, role in domain.role_map.items():
        if role not in _ROLES:
            place = f"domain {domain.name}: role_map.{name}"
            yield Fault(place, f"{role!r} is no role", "write system, user or assistant")


def _of_any_shape(domain: Domain) -> Iterator[tuple[str, str | None]]:
    """Keys that name a column whatever the shape of the file, each with its column."""
    yield from ((key, getattr(domain, key)) for key in ("rejected", "rating", "tests", "tools", "id", "group"))
    choices = [domain.choices] if isinstance(domain.choices, str) else domain.choices or ()
    yield from (("choices", name) for name in choices)
    if domain.versions:
        yield from ((f"versions.{key}", getattr(domain.versions, key)) for key in ("of", "attribute", "group"))


def _id_faults(domain: Domain, rows: Sequence[Row]) -> dict[int, Fault]:
    """What is wrong with the rows' ids, by the rows' numbers."""
    places: dict[str, str] = {}
    faults: dict[int, Fault] = {}
    for row in rows if domain.id else ():
        own = _cell(row, domain.id)
        if not own:
            faults[row.number] = Fault(f"{row.place}: {domain.id}", "is empty", "give every row an id")
        elif own in places:
            problem = f"{own!r} is the id of {places[own]} too"
            faults[row.number] = Fault(f"{row.place}: {domain.id}", problem, "give every row its own")
        places.setdefault(own, row.place)
    return faults


def _cell(row: Row, column: str | None) -> str:
    return text_of(row.values.get(column)).strip() if column else ""


def _from_templates(domain: Domain, row: Row, templates: Mapping[str, Template]) -> Iterator[Turn | Fault]:
    if domain.history:
        yield from _from_history(domain.history, row)
    for role, template in templates.items():
        try:
            cells = {name: _inserted(domain, row, name) for name in template.columns}
        except Unreadable as error:
            yield Fault(f"{row.place}: {error.field}", error.problem, error.fix)
            continue
        field = template.columns[0] if len(template.columns) == 1 else "prompt" if role == "user" else "answer"
        said = dict(cells)
        if domain.choices and "choices" in said:  # in whatever order they are lettered, it is the same question
            said["choices"] = "\n".join(sorted(each.text for each in read_choices(domain, row)))
        yield Turn(role, template.fill(cells), row.place, field, "\n".join(said.values()), _cell(row, domain.id))


def _inserted(domain: Domain, row: Row, name: str) -> str:
    """What a placeholder stands for in a row. Raises `Unreadable`."""
    if name == "choices" and domain.choices:
        return letters(read_choices(domain, row))
    value = in_one(row.values.get(name))
    if isinstance(value, list | dict):
        raise Unreadable(name, "holds no text", "write it as text")
    return text_of(value).strip()


def _from_history(field: str, row: Row) -> Iterator[Turn | Fault]:
    exchanges = exchange_list(row.values.get(field))
    if exchanges is None:
        yield Fault(f"{row.place}: {field}", "is no list of exchanges", 'write [["question", "answer"], …]')
        return
    for index, exchange in enumerate(exchanges):
        for role, content in zip(("user", "assistant"), exchange, strict=True):
            text = text_of(content).strip()
            yield Turn(role, text, row.place, f"{field}[{index}]", text, "")


def exchange_list(value: Any) -> list[list[Any]] | None:
    """The [question, answer] pairs of a cell, none in an empty one; None where it holds something else."""
    if value in (None, ""):
        return []
    value = listed(value)
    pairs = isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value)
    return value if pairs else None


def _message_columns(domain: Domain) -> tuple[str, ...]:
    return domain.messages if isinstance(domain.messages, tuple) else (str(domain.messages),)


def _from_list(domain: Domain, row: Row) -> Iterator[Turn | Fault]:
    for field in _message_columns(domain):
        messages = message_list(row.values.get(field))
        if messages is None:
            fix = 'write [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
            yield Fault(f"{row.place}: {field}", "is no list of messages", fix)
        else:
            yield from _from_column(domain, row, field, messages)


def _from_column(domain: Domain, row: Row, field: str, messages: list[dict[str, Any]]) -> Iterator[Turn | Fault]:
    for index, message in enumerate(messages):
        name = speaker(message)
        place = f"{row.place}: {field}[{index}]"
        role = role_of(name, domain)
        text = said(message)
        if role is None:
            yield _unknown_role(f"{place}.role", name)
        elif text is None:
            fix = "write it as text; pictures and sound are not read: remove the part, or the row"
            yield Fault(f"{place}.content", "is no text", fix)
        elif message.get(DETAILS):
            fix = "mark whole messages with train = true or false, and remove it"
            yield Fault(f"{place}.{DETAILS}", "marks parts of a message, which is not read", fix)
        else:
            own = _cell(row, domain.id)
            yield Turn(role, text, row.place, f"{field}[{index}]", text, own, learned=is_learned(message))


def _unlearned(domain: Domain, rows: Sequence[Row]) -> Iterator[Fault]:
    """What lists of messages hold that is not learned, though somebody might think so."""
    names, place = _message_columns(domain), f"domain {domain.name}"
    lists = [[each for name in names for each in message_list(row.values.get(name)) or ()] for row in rows]
    counts = Counter(name for messages in lists for each in messages for name in unread(each))
    for name, count in counts.items():
        yield Fault(place, f"{name} stands in {count:,} messages", "it is not read")

    def half(one: dict[str, Any], other: dict[str, Any]) -> bool:
        answers = all(role_of(speaker(each), domain) == "assistant" for each in (one, other))
        return answers and is_learned(one) != is_learned(other)

    if joined := sum(any(starmap(half, pairwise(messages))) for messages in lists):
        problem = f"{joined:,} rows have answers that follow each other and are not all to be learned"
        yield Fault(place, problem, "they are one answer, which is not learned")


def _unknown_role(place: str, name: str) -> Fault:
    fix = f'known are {_SHOWN_ROLES}; others need role_map = {{ {json.dumps(name)} = "user" }} or "assistant"'
    return Fault(place, f"{name!r} is no known role", fix)


def _from_messages(domain: Domain, rows: Sequence[Row], note: Note) -> Iterator[Conversation | Fault]:
    order = moments([_cell(row, domain.time) for row in rows]) if domain.time else [0.0] * len(rows)
    if order is None:
        raise DataError(f"domain {domain.name}", [_time_fault(domain, rows)])
    threads: dict[str, list[tuple[Any, Row]]] = {}
    for row, moment in zip(rows, order, strict=True):
        if name := _cell(row, domain.conversation):
            threads.setdefault(name, []).append((moment, row))
        else:
            yield Fault(f"{row.place}: {domain.conversation}", "is empty", "say which conversation it belongs to")
    if not domain.time:
        note(Fault(f"domain {domain.name}", "no column tells when a message was sent", "the file's order is taken"))
    trimmed = {
        "have system messages in the middle": 0,
        "begin with the assistant": 0,
        "end without an answer": 0,
        "have no answer at all": 0,
    }
    number = 0
    for name, thread in threads.items():
        ordered = [row for _, row in sorted(thread, key=lambda each: each[0])]
        found = _conversation(domain, number, ordered[0], (_from_row(domain, row) for row in ordered), name)
        if isinstance(found, Conversation):
            found = _trim(found, trimmed)
            if not found.turns:
                continue
        number += isinstance(found, Conversation)
        yield from _checked(found)
    for problem, count in trimmed.items():
        if count:
            note(Fault(f"domain {domain.name}", f"{count} conversations {problem}", "those messages are left out"))


def _from_row(domain: Domain, row: Row) -> Turn | Fault:
    name = _cell(row, domain.role)
    role = role_of(name, domain)
    if role is None:
        return _unknown_role(f"{row.place}: {domain.role}", name)
    text = _cell(row, domain.content)
    text = write_result(text) if name.lower() in RESULTS else text
    return Turn(role, text, row.place, str(domain.content), text, _cell(row, domain.id))


def _time_fault(domain: Domain, rows: Sequence[Row]) -> Fault:
    examples: dict[str, str] = {}
    for row in rows:
        text = _cell(row, domain.time)
        examples.setdefault(kind_of(text), f"{text!r} ({row.place}) is {kind_of(text)}")
    fix = "write dates as 2026-01-31 09:30, or numbers, or leave `time` out to keep the file's order"
    return Fault(f"domain {domain.name}: time", f"column {domain.time!r}: {', '.join(examples.values())}", fix)


def _trim(conversation: Conversation, trimmed: dict[str, int]) -> Conversation:
    """Without a help desk's own notes, what the assistant says before anyone asks, a question that nobody answers."""
    begin = conversation.turns[0].role == "system"
    head, rest = conversation.turns[:begin], conversation.turns[begin:]
    body = _merged([turn for turn in rest if turn.role != "system"])
    trimmed["have system messages in the middle"] += len([turn for turn in rest if turn.role == "system"]) > 0
    greeted = bool(body) and body[0].role == "assistant"
    body = body[greeted:]
    left = bool(body) and body[-1].role == "user"
    body = body[: len(body) - left]
    if not body:
        trimmed["have no answer at all"] += 1
        return replace(conversation, turns=())
    trimmed["begin with the assistant"] += greeted
    trimmed["end without an answer"] += left
    return replace(conversation, turns=(*head, *body))


def _conversation(
    domain: Domain, number: int, row: Row, found: Iterable[Turn | Fault], name: str = ""
) -> Conversation | list[Fault]:
    """The conversation that begins with `row`, its turns of one role joined; or the faults."""
    parts = list(found)
    if domain.system and not any(isinstance(each, Turn) and each.role == "system" for each in parts[:1]):
        parts = [*_system_turn(domain, row), *parts]
    tools = tools_of(row.values.get(domain.tools)) if domain.tools else None
    if tools and not isinstance(tools, list | dict):
        parts.append(Fault(f"{row.place}: {domain.tools}", "describes no tools", "write a JSON list of them"))
    turns = [each for each in parts if isinstance(each, Turn)]
    faults = [each for each in parts if isinstance(each, Fault)]
    faults += [turn.fault("is empty", "remove the row or fill it in") for turn in turns if not turn.content.strip()]
    if faults:
        return faults
    if tools and turns:
        turns = _with_tools(turns, tools)
    return Conversation(number, _cell(row, domain.group) or name, _merged(turns))


def _system_turn(domain: Domain, row: Row) -> Iterator[Turn | Fault]:
    """The domain's system prompt; one that a row's own columns make is part of what the row says."""
    template = system_template(domain, list(row.values))
    try:
        cells = {name: _inserted(domain, row, name) for name in template.columns}
    except Unreadable as error:
        yield Fault(f"{row.place}: {error.field}", error.problem, error.fix)
        return
    own = template.fill(cells) if template.columns else ""
    text = own if template.columns or shared_system(domain) is None else template.text
    if text:
        yield Turn("system", text, row.place, "system", own, "")


def _with_tools(turns: Sequence[Turn], tools: Any) -> list[Turn]:
    """The turns with the tools described in the system prompt."""
    begin = turns[0].role == "system"
    first = turns[0] if begin else replace(turns[0], role="system", content="", field="tools", key="")
    said = write_tools(first.content, tools)
    return [replace(first, content=said, key=write_tools(first.key, tools)), *turns[begin:]]


def _merged(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Turns of one role that follow each other become one."""
    return tuple(_joined(list(group)) for _, group in groupby(turns, key=lambda turn: turn.role))


def _joined(turns: list[Turn]) -> Turn:
    content, key = ("\n".join(getattr(turn, field) for turn in turns) for field in ("content", "key"))
    return replace(turns[0], content=content, key=key, learned=all(turn.learned for turn in turns))


def _checked(found: Conversation | list[Fault]) -> Iterator[Conversation | Fault]:
    """The conversation if its roles take turns as they must."""
    if not isinstance(found, Conversation):
        yield from found
        return
    begin = found.turns[0].role == "system"
    body = found.turns[begin:]
    faults = [turn.fault("is a system message in the middle", "put it first") for turn in body if turn.role == "system"]
    if not body or body[0].role == "assistant":
        faults.append(found.turns[0].fault("no user speaks first", "begin with a user's message"))
    if found.turns[-1].role != "assistant":
        faults.append(found.turns[-1].fault("has no answer", "add the assistant's message or remove this one"))
    if faults:
        yield from faults
    else:
        yield found
