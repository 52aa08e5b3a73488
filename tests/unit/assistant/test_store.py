from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from metier.assistant import store
from metier.assistant.store import Store, UnkeptError


def test_what_cannot_be_kept_is_told_and_nothing_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another writer does not end, as where the disk is full."""
    kept = Store.open(tmp_path / "assistant.db")
    monkeypatch.setattr(store, "_WAIT", 0.0)
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnkeptError, match="database is locked"), kept.connected():
            pytest.fail("no transaction was begun")

    def fill() -> None:
        with kept.connected() as connection:
            connection.execute("CREATE TABLE first (text)")
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            connection.execute("INSERT INTO first VALUES (?)", ("x" * 100_000,))

    with pytest.raises(UnkeptError, match="disk is full"):
        fill()
    with kept.connected() as connection:
        assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'first'").fetchall()


def test_a_mistake_of_ours_is_no_full_disk(tmp_path: Path) -> None:
    kept = Store.open(tmp_path / "assistant.db")
    with pytest.raises(sqlite3.OperationalError, match="no such table"), kept.connected() as connection:
        connection.execute("SELECT * FROM nowhere")
