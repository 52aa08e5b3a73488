"""Rows → items: one assistant turn each, given the true history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from metier.data.conversations import Conversation, Note, Turn, read_conversations
from metier.data.sources import Row
from metier.data.templates import closed_set
from metier.errors import DataError, Fault, nearest
from metier.files import digest
from metier.recipe import Domain

_ID = 16  # hexadecimal digits
_LISTED = 12  # labels named in a fault


@dataclass(frozen=True)
class Message:
    """What one party says; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """One question with its possible replies, `replies[answer]` being the right one.

    `id` is the row's own or the hash of group and prompt, never of an answer. Items of one `group` stay on
    one side of every split. `row` counts source rows or conversations in file order; `messages` end
    with a user turn; `replies` are one text, or all labels of a closed set.
    """

    id: str
    domain: str
    group: str
    place: str
    row: int
    messages: tuple[Message, ...]
    replies: tuple[str, ...]
    answer: int
    shots: tuple[tuple[Message, ...], ...] = ()  # examples that a strategy shows in front; no part of the data

    @property
    def asked(self) -> tuple[Message, ...]:
        """What a model reads: the examples stand between system prompt and conversation."""
        begin = self.messages[0].role == "system"
        shown = (message for example in self.shots for message in example)
        return (*self.messages[:begin], *shown, *self.messages[begin:])

    @property
    def reference(self) -> str:
        return self.replies[self.answer]

    @property
    def kind(self) -> Literal["label", "open"]:
        return "label" if len(self.replies) > 1 else "open"


def make_items(domain: Domain, rows: Sequence[Row], note: Note = lambda _: None) -> list[Item]:
    """The items of a domain whose mapping is complete; `note` hears of messages that are left out.

    Raises `DataError` with every fault of the rows.
    """
    labels = closed_set(domain)
    found: list[Item | Fault] = []
    for each in read_conversations(domain, rows, note):
        found += [each] if isinstance(each, Fault) else _exchanges(domain, each, labels)
    if faults := [each for each in found if isinstance(each, Fault)]:
        raise DataError(f"domain {domain.name}", faults)
    if not found:
        fix = "add answers; every conversation needs one"
        raise DataError(f"domain {domain.name}", [Fault(domain.data, "has no answer of an assistant", fix)])
    return list(_unique(each for each in found if isinstance(each, Item)))


def _exchanges(domain: Domain, conversation: Conversation, labels: tuple[str, ...]) -> Iterator[Item | Fault]:
    """An item for each assistant turn."""
    asked = [turn.key for turn in conversation.turns if turn.role != "assistant" and turn.key]
    # Own groups are of their domain; what is said twice is the same everywhere, whatever the template around it.
    group = f"{domain.name}/{conversation.group}" if conversation.group else digest([*map(_plain, asked)])[:_ID]
    shared = Counter(turn.id for turn in conversation.turns if turn.role == "assistant")
    turns = conversation.turns
    answered = 0
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        answered += 1
        own = f"{turn.id}/{answered}" if shared[turn.id] > 1 else turn.id
        before = [each.key for each in turns[:index] if each.role != "assistant" and each.key]
        reply = _reply(domain, turn, labels)
        if isinstance(reply, Fault):
            yield reply
            continue
        yield Item(
            id=own if turn.id else digest([group, before])[:_ID],
            domain=domain.name,
            group=group,
            place=turn.place,
            row=conversation.number,
            messages=tuple(Message(each.role, each.content) for each in turns[:index]),
            replies=labels or (turn.content,),
            answer=reply,
        )


def _plain(text: str) -> str:
    """Without the differences in case and white space that copies have."""
    return " ".join(text.casefold().split())


def _reply(domain: Domain, turn: Turn, labels: tuple[str, ...]) -> int | Fault:
    """Which of the replies is right."""
    value = turn.content.strip()
    if domain.label_map is not None and value not in domain.label_map:
        return turn.fault(f"{value!r} is not in label_map{nearest(value, domain.label_map)}", _choose(domain.label_map))
    label = value if domain.label_map is None else domain.label_map[value]
    if labels and label not in labels:
        return turn.fault(f"{label!r} is no label{nearest(label, labels)}", _choose(labels))
    return labels.index(label) if labels else 0


def _choose(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", … {len(listed)} in all" if len(listed) > _LISTED else ""
    return f"allowed: {', '.join(listed[:_LISTED])}{more}"


def _unique(items: Iterable[Item]) -> Iterator[Item]:
    """A repeated id gets its count behind it."""
    used: Counter[str] = Counter()
    for item in items:
        used[item.id] += 1
        yield item if used[item.id] == 1 else replace(item, id=f"{item.id}#{used[item.id]}")
