"""One SQLite file for what people do: tickets and feedback, safe from several threads and processes."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from metier.errors import MetierError
from metier.personal import masked

SCHEMA = 2
_WAIT = 5.0  # seconds for another writer
_UNKEPT = frozenset(
    {
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    }
)
_TABLES = """
CREATE TABLE ticket (
    id INTEGER PRIMARY KEY, opened TEXT NOT NULL, state TEXT NOT NULL, domain TEXT NOT NULL, mood TEXT NOT NULL,
    why TEXT NOT NULL, summary TEXT NOT NULL, transcript TEXT NOT NULL, taken TEXT NOT NULL DEFAULT '',
    taken_by TEXT NOT NULL DEFAULT '', closed TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT ''
);
CREATE INDEX ticket_by_state ON ticket (state, id);
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY, given TEXT NOT NULL, liked INTEGER NOT NULL, domain TEXT NOT NULL, run TEXT NOT NULL,
    adapter TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, correction TEXT NOT NULL DEFAULT ''
);
CREATE INDEX feedback_by_run ON feedback (run, id);
"""

_SINCE_1 = "ALTER TABLE ticket ADD COLUMN code TEXT NOT NULL DEFAULT ''"

Masking = Callable[[str], str]


class UnkeptError(MetierError):
    """It could not be written down: the disk is full or fails, or another writer does not end."""


@dataclass(frozen=True)
class Turn:
    """What one party said; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Store:
    """The file, made where it is absent, readable by its owner alone; every text passes `masking` on its way in.

    Each call has a connection of its own, so that one object may be shared. Raises `MetierError` where the file is
    another program's, or a newer metier's.
    """

    path: Path
    masking: Masking = masked

    @classmethod
    def open(cls, path: Path, masking: Masking = masked) -> Self:
        store = cls(path, masking)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            store._prepare()
        except sqlite3.DatabaseError as error:
            raise MetierError(f"{path}: is no assistant's database ({error})", "name another file") from None
        return store

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is kept, or nothing. Raises `UnkeptError` where the file cannot be written."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.commit()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _UNKEPT:
                raise
            raise UnkeptError(f"{self.path}: cannot be written ({error})", "see whether its disk has room") from error

    def written(self, turns: Sequence[Turn]) -> str:
        """Turns as their column holds them."""
        return json.dumps([[turn.role, self.masking(turn.content)] for turn in turns], ensure_ascii=False)

    def _prepare(self) -> None:
        with closing(sqlite3.connect(self.path, timeout=_WAIT)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        with self.connected() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA:
                problem = f"{self.path}: has schema {version}, this metier reads {SCHEMA}"
                raise MetierError(problem, "upgrade metier")
            for statement in [_SINCE_1] if version == 1 else _TABLES.split(";") if version == 0 else []:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")


def read_turns(written: str) -> tuple[Turn, ...]:
    return tuple(Turn(role, content) for role, content in json.loads(written))


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
