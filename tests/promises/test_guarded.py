"""Strangers against a server: what they send slowly, too large or by another name, and what of it is told to nobody."""

from __future__ import annotations

import hmac
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from fastapi.routing import APIRoute

from metier.assistant.feedback import Feedback
from metier.assistant.tickets import Tickets
from metier.inference.voices import Limits, Voices
from metier.run import Run
from metier.web import app as application
from metier.web import chat, protocol
from metier.web.care import Care
from metier.web.desk import Desk
from metier.web.guard import Guard, Rules
from metier.web.jobs import Jobs
from metier.web.keys import Keys, new_key
from tests.promises import serving

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CANARY = "kanarienvogel"


@pytest.fixture(scope="module")
def desk(served_runs: dict[str, Run]) -> Desk:
    voices = Voices(Limits(sequences=4, waiting=16), offline=True)
    voices.add(served_runs["shown"], "shown")
    return Desk(voices)


@pytest.fixture
def url(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.4)
    with serving.served(desk, tmp_path, seconds=0.4, body=5000) as url:
        yield url


def sent(url: str, *pieces: bytes, pause: float = 0.1) -> tuple[bytes, float]:
    """What is answered to a request that comes in pieces until the connection ends, and after how long."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as connection:
        answer = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            while more := connection.recv(65536):
                answer += more
        return answer, time.monotonic() - begun


def test_who_says_nothing_or_a_letter_at_a_time_is_not_kept(url: str) -> None:
    for pieces in ((b"",), (HEAD[:20],), tuple(bytes([each]) for each in HEAD[:20])):
        answer, seconds = sent(url, *pieces)
        assert answer == b""
        assert seconds < 3


def test_a_body_that_comes_slowly_is_not_waited_for(url: str) -> None:
    letters = (bytes([each]) for each in b'{"model": "base", "prompt": "x"}')
    answer, seconds = sent(url, HEAD + b"Content-Length: 32\r\n\r\n", *letters)
    assert answer.startswith(b"HTTP/1.1 408") or (not answer and seconds < 3)  # the answer may be lost with the pipe
    answer, seconds = sent(url, HEAD + b"Content-Length: 32\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()


def test_an_offer_of_http_2_is_passed_over_in_silence(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As Java's own client makes with every request."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    asked = {"model": "base", "prompt": "x"}
    with caplog.at_level("WARNING", "uvicorn.error"), requests.Session() as session:
        answers = [session.post(f"{url}/tokenize", json=asked, headers=offer, timeout=5) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 200]
    assert not caplog.messages


def test_an_answered_connection_is_not_kept_by_what_still_comes(url: str) -> None:
    refused = HEAD + b"Content-Length: 9999\r\n\r\n"
    answer, seconds = sent(url, refused, *[b"x"] * 20)
    assert answer.startswith(b"HTTP/1.1 413") or not answer
    assert seconds < 3


def test_what_is_too_large_or_malformed_is_refused(url: str) -> None:
    long = {"X-Long": "x" * 20_000}
    assert requests.get(f"{url}/health", headers=long, timeout=5).status_code == 431
    many = {f"X-{number}": "x" * 100 for number in range(300)}
    assert requests.get(f"{url}/health", headers=many, timeout=5).status_code in (400, 431)
    assert requests.post(f"{url}/v1/completions", data=b"x" * 5001, timeout=5).status_code == 413
    chunked = (b"x" * 1000 for _ in range(6))
    assert requests.post(f"{url}/v1/completions", data=chunked, timeout=5).status_code == 413
    for host in ("evil.example.org", "x@127.0.0.1", "127.0.0.1.evil.org", "", "localhost.evil.org:80"):
        assert requests.get(f"{url}/health", headers={"Host": host}, timeout=5).status_code == 400
    twice = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.org\r\n\r\n"
    smuggled = HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n"
    assert sent(url, twice)[0].startswith(b"HTTP/1.1 400")
    assert sent(url, smuggled)[0].count(b"HTTP/1.1 ") == 1


def routed(to: Any) -> Iterator[tuple[str, str]]:
    """Every way into an app, however its routers lie in each other."""
    for route in to.routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in route.methods)
        elif hasattr(route, "original_router"):
            yield from routed(route.original_router)


def test_every_way_in_wants_a_key(tmp_path: Path) -> None:
    key = new_key(tmp_path / "keys.json", "team", "user")
    care = Care(tickets=Tickets(tmp_path / "a.db"), feedback=Feedback(tmp_path / "a.db"))
    desk = Desk(Voices(offline=True), care=care)
    jobs = Jobs(tmp_path / "jobs", lambda *_: None, offline=True)
    made = application.make_app(desk, jobs, Rules(hosts=("127.0.0.1",)), Keys(), home=tmp_path)
    assert isinstance(made, Guard)
    ways = {*routed(made._app), ("GET", "/openapi.json")}
    assert {"/v1/chat/completions", "/metrics", "/v1/tickets", "/v1/files/{file_id}", "/health"} <= {p for _, p in ways}
    tricks = ["/page/../v1/models", "/health/../v1/models", "//v1/models", "/v1/models/", "/page/%2e%2e/v1/models"]
    with serving.served(desk, tmp_path, Keys.open(tmp_path / "keys.json")) as url, requests.Session() as session:
        ways = {
            (method, path) for method, path in ways if path not in ("/", "/health") and not path.startswith("/page/")
        }
        for method, path in [*sorted(ways), *(("GET", trick) for trick in tricks)]:
            request = requests.Request(method, url).prepare()
            request.url = url + path  # as it is, with all its dots
            assert session.send(request, timeout=5).status_code in ((401, 404) if path in tricks else (401,)), path
        assert session.get(f"{url}/health", timeout=5).status_code == 200
        assert session.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=5).ok


def test_a_key_is_compared_with_all_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [new_key(tmp_path / "keys.json", name, "user") for name in ("one", "two", "three")]
    known, seen = Keys.open(tmp_path / "keys.json"), []

    def compared(one: str, two: str) -> bool:
        seen.append((len(one), len(two)))
        return one == two

    monkeypatch.setattr(hmac, "compare_digest", compared)
    for key in (keys[0], keys[2], "wrong", "", None):
        seen.clear()
        known.caller(key)
        assert seen == [(64, 64)] * 3


def test_what_is_asked_and_said_stands_in_no_log(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": "shown/help", "messages": [{"role": "user", "content": f"how do I open the {CANARY}?"}]}
    faults = [{}, {"temperature": CANARY}, {"model": CANARY}, {"logit_bias": {CANARY: 1}}, {"stream": True}]
    for change in faults:
        requests.post(f"{url}/v1/chat/completions", json={**body, **change}, timeout=10)
    requests.post(f"{url}/v1/chat/completions", data=f"{{{CANARY}", timeout=5)
    requests.get(f"{url}/v1/models/{CANARY}", timeout=5)

    def broken(*_: Any) -> None:
        raise RuntimeError(f"what was asked: {CANARY}")

    monkeypatch.setattr(chat, "read", broken)
    answer = requests.post(f"{url}/v1/chat/completions", json=body, timeout=5)
    assert (answer.status_code, CANARY in answer.text) == (500, False)
    logged = "".join(f"{each.getMessage()}{each.exc_text}" for each in caplog.records)
    assert "a fault of metier's: RuntimeError" in logged
    assert "in broken" in logged
    assert CANARY not in logged + "".join(capfd.readouterr())
    assert logging.getLogger("metier").getEffectiveLevel() == logging.WARNING


def test_no_address_in_a_request_is_followed(url: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.2)
        there = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        parts: list[Any] = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": there}}]
        with client, pytest.raises(openai.BadRequestError, match="content"):
            client.chat.completions.create(model="shown/help", messages=[{"role": "user", "content": parts}])
        schema = {"$ref": there, "$schema": there, "$id": there}
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"model": "shown/help", "messages": [{"role": "user", "content": there}], "max_tokens": 4}
        for more in ({}, {"response_format": wanted}):
            requests.post(f"{url}/v1/chat/completions", json={**body, **more}, timeout=10)
        requests.post(f"{url}/v1/load_lora_adapter", json={"run": there}, timeout=5)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_run_that_is_not_there_is_told_as_it_was_asked_for(url: str) -> None:
    told = requests.post(f"{url}/v1/load_lora_adapter", json={"run": "runs/nope"}, timeout=5).json()["error"]
    assert "runs/nope: is no run" in told["message"]
    assert "runs/runs" not in told["message"]


@pytest.mark.slow
def test_no_native_code_is_fetched(tmp_path: Path) -> None:
    """Though the package is there that would."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("raise SystemExit('kernels are fetched')")
    (tmp_path / "kernels-0.12.0.dist-info").mkdir()
    (tmp_path / "kernels-0.12.0.dist-info" / "METADATA").write_text("Name: kernels\nVersion: 0.12.0\n")
    code = """
import sys
def heard(event, arguments):
    assert not event.startswith("socket.") or event == "socket.__new__", (event, arguments)
sys.addaudithook(heard)
import metier.inference.loaded, metier.training.loop, peft, bitsandbytes
from transformers.utils import is_kernels_available
import json; print(json.dumps(is_kernels_available()))
"""
    paths = [str(tmp_path), *(each for each in sys.path if each)]
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert json.loads(told.stdout) is False
    assert "kernels" not in told.stderr
