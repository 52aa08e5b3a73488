from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from metier.assistant.mood import Mood
from metier.assistant.rules import Rules, read_rules
from metier.assistant.store import Turn
from metier.assistant.tickets import Ticket, Tickets
from metier.errors import DataError
from metier.web.webhook import Webhook


@dataclass
class Desk:
    """Somebody else's server: the statuses that it answers with, the last one again and again, and what it heard."""

    statuses: list[int]
    stalls: float = 0.0
    heard: list[tuple[str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def desk() -> Iterator[Desk]:
    told = Desk([200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.heard.append((self.path, json.loads(body)))
            time.sleep(told.stalls)
            self.send_response(told.statuses.pop(0) if len(told.statuses) > 1 else told.statuses[0])
            self.send_header("Location", f"{told.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def ticket(tmp_path: Path) -> Ticket:
    turns = [Turn("user", "my mail is jo@mail.org, get me a person")]
    return Tickets(tmp_path / "assistant.db").open(turns, "banking", Mood("person", "asked"))


def after(condition: Any) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_ticket_is_posted_as_it_lies_in_the_database(desk: Desk, ticket: Ticket) -> None:
    Webhook(f"{desk.url}/tickets").post(ticket)
    after(lambda: desk.heard)
    ((path, told),) = desk.heard
    assert path == "/tickets"
    assert (told["object"], told["id"], told["domain"], told["mood"]) == ("ticket", ticket.id, "banking", "person")
    assert "jo@mail.org" not in json.dumps(told)


def test_what_may_be_better_in_a_moment_is_tried_again(desk: Desk, ticket: Ticket) -> None:
    desk.statuses = [503, 429, 200]
    Webhook(desk.url, pause=0.01).post(ticket)
    after(lambda: len(desk.heard) == 3)


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (404, 1), (302, 1), (307, 1)])
def test_it_gives_up_and_says_so_without_the_text(
    desk: Desk, ticket: Ticket, status: int, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk.statuses = [status]
    with caplog.at_level(logging.WARNING, "metier"):
        Webhook(f"{desk.url}/services/secret", pause=0.01).post(ticket)
        after(lambda: caplog.messages)
    assert caplog.messages == [f"ticket {ticket.id} was not posted: 127.0.0.1 answered {status}"]
    assert [path for path, _ in desk.heard] == ["/services/secret"] * tries  # and nobody was followed elsewhere


def test_who_does_not_answer_is_left_and_nobody_waits(
    desk: Desk, ticket: Ticket, caplog: pytest.LogCaptureFixture
) -> None:
    desk.stalls = 0.5
    webhook, begun = Webhook(desk.url, timeout=0.05, tries=1), time.monotonic()
    for _ in range(300):
        webhook.post(ticket)
    assert time.monotonic() - begun < 0.4
    assert any("wait already" in message for message in caplog.messages)
    after(lambda: any("timed out" in message for message in caplog.messages))


def test_an_answer_that_is_no_http_stops_nothing(ticket: Ticket, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, caplog.at_level(logging.WARNING, "metier"):
        webhook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", tries=1)
        for count in (1, 2):
            webhook.post(ticket)
            server.settimeout(5)
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example.org ESMTP\r\n\r\n")
            after(lambda count=count: caplog.text.count("BadStatusLine") == count)
    assert "ESMTP" not in caplog.text


def test_its_address_is_told_to_nobody(ticket: Ticket, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "metier"):
        Webhook("http://localhost:9/services/secret", tries=1).post(ticket)
        after(lambda: "localhost" in caplog.text)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org", "example.org", "https://", "file:///etc"])
def test_an_address_that_is_not_safe_is_a_fault(url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'webhook = "{url}"')
    with pytest.raises(DataError, match="is no address that is safe to post to"):
        read_rules(Rules, "safety.toml", tmp_path / "mine.toml")


@pytest.mark.parametrize("url", ["", "https://example.org/x?y=1", "http://localhost:9/x"])
def test_a_safe_one_is_taken(url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'webhook = "{url}"')
    assert read_rules(Rules, "safety.toml", tmp_path / "mine.toml").webhook == url
