"""Rows → items: one assistant turn each, given the true history."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from metier.data.conversations import Conversation, Note, read_conversations
from metier.data.dialects import TIED
from metier.data.prose import cut
from metier.data.replies import Kind, Unreadable, read_replies
from metier.data.sources import SKIP, Row, columns_of, of_rows, text_of
from metier.domain import Domain, Task
from metier.errors import DataError, Fault, nearest
from metier.files import digest

_ID = 16  # hexadecimal digits
_UNASKED = ("prompt", "answer", "instruction", "label_map", "messages", "history", "conversation", "system")
_MANY = 0.1  # of the rows; where more are left out, people should look at them
_DETAILS = re.compile(r"'.*'|\d[\d,.]*")  # of a problem: what differs from row to row
_ENOUGH = 10  # texts; with fewer, their passages are what is split


@dataclass(frozen=True)
class Message:
    """What one party says; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Version:
    """Which version of a text an item is: it names one of `group`, the others differ from it in `attribute` alone."""

    attribute: str
    group: str
    favourable: str


@dataclass(frozen=True)
class Item:
    """One question with its possible replies, `replies[answer]` being the right one.

    `id` is the row's own or the hash of group and prompt, never of an answer. Items of one `group` stay on
    one side of every split. `row` counts source rows or conversations in file order; `messages` end
    with a user turn, but plain text has none. By `kind`, `replies` are one answer ("open"; "rated", which
    people `liked` or not; "passage"), all labels of a closed set, a question's choices or their letters (which
    stand for `options`), or what was preferred and what was not.
    """

    id: str
    domain: str
    group: str
    place: str
    row: int
    messages: tuple[Message, ...]
    replies: tuple[str, ...]
    answer: int = 0
    kind: Kind = "open"
    options: tuple[str, ...] = ()
    liked: bool = True
    version: Version | None = None
    task: Task = "support"  # of an open answer
    tests: str = ""  # of code
    # What a strategy shows in front, which is no part of the data:
    shots: tuple[tuple[Message, ...], ...] = ()  # examples
    question: str = ""  # the last turn with the passages that were found for it

    @property
    def asked(self) -> tuple[Message, ...]:
        """What a model reads: the examples stand between system prompt and conversation, passages in its last turn."""
        begin = bool(self.messages) and self.messages[0].role == "system"
        shown = (message for example in self.shots for message in example)
        turns = self.messages[begin:]
        if self.question:
            turns = (*turns[:-1], Message(turns[-1].role, self.question))
        return (*self.messages[:begin], *shown, *turns)

    @property
    def reference(self) -> str:
        return self.replies[self.answer]

    @property
    def other(self) -> str:
        """Of a pair, the reply that was not preferred."""
        return self.replies[1 - self.answer]

    @property
    def prompt(self) -> Hashable:
        """What nobody may be trained and measured on: the conversation, or the text itself."""
        return self.messages or self.replies


def fingerprint(item: Item) -> str:
    """What an item asks, or says, as a hash that can be kept."""
    return digest(item.replies if not item.messages else [[each.role, each.content] for each in item.messages])[:_ID]


def make_items(
    domain: Domain, rows: Sequence[Row], note: Note = lambda _: None, unread: Sequence[Fault] = ()
) -> list[Item]:
    """The items of a domain whose mapping is complete; `note` hears of messages and rows that are left out.

    `unread` are the faults of rows that could not be read at all.

    Raises `DataError` with every fault of rows that the domain does not skip, or of a mapping that does not
    suit them.
    """
    found: list[Item | Fault] = []
    if domain.text:
        found += _texts(domain, rows)
    told = [row for row in rows if TIED not in row.values]
    if tied := len(rows) - len(told):
        note(Fault(f"domain {domain.name}", f"{tied:,} rows call both answers alike", "they are left out"))
    for each in read_conversations(domain, told, note) if not domain.text else ():
        found += [each] if isinstance(each, Fault) else _exchanges(domain, each, rows[each.number])
    faults = [*unread, *(each for each in found if isinstance(each, Fault))]
    made = any(isinstance(each, Item) for each in found)
    if faults and not (domain.skip_faulty and made and of_rows(unread)):
        raise DataError(f"domain {domain.name}", faults, SKIP)
    for fault in _left_out(domain, faults, len(rows) + len(unread)):
        note(fault)
    if not found:
        fix = "add answers; every conversation needs one"
        raise DataError(f"domain {domain.name}", [Fault(domain.data, "has no answer of an assistant", fix)])
    return list(_unique(each for each in found if isinstance(each, Item)))


def _left_out(domain: Domain, faults: Sequence[Fault], rows: int) -> Iterator[Fault]:
    """How many rows are left out by kind of problem, with the first place of each."""
    kinds: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.place.partition(": ")[2], _DETAILS.sub("", fault.problem)), []).append(fault)
    told = (f"{_counted(alike)} like {alike[0].place}: {alike[0].problem}" for alike in kinds.values())
    if faults:
        yield Fault(f"domain {domain.name}", "; ".join(told), "left out (skip_faulty)")
    if len(_places(faults)) > _MANY * rows:
        problem = f"{_counted(faults)} of {rows:,} are left out, more than a tenth"
        yield Fault(f"domain {domain.name}", problem, "mend them: what is left may not be what the file is about")


def _places(faults: Sequence[Fault]) -> set[str]:
    return {fault.place.partition(": ")[0] for fault in faults}


def _counted(faults: Sequence[Fault]) -> str:
    count = len(_places(faults))
    return f"{count:,} row" + "s" * (count != 1)


def _exchanges(domain: Domain, conversation: Conversation, row: Row) -> Iterator[Item | Fault]:
    """An item for each assistant turn; for the last alone, where the row tells more of it than its text."""
    asked = [turn.key for turn in conversation.turns if turn.role != "assistant" and turn.key]
    # Own groups are of their domain; what is said twice is the same everywhere, whatever the template around it.
    group = f"{domain.name}/{conversation.group}" if conversation.group else digest([*map(plain, asked)])[:_ID]
    shared = Counter(turn.id for turn in conversation.turns if turn.role == "assistant")
    turns = conversation.turns
    single = bool(domain.choices or domain.rejected or domain.rating or domain.tests)
    answered = 0
    for index, turn in enumerate(turns):
        if turn.role != "assistant" or (single and index < len(turns) - 1):
            continue
        answered += 1
        if not turn.learned:
            continue
        own = f"{turn.id}/{answered}" if shared[turn.id] > 1 else turn.id
        before = [each.key for each in turns[:index] if each.role != "assistant" and each.key]
        try:
            replies = read_replies(domain, row, turn.content)
            version = _version(domain, row)
        except Unreadable as error:
            yield replace(turn, field=error.field or turn.field).fault(error.problem, error.fix)
            continue
        yield Item(
            id=own if turn.id else digest([group, before])[:_ID],
            domain=domain.name,
            group=group,
            place=turn.place,
            row=conversation.number,
            messages=tuple(Message(each.role, each.content) for each in turns[:index]),
            kind=replies.kind,
            replies=replies.texts,
            answer=replies.right,
            options=replies.options,
            liked=replies.liked,
            version=version,
            task=domain.task,
            tests=text_of(row.values.get(domain.tests)) if domain.tests else "",
        )


def _version(domain: Domain, row: Row) -> Version | None:
    """Raises `Unreadable` where the row does not tell."""
    if not (named := domain.versions):
        return None
    for column in (named.of, named.attribute, named.group):
        if not text_of(row.values.get(column)).strip():
            raise Unreadable(column, "is empty", "fill it in, or give versions a file of their own")
    attribute, group = (text_of(row.values[column]).strip() for column in (named.attribute, named.group))
    return Version(attribute, group, named.favourable)


def _texts(domain: Domain, rows: Sequence[Row]) -> Iterator[Item | Fault]:
    """The passages of every row's text. One text stays on one side where there are enough of them to split."""
    assert domain.text
    column, columns = domain.text, columns_of(rows)
    for key, name in (("text", column), ("group", domain.group), ("id", domain.id)):
        if name is not None and name not in columns:
            problem = f"there is no column {name!r}{nearest(name, columns)}"
            fault = Fault(f"domain {domain.name}: {key}", problem, f"columns are {', '.join(columns)}")
            raise DataError(f"domain {domain.name}", [fault])
    if strange := [key for key in _UNASKED if getattr(domain, key)]:
        places = [f"domain {domain.name}: {key}" for key in strange]
        faults = [Fault(place, "has no meaning for plain text", "remove it") for place in places]
        raise DataError(f"domain {domain.name}", faults)
    for row in rows:
        text = text_of(row.values.get(column))
        if not text.strip():
            yield Fault(f"{row.place}: {column}", "is empty", "remove the row or fill it in")
        own = text_of(row.values.get(domain.group)).strip() if domain.group else ""
        group = f"{domain.name}/{own}" if own else digest(plain(text))[:_ID] if len(rows) >= _ENOUGH else ""
        for number, (_, passage) in enumerate(cut(text), start=1):
            one = digest(plain(passage))[:_ID]
            yield Item(
                id=f"{text_of(row.values.get(domain.id))}/{number}" if domain.id else one,
                domain=domain.name,
                group=group or one,
                place=row.place,
                row=row.number,
                messages=(),
                kind="passage",
                replies=(passage,),
            )


def plain(text: str) -> str:
    """Without the differences in case and white space that copies have."""
    return " ".join(text.casefold().split())


def _unique(items: Iterable[Item]) -> Iterator[Item]:
    """A repeated id gets its count behind it."""
    used: Counter[str] = Counter()
    for item in items:
        used[item.id] += 1
        yield item if used[item.id] == 1 else replace(item, id=f"{item.id}#{used[item.id]}")
