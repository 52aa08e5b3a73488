"""Conversations that people take over: a queue of tickets."""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metier.assistant.mood import Mood
from metier.assistant.store import Masking, Store, Turn, read_turns, utc_now
from metier.errors import MetierError
from metier.personal import masked

State = Literal["open", "taken", "closed"]
_LONG, _SHORT = 240, 120  # characters of what was asked, of each thing tried
_END, _TALK = 10_000, 100_000  # characters that are kept of a turn's ends, of all: masking a million takes 2 s
_EDGE = 64  # characters at a cut, where a number may be that is no more known for one
_TRIED = 3
_CODE = 4  # bytes
_HANDED = "I am handing this over to a colleague, who will read what was said here. Your ticket is number {id}-{code}."
_TOLD = re.compile(re.escape(_HANDED).replace(r"\{id\}", r"(\d{1,18})").replace(r"\{code\}", "([0-9a-f]+)") + r"\s*$")


class NoTicketError(MetierError):
    """There is no such ticket."""


class MovedError(MetierError):
    """Somebody was faster."""


@dataclass(frozen=True)
class Told:
    """A ticket that was told to whom it is about: its number, its code, and how many turns had been said before."""

    id: int
    code: str
    turns: int


@dataclass(frozen=True)
class Ticket:
    """One conversation in the queue; times are UTC, ISO 8601, "" where it has not come to that.

    Whoever knows its `code` may go on with it.
    """

    id: int
    opened: str
    state: State
    domain: str
    mood: str
    why: str
    summary: str
    transcript: tuple[Turn, ...]
    taken: str
    taken_by: str
    closed: str
    note: str
    code: str

    @property
    def handed(self) -> str:
        """What whom it is about is told."""
        return _HANDED.format(id=self.id, code=self.code)


class Tickets:
    """The queue in an SQLite file; texts are masked before they are kept. May be shared between threads."""

    def __init__(self, path: Path, masking: Masking = masked) -> None:
        self._store = Store.open(path, masking)

    def open(self, transcript: Sequence[Turn], domain: str, mood: Mood, told: Told | None = None) -> Ticket:
        """Put a conversation, or the latest of a long one, at the end of the queue.

        Where a ticket was `told` in it that is not closed, and holds what had been said before, that one goes on.
        """
        written = self._written(transcript)
        summary = summarise(read_turns(written))  # of what is masked: half of a number is not known for one
        row = (domain, mood.kind, self._store.masking(mood.why), summary, written)
        with self._store.connected() as connection:
            if told and self._goes_on(connection, told, transcript):
                sql = "UPDATE ticket SET domain = ?, mood = ?, why = ?, summary = ?, transcript = ? WHERE id = ?"
                connection.execute(sql, (*row, told.id))
                return _one(connection, told.id)
            columns = "domain, mood, why, summary, transcript, opened, code, state"
            sql = f"INSERT INTO ticket ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, 'open')"
            number = connection.execute(sql, (*row, utc_now(), secrets.token_hex(_CODE))).lastrowid
            return _one(connection, int(number or 0))

    def _goes_on(self, connection: sqlite3.Connection, told: Told, transcript: Sequence[Turn]) -> bool:
        """Nobody speaks for others who does not know the code, and nobody makes them have said something else."""
        sql = "SELECT transcript FROM ticket WHERE id = ? AND code = ? AND code != '' AND state != 'closed'"
        row = connection.execute(sql, (told.id, told.code)).fetchone()
        return bool(row) and row["transcript"] == self._written(transcript[: told.turns])

    def _written(self, transcript: Sequence[Turn]) -> str:
        """The latest turns of a conversation, a long one without its middle, behind how many are left out."""
        kept, room = list[Turn](), _TALK
        for turn in map(self._cut, reversed(transcript)):
            room -= len(turn.content)
            if kept and room < 0:
                break
            kept.append(turn)
        more = len(transcript) - len(kept)
        left_out = [Turn("system", f"[… {more} earlier turns are left out]")] if more else []
        return self._store.written([*left_out, *reversed(kept)])

    def _cut(self, turn: Turn) -> Turn:
        if len(turn.content) <= 2 * _END:
            return turn
        begins, ends = (self._store.masking(each) for each in (turn.content[:_END], turn.content[-_END:]))
        return Turn(turn.role, f"{begins[:-_EDGE]} […] {ends[_EDGE:]}")

    def listed(self, state: State | None = None) -> list[Ticket]:
        """The oldest first; all, or those in one state."""
        with self._store.connected() as connection:
            rows = connection.execute("SELECT * FROM ticket WHERE ? IN (state, '') ORDER BY id", (state or "",))
            return [_ticket(row) for row in rows]

    def one(self, number: int) -> Ticket:
        """Raises `NoTicketError` where there is no such ticket."""
        with self._store.connected() as connection:
            return _one(connection, number)

    def take(self, number: int, by: str) -> Ticket:
        """For one person: of two who take it at once, one gets a `MovedError` that names the other."""
        return self._move(number, ("open",), "taken", {"taken": utc_now(), "taken_by": by})

    def close(self, number: int, note: str = "") -> Ticket:
        """Done with, taken or not. Raises `MovedError` where it is closed already."""
        note = self._store.masking(note)
        return self._move(number, ("open", "taken"), "closed", {"closed": utc_now(), "note": note})

    def _move(self, number: int, of: tuple[State, ...], to: State, values: dict[str, str]) -> Ticket:
        with self._store.connected() as connection:
            ticket = _one(connection, number)
            if ticket.state not in of:
                whose = f" by {ticket.taken_by}" if ticket.state == "taken" else ""
                raise MovedError(f"ticket {number}: is {ticket.state} already{whose}", "choose another one")
            columns = ", ".join(f"{name} = ?" for name in values)
            sql = f"UPDATE ticket SET state = ?, {columns} WHERE id = ?"
            connection.execute(sql, (to, *values.values(), number))
            return _one(connection, number)


def told_in(transcript: Sequence[Turn]) -> Told | None:
    """The ticket that was told last in a conversation."""
    for place in range(len(transcript) - 1, -1, -1):
        if found := _handed(transcript[place]):
            return Told(int(found[1]), found[2], place)
    return None


def _handed(turn: Turn) -> re.Match[str] | None:
    return _TOLD.search(turn.content) if turn.role == "assistant" else None


def summarise(transcript: Sequence[Turn]) -> str:
    """What was asked first and last, and what the answers began with: their own words, shortened."""
    asked = [turn.content for turn in transcript if turn.role == "user" and turn.content.strip()]
    said = [turn for turn in transcript if turn.role == "assistant" and turn.content.strip()]
    answers = [turn.content for turn in said if not _handed(turn)]
    if not asked:
        return "Nothing was asked."
    first, last = _shortened(asked[0], _LONG), _shortened(asked[-1], _LONG)
    parts = [f"Asked: {first}"] if first == last else [f"Asked first: {first}", f"Asked last: {last}"]
    if tried := [_shortened(_first_sentence(each), _SHORT) for each in answers[-_TRIED:]]:
        parts.append(f"Tried: {' / '.join(dict.fromkeys(tried))}")
    return "\n".join(parts)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]


def _shortened(text: str, limit: int) -> str:
    """On one line, cut between words."""
    words = " ".join(text.split())
    return words if len(words) <= limit else f"{words[:limit].rsplit(' ', 1)[0]} …"


def _one(connection: sqlite3.Connection, number: int) -> Ticket:
    row = connection.execute("SELECT * FROM ticket WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise NoTicketError(f"ticket {number}: does not exist", "list the tickets there are")
    return _ticket(row)


def _ticket(row: sqlite3.Row) -> Ticket:
    return Ticket(**{**dict(row), "transcript": read_turns(row["transcript"])})
