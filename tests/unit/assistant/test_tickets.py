from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from metier.assistant.mood import Mood
from metier.assistant.store import Turn
from metier.assistant.tickets import Ticket, Tickets, Told, summarise
from metier.errors import MetierError

TALK = [
    Turn("system", "You help."),
    Turn("user", "My refund is missing, I am jo@mail.org"),
    Turn("assistant", "Please look under Orders. It shows the date."),
    Turn("user", "That does not help. Where is it?"),
]
MOOD = Mood("unhelped", 'said "does/did not .. help"')


@pytest.fixture
def tickets(tmp_path: Path) -> Tickets:
    return Tickets(tmp_path / "assistant.db")


def test_a_ticket_goes_from_open_to_taken_to_closed(tickets: Tickets) -> None:
    ticket = tickets.open(TALK, "retail", MOOD)
    assert (ticket.state, ticket.domain, ticket.mood, ticket.why) == ("open", "retail", "unhelped", MOOD.why)
    assert ticket.transcript[1] == Turn("user", "My refund is missing, I am [e-mail address]")
    assert datetime.fromisoformat(ticket.opened).utcoffset() == timedelta(0)
    taken = tickets.take(ticket.id, "Ann")
    assert (taken.state, taken.taken_by) == ("taken", "Ann")
    closed = tickets.close(ticket.id, "told jo@mail.org")
    assert (closed.state, closed.note, closed.taken_by) == ("closed", "told [e-mail address]", "Ann")
    assert tickets.one(ticket.id) == closed
    assert closed.taken
    assert closed.closed


def going_on(talk: list[Turn], ticket: Ticket) -> tuple[list[Turn], Told]:
    more = [*talk, Turn("assistant", "Handed over."), Turn("user", "Hello?? jo@mail.org is waiting")]
    return more, Told(ticket.id, ticket.code, len(talk))


def test_a_conversation_that_goes_on_keeps_its_ticket(tickets: Tickets) -> None:
    first = tickets.open(TALK, "retail", MOOD)
    tickets.take(first.id, "Ann")
    more, told = going_on(TALK, first)
    again = tickets.open(more, "retail", Mood("upset", "said it"), told)
    assert (again.id, again.opened, again.taken_by) == (first.id, first.opened, "Ann")
    assert (again.mood, again.transcript[-1].content) == ("upset", "Hello?? [e-mail address] is waiting")
    assert "Asked last: Hello??" in again.summary
    assert tickets.listed() == [again]


def test_no_other_conversation_gets_into_a_ticket(tickets: Tickets) -> None:
    """By a number, a guessed code, another beginning, or once it is closed."""
    first = tickets.open(TALK, "retail", MOOD)
    more, told = going_on(TALK, first)
    other = [Turn("user", "other words"), *more[1:]]
    tried = [(more, None), (more, replace(told, code="0" * 8)), (more, replace(told, code="")), (other, told)]
    tried += [(more, replace(told, id=99)), (more, replace(told, turns=2)), (more, replace(told, turns=len(more)))]
    numbers = [tickets.open(talk, "retail", MOOD, each).id for talk, each in tried]
    tickets.close(first.id)
    numbers.append(tickets.open(more, "retail", MOOD, told).id)
    assert len({first.id, *numbers}) == 9
    assert tickets.one(first.id).transcript == first.transcript


def test_a_long_conversation_is_kept_by_its_end_and_keeps_its_ticket(tickets: Tickets) -> None:
    """Masking takes time by length, in which others wait."""
    talk = [Turn("user", f"{number} " + "word " * 1000) for number in range(1000)]
    ticket = tickets.open(talk, "retail", MOOD)
    left, *kept = ticket.transcript
    assert left == Turn("system", f"[… {1000 - len(kept)} earlier turns are left out]")
    assert kept == talk[-len(kept) :]
    assert 80_000 < sum(len(turn.content) for turn in kept) <= 100_000
    more, told = going_on(talk, ticket)
    assert tickets.open(more, "retail", MOOD, told).id == ticket.id


@pytest.mark.parametrize("digits", range(9_940, 10_000, 7))
def test_a_long_turn_loses_its_middle_and_no_secret_is_cut(tickets: Tickets, digits: int) -> None:
    number = " 4111 1111 1111 1111 "
    said = "w" * digits + number + "word " * 100_000 + number + "z" * digits
    talk = [Turn("user", "my router blinks"), Turn("user", said), Turn("user", "please help")]
    first, long, last = tickets.open(talk, "retail", MOOD).transcript
    assert (first, last) == (talk[0], talk[2])
    assert " […] " in long.content
    assert long.content.startswith("ww")
    assert long.content.endswith("zz")
    assert "11" not in long.content
    assert 19_000 < len(long.content) < 20_010


def test_a_summary_ends_in_the_middle_of_no_secret(tickets: Tickets) -> None:
    number = "4111 1111 1111 1111"
    before = "Please look. " + "word " * 44  # so that the number is cut where a summary ends
    summary = tickets.open([Turn("user", before + number)], "retail", MOOD).summary
    assert "411" not in summary
    assert "111" not in summary


def test_what_is_not_possible_is_refused(tickets: Tickets) -> None:
    number = tickets.open(TALK, "retail", MOOD).id
    tickets.take(number, "Ann")
    with pytest.raises(MetierError, match="taken already by Ann"):
        tickets.take(number, "Bob")
    tickets.close(number)
    with pytest.raises(MetierError, match="closed already"):
        tickets.close(number)
    with pytest.raises(MetierError, match="does not exist"):
        tickets.one(99)


def test_they_are_listed_by_state_the_oldest_first(tickets: Tickets) -> None:
    first, second, third = (tickets.open(TALK, "retail", MOOD).id for _ in range(3))
    tickets.take(second, "Ann")
    assert [each.id for each in tickets.listed()] == [first, second, third]
    assert [each.id for each in tickets.listed("open")] == [first, third]
    assert [each.id for each in tickets.listed("taken")] == [second]


def test_of_many_who_take_it_at_once_one_gets_it(tickets: Tickets) -> None:
    def take(name: int) -> bool:
        try:
            tickets.take(1, str(name))
        except MetierError:
            return False
        return True

    tickets.open(TALK, "retail", MOOD)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(24))) == 1
        opened = [*pool.map(lambda _: tickets.open(TALK, "retail", MOOD).id, range(24))]
    assert sorted(opened) == [*range(2, 26)]


def test_it_is_kept_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "assistant.db"
    Tickets(path).open(TALK, "retail", MOOD)
    assert len(Tickets(path).listed()) == 1
    assert path.stat().st_mode & 0o077 == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert b"jo@mail.org" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    connection.close()


def test_another_program_s_file_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all, but a text of some length" * 40)
    with pytest.raises(MetierError, match=r"is no assistant's database"):
        Tickets(tmp_path / "notes.txt")
    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(MetierError, match="has schema 7"):
        Tickets(newer)


def test_a_summary_says_what_was_asked_and_tried_in_their_words() -> None:
    assert summarise(TALK) == (
        "Asked first: My refund is missing, I am jo@mail.org\n"
        "Asked last: That does not help. Where is it?\n"
        "Tried: Please look under Orders."
    )
    assert summarise([Turn("user", "Hi  there\nyou")]) == "Asked: Hi there you"
    assert summarise([]) == "Nothing was asked."
    assert max(map(len, summarise([Turn("user", "word " * 200)]).splitlines())) < 260
