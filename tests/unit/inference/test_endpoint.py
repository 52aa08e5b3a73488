"""An endpoint that fails in every way is asked as often as it takes, and every reply is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from metier.errors import RunError
from metier.inference import endpoint as module
from metier.inference.endpoint import Endpoint, read_key
from metier.inference.journal import Journal, Reply, Request
from tests.chat_server import ChatServer, Fault, completion


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(module, "WAIT", 0.01)
    made = ChatServer(lambda body: f"to {body['messages'][-1]['content']}")
    yield made
    made.close()


def requests(endpoint: Endpoint, count: int = 1) -> list[Request]:
    return [endpoint.request([{"role": "user", "content": str(number)}], 8) for number in range(count)]


def ask(server: ChatServer, tmp_path: Path, count: int = 1, **how: object) -> list[Reply]:
    endpoint, journal = Endpoint(server.url, "m", **how), Journal(tmp_path / "journal.jsonl")  # type: ignore[arg-type]
    endpoint.ask(asked := requests(endpoint, count), journal, lambda done: None)
    return [journal.reply(request) for request in asked]


def test_a_reply_is_text_end_tokens_and_time(server: ChatServer, tmp_path: Path) -> None:
    server.pause = 0.05
    (reply,) = ask(server, tmp_path)
    assert (reply.status, reply.text, reply.finish_reason) == (200, "to 0", "stop")
    assert (reply.tokens_in, reply.tokens_out, reply.attempts, reply.failed) == (20, 5, 1, "")
    assert 0.05 <= reply.seconds < 2
    (body,) = server.bodies
    assert {name: body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "m",
        "temperature": 0,
        "max_tokens": 8,
    }


@pytest.mark.parametrize(
    "fault",
    [
        (429, {}, b"{}"),
        (500, {}, b"oops"),
        (503, {}, b"{}"),
        (200, {}, b"{broken"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": null}]}'),
        (200, {}, b"[]"),
    ],
)
def test_what_passes_is_asked_again(server: ChatServer, tmp_path: Path, fault: Fault) -> None:
    server.faults = [fault, fault]
    (reply,) = ask(server, tmp_path)
    assert (reply.text, reply.attempts, len(server.bodies)) == ("to 0", 3, 3)


def test_what_does_not_pass_fails_with_its_reason(server: ChatServer, tmp_path: Path) -> None:
    long = json.dumps({"error": {"message": "too many\ntokens", "code": "context_length_exceeded"}}).encode()
    server.faults = [(400, {}, long), *[(500, {}, b"oops")] * module.ATTEMPTS]
    first, second, third = ask(server, tmp_path, 3, concurrency=1)
    assert (first.status, first.attempts) == (400, 1)
    assert first.failed.startswith("400: ")
    assert "too many tokens" in first.failed
    assert (second.status, second.attempts) == (500, module.ATTEMPTS)
    assert third.text == "to 2"


def test_retry_after_is_honoured(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [(429, {"Retry-After": "0.4"}, b"{}")]
    ask(server, tmp_path)
    assert 0.4 <= server.at[1] - server.at[0] < 2
    assert module._retry_after("7") == 7
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < module._retry_after(date) <= 30
    assert [module._retry_after(value) for value in (None, "soon", "-3", "1e9")] == [0, 0, 0, 900]


def test_a_slow_answer_is_asked_again(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ", 0.05)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    server.pause = 0.3
    (reply,) = ask(server, tmp_path)
    assert (reply.status, reply.failed, reply.attempts) == (408, "no answer within 0.05 seconds", 2)


def test_nobody_there_is_told_once(server: ChatServer, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(RunError, match="cannot be reached") as caught:
        ask(server, tmp_path, 4)
    assert "url and model" in caught.value.hint
    assert not (tmp_path / "journal.jsonl").exists()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_told_once(server: ChatServer, tmp_path: Path, status: int) -> None:
    server.faults = [(status, {}, b'{"error": {"message": "no such model"}}')] * 9
    with pytest.raises(RunError, match=f"m at {server.url}: {status}: .*no such model"):
        ask(server, tmp_path, 9)
    assert len(server.bodies) == 1


def test_a_used_up_account_stops_at_once(server: ChatServer, tmp_path: Path) -> None:
    told = json.dumps({"error": {"message": "pay", "code": "insufficient_quota"}}).encode()
    server.faults = [(200, {}, completion("fine")), (429, {}, told)]
    with pytest.raises(RunError, match="429: "):
        ask(server, tmp_path, 5, concurrency=1)
    assert len(server.bodies) == 2
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 1


def test_an_endpoint_that_answers_nothing_is_left(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [(400, {}, b'{"error": {"message": "max_tokens is unsupported"}}')] * 99
    with pytest.raises(RunError, match="max_tokens is unsupported"):
        ask(server, tmp_path, 50, concurrency=1)
    assert len(server.bodies) == 8


def test_a_key_is_sent_and_told_nobody(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "wrong-secret")
    server.wanted = "right-secret"
    with pytest.raises(RunError) as caught:
        ask(server, tmp_path, api_key_env="SOME_KEY")
    assert "secret" not in str(caught.value) + caught.value.hint
    assert "***" in str(caught.value)
    monkeypatch.setenv("SOME_KEY", "right-secret")
    ask(server, tmp_path, api_key_env="SOME_KEY")
    assert server.keys == ["wrong-secret", "right-secret"]
    assert "secret" not in (tmp_path / "journal.jsonl").read_text()


def test_no_key_is_taken_that_nobody_named(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another-service")
    ask(server, tmp_path)
    assert server.keys == ["none"]
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(RunError, match="SOME_KEY is not set"):
        read_key("SOME_KEY")


def test_a_missing_client_is_named(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RunError, match="needs the openai package") as caught:
        ask(server, tmp_path)
    assert caught.value.hint == "pip install 'metier[endpoint]'"


def test_as_many_are_asked_at_once_as_is_said(server: ChatServer, tmp_path: Path) -> None:
    together, most, lock = [0], [0], threading.Lock()

    def says(body: object) -> str:
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        threading.Event().wait(0.03)
        with lock:
            together[0] -= 1
        return "fine"

    server.says = says
    assert len(ask(server, tmp_path, 10, concurrency=3)) == 10
    assert most[0] == 3


def test_whoever_stops_keeps_what_came(server: ChatServer, tmp_path: Path) -> None:
    endpoint, journal = Endpoint(server.url, "m", concurrency=2), Journal(tmp_path / "journal.jsonl")

    def stop(done: int) -> None:
        if done == 3:
            raise RunError("stopped")

    with pytest.raises(RunError, match="stopped"):
        endpoint.ask(requests(endpoint, 20), journal, stop)
    kept = Journal(journal.path)
    found = [kept.find(request) for request in requests(endpoint, 20)]
    assert len(server.bodies) == sum(reply is not None for reply in found) < 20


_ASK = """
import sys
from pathlib import Path
from metier.inference.endpoint import Endpoint
from metier.inference.journal import Journal
endpoint = Endpoint(sys.argv[1], "m", concurrency=2)
asked = [endpoint.request([{"role": "user", "content": str(number)}], 8) for number in range(40)]
endpoint.ask(asked, Journal(Path(sys.argv[2])), lambda done: None)
"""


def test_whoever_is_killed_keeps_what_came(server: ChatServer, tmp_path: Path) -> None:
    server.pause = 0.03
    command = [sys.executable, "-c", _ASK, server.url, str(tmp_path / "journal.jsonl")]
    with subprocess.Popen(command, env={**os.environ, "NO_PROXY": "127.0.0.1"}) as child:
        while len(server.bodies) < 8 and child.poll() is None:
            time.sleep(0.01)
        child.kill()
    journal = Journal(tmp_path / "journal.jsonl")
    found = [reply for each in requests(Endpoint(server.url, "m"), 40) if (reply := journal.find(each))]
    assert len(server.bodies) - 2 <= len(found) < 40  # but what was on its way
    assert {reply.text for reply in found} <= {f"to {number}" for number in range(40)}


def test_a_torn_line_is_asked_again_and_another_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal, (first, second) = Journal(path), requests(Endpoint("http://x/v1", "m"), 2)
    journal.write(first, Reply(200, "one\u2028line"))
    with path.open("ab") as file:
        file.write(b'{"key": "half')
    again = Journal(path)
    assert again.find(first) == Reply(200, "one\u2028line")
    again.write(second, Reply(200, "two"))
    assert [Journal(path).reply(each).text for each in (first, second)] == ["one\u2028line", "two"]
    again.write(second, Reply(200, "three"))
    assert Journal(path).reply(second).text == "three"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(RunError, match=r"journal.jsonl:1: is no reply"):
        Journal(path)
