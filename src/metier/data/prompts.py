"""Prompts that say which domains may rightly answer them: what a router is tried on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.data.items import Message
from metier.data.messages import message_list, said, speaker
from metier.data.objects import listed
from metier.data.sources import Row, columns_of, read_rows, show, text_of
from metier.domain import Domain
from metier.errors import DataError, Fault, nearest

_NEEDED = (("prompt", "messages"), ("domain",))


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with a user's turn; `allowed` are all domains that may answer, `domain` the first."""

    place: str
    messages: tuple[Message, ...]
    domain: str
    allowed: tuple[str, ...]
    kind: str

    @property
    def turns(self) -> list[str]:
        """What the user typed, turn by turn."""
        return [message.content for message in self.messages if message.role == "user"]


def read_prompts(path: Path, domains: Collection[str]) -> list[Prompt]:
    """The prompts of a file with columns prompt (a text) or messages (a list), domain, allowed and kind.

    `allowed` may be absent, then `domain` alone may answer; so may `kind`. Raises `DataError` with every fault.
    """
    rows = read_rows(Domain(name="prompts", data=path.name), path)
    columns = columns_of(rows)
    if lacking := [names for names in _NEEDED if not {*names} & {*columns}]:
        told = (f"has no column {' or '.join(names)}{nearest(names[0], columns)}" for names in lacking)
        fix = f"columns are {', '.join(columns)}"
        raise DataError(show(path), [Fault(show(path), problem, fix) for problem in told])
    found = [(_messages(row), row) for row in rows]
    faults = [fault for messages, row in found for fault in (*_unasked(messages, row), *_strange(row, domains))]
    if faults:
        raise DataError(show(path), faults)
    return [
        Prompt(row.place, tuple(messages or ()), *_allowed(row), text_of(row.values.get("kind")))
        for messages, row in found
    ]


def _messages(row: Row) -> list[Message] | None:
    """The conversation; None where there is none that can be read."""
    if text := text_of(row.values.get("prompt")).strip():
        return [Message("user", text)]
    texts = [(speaker(each), said(each)) for each in message_list(row.values.get("messages")) or ()]
    return [Message(role, text) for role, text in texts if text] if all(text for _, text in texts) else None


def _unasked(messages: list[Message] | None, row: Row) -> Iterator[Fault]:
    if not messages:
        yield Fault(f"{row.place}: prompt", "there is none", "give a text as prompt, or a list as messages")
    elif messages[-1].role != "user":
        yield Fault(f"{row.place}: messages", f"end with {messages[-1].role}", "end with what the user asks")


def _allowed(row: Row) -> tuple[str, tuple[str, ...]]:
    """The domain, and all that may answer, in the row's own order behind it."""
    domain = text_of(row.values.get("domain")).strip()
    value: Any = listed(row.values.get("allowed"))
    names = map(text_of, value) if isinstance(value, list) else ([text_of(value)] if value else [])
    return domain, tuple(dict.fromkeys([domain, *names]))


def _strange(row: Row, domains: Collection[str]) -> Iterator[Fault]:
    domain, allowed = _allowed(row)
    for name in allowed:
        if name not in domains:
            problem = f"{name!r} is no domain here{nearest(name, domains)}" if name else "is missing"
            key = "domain" if name == domain else "allowed"
            yield Fault(f"{row.place}: {key}", problem, f"choose from {', '.join(domains)}")
