"""Conversations that people take over: a queue of tickets."""

from __future__ import annotations

import re
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
_TURN, _TALK = 20_000, 100_000  # characters that are kept of a turn, of all: masking a million takes two seconds
_EDGE = 64  # characters at a cut, where a number may be that is no more known for one
_TRIED = 3


@dataclass(frozen=True)
class Ticket:
    """One conversation in the queue; times are UTC, ISO 8601, "" where it has not come to that."""

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


class Tickets:
    """The queue in an SQLite file; texts are masked before they are kept. May be shared between threads."""

    def __init__(self, path: Path, masking: Masking = masked) -> None:
        self._store = Store.open(path, masking)

    def open(self, transcript: Sequence[Turn], domain: str, mood: Mood, earlier: int = 0) -> Ticket:
        """Put a conversation, or the latest of a long one, at the end of the queue.

        Where the `earlier` ticket, one that is not closed, holds its beginning, that one goes on with it instead.
        """
        written = self._store.written(self._kept(transcript))
        turns = read_turns(written)
        summary = summarise(turns)  # of what is masked: half of a number is not known for one
        row = (domain, mood.kind, self._store.masking(mood.why), summary, written)
        with self._store.connected() as connection:
            if _goes_on(connection, earlier, turns):
                sql = "UPDATE ticket SET domain = ?, mood = ?, why = ?, summary = ?, transcript = ? WHERE id = ?"
                connection.execute(sql, (*row, earlier))
                return _one(connection, earlier)
            columns = "domain, mood, why, summary, transcript, opened, state"
            sql = f"INSERT INTO ticket ({columns}) VALUES (?, ?, ?, ?, ?, ?, 'open')"
            number = connection.execute(sql, (*row, utc_now())).lastrowid
            return _one(connection, int(number or 0))

    def _kept(self, transcript: Sequence[Turn]) -> list[Turn]:
        """The latest turns, each but its beginning where it is too long, and how many are left out."""
        kept, left = list[Turn](), _TALK
        for turn in reversed(transcript):
            if left < len(turn.content) and kept:
                break
            kept.append(self._cut(turn))
            left -= len(kept[-1].content)
        more = len(transcript) - len(kept)
        return [*([Turn("system", f"[… {more} earlier turns are left out]")] if more else []), *reversed(kept)]

    def _cut(self, turn: Turn) -> Turn:
        if len(turn.content) <= _TURN:
            return turn
        return Turn(turn.role, f"{self._store.masking(turn.content[:_TURN])[:-_EDGE]} […]")

    def listed(self, state: State | None = None) -> list[Ticket]:
        """The oldest first; all, or those in one state."""
        with self._store.connected() as connection:
            rows = connection.execute("SELECT * FROM ticket WHERE ? IN (state, '') ORDER BY id", (state or "",))
            return [_ticket(row) for row in rows]

    def one(self, number: int) -> Ticket:
        """Raises `MetierError` where there is no such ticket."""
        with self._store.connected() as connection:
            return _one(connection, number)

    def take(self, number: int, by: str) -> Ticket:
        """For one person: of two who take it at once, one gets a `MetierError` that names the other."""
        return self._move(number, ("open",), "taken", {"taken": utc_now(), "taken_by": by})

    def close(self, number: int, note: str = "") -> Ticket:
        """Done with, taken or not. Raises `MetierError` where it is closed already."""
        note = self._store.masking(note)
        return self._move(number, ("open", "taken"), "closed", {"closed": utc_now(), "note": note})

    def _move(self, number: int, of: tuple[State, ...], to: State, values: dict[str, str]) -> Ticket:
        with self._store.connected() as connection:
            ticket = _one(connection, number)
            if ticket.state not in of:
                whose = f" by {ticket.taken_by}" if ticket.state == "taken" else ""
                raise MetierError(f"ticket {number}: is {ticket.state} already{whose}", "choose another one")
            columns = ", ".join(f"{name} = ?" for name in values)
            sql = f"UPDATE ticket SET state = ?, {columns} WHERE id = ?"
            connection.execute(sql, (to, *values.values(), number))
            return _one(connection, number)


def summarise(transcript: Sequence[Turn]) -> str:
    """What was asked first and last, and what the answers began with: their own words, shortened."""
    asked = [turn.content for turn in transcript if turn.role == "user" and turn.content.strip()]
    answers = [turn.content for turn in transcript if turn.role == "assistant" and turn.content.strip()]
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
        raise MetierError(f"ticket {number}: does not exist", "list the tickets there are")
    return _ticket(row)


def _goes_on(connection: sqlite3.Connection, number: int, turns: Sequence[Turn]) -> bool:
    """Whether a ticket waits whose conversation is the beginning of this one: whoever guesses a number has no part."""
    row = connection.execute("SELECT * FROM ticket WHERE id = ? AND state != 'closed'", (number,)).fetchone()
    held = _ticket(row).transcript if row else ()
    return bool(held) and held == tuple(turns[: len(held)])


def _ticket(row: sqlite3.Row) -> Ticket:
    return Ticket(**{**dict(row), "transcript": read_turns(row["transcript"])})
