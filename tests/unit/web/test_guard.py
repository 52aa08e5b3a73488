from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from metier.errors import MetierError
from metier.web.guard import Guard, Rules
from metier.web.keys import Keys, new_key
from metier.web.serve import Address, assert_safe

RULES = Rules(hosts=("localhost",), origins=("https://help.example.com",), body=100, seconds=0.2, at_once=2)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the caller's name and the body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = json.dumps({"caller": scope["state"]["caller"].name, "body": body.decode()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})


def guard(keys: Keys | None = None, app: Any = echo) -> Guard:
    return Guard(app, RULES, keys or Keys())


async def ask(
    to: Guard, path: str = "/v1/models", method: str = "POST", body: Receive | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of the answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def empty() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    named = {"host": "localhost:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    await to(scope, body or empty, send)
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(text) if text else None, told


def run(made: Callable[[], Any]) -> Any:
    return asyncio.run(made())


def test_a_stranger_s_host_is_refused() -> None:
    assert run(lambda: ask(guard()))[0] == 200
    status, told, _ = run(lambda: ask(guard(), host="evil.example.org"))
    assert status == 400
    assert "is not called 'evil.example.org'" in told["error"]["message"]


def test_what_is_too_long_is_refused_announced_or_not() -> None:
    async def endless() -> Message:
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    assert run(lambda: ask(guard(), content_length="101"))[0] == 413
    assert run(lambda: ask(guard(), content_length="-1"))[0] == 413
    assert run(lambda: ask(guard(), body=endless))[0] == 413


def test_who_sends_too_slowly_is_not_waited_for() -> None:
    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    status, told, _ = run(lambda: ask(guard(), body=never))
    assert status == 408
    assert "longer than 0.2 s" in told["error"]["message"]


def test_only_an_exact_origin_is_told_that_it_may_read() -> None:
    _, _, told = run(lambda: ask(guard(), origin="https://help.example.com"))
    assert told["access-control-allow-origin"] == "https://help.example.com"
    for origin in ("https://help.example.com.evil.org", "null", "https://evil.org"):
        _, _, told = run(lambda origin=origin: ask(guard(), origin=origin))
        assert "access-control-allow-origin" not in told
    status, _, told = run(lambda: ask(guard(), method="OPTIONS", origin="https://help.example.com"))
    assert (status, "authorization" in told["access-control-allow-headers"].lower()) == (204, True)


def test_a_page_that_may_ask_may_send_the_headers_it_asks_for() -> None:
    wanted = {"access_control_request_headers": "authorization,x-stainless-os"}
    status, _, told = run(lambda: ask(guard(), method="OPTIONS", origin="https://help.example.com", **wanted))
    assert (status, told["access-control-allow-headers"]) == (204, "authorization,x-stainless-os")
    assert "Access-Control-Request-Headers" in told["vary"]
    _, _, told = run(lambda: ask(guard(), method="OPTIONS", origin="https://evil.example", **wanted))
    assert "access-control-allow-headers" not in told


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "http://localhost:8000", 200),
        ("POST", "https://help.example.com", 200),
        ("POST", "https://evil.example", 403),
        ("POST", "null", 403),
        ("POST", "https://localhost:8000", 403),
        ("POST", "http://localhost:3000", 403),
        ("DELETE", "https://evil.example", 403),
        ("GET", "https://evil.example", 200),  # no page there may read it
    ],
)
def test_no_page_elsewhere_writes(method: str, origin: str, status: int) -> None:
    answered, told, _ = run(lambda: ask(guard(), method=method, origin=origin))
    assert answered == status
    assert status == 200 or told["error"]["type"] == "permission_error"


def test_every_answer_forbids_what_a_page_has_no_need_of() -> None:
    for headers in ({}, {"host": "evil.org"}):
        _, _, told = run(lambda headers=headers: ask(guard(), **headers))
        assert "default-src 'none'" in told["content-security-policy"]
        assert told["x-content-type-options"] == "nosniff"


def test_a_key_is_known_by_its_hash_and_has_a_role(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    member, boss = new_key(path, "team", "user"), new_key(path, "boss", "admin")
    assert member not in path.read_text()
    keys = Keys.open(path)
    assert [getattr(keys.caller(key), "role", None) for key in (member, boss, member[:-1], "", None)] == [
        "user",
        "admin",
        None,
        None,
        None,
    ]
    with pytest.raises(MetierError, match="has a key already"):
        new_key(path, "team", "user")
    for given, status in ((f"Bearer {member}", 200), (f"bearer {boss}", 200), ("Bearer x", 401), (member, 401)):
        assert run(lambda given=given: ask(guard(keys), authorization=given))[0] == status
    assert run(lambda: ask(guard(keys)))[0] == 401
    assert run(lambda: ask(guard(keys), "/health"))[0] == 200
    assert run(lambda: ask(guard(keys), "/healthy"))[0] == 401


def test_whoever_has_a_wrong_key_is_told_another_thing_than_who_has_none(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.json", "team", "user")
    to = guard(Keys.open(tmp_path / "keys.json"))
    for headers, said in (
        ({"authorization": "Bearer x"}, "this key is not known; metier serve --new-key NAME makes one"),
        ({"authorization": "Bearer "}, "a key is needed: send Authorization: Bearer KEY"),
        ({}, "a key is needed: send Authorization: Bearer KEY"),
    ):
        status, told, sent = run(lambda headers=headers: ask(to, **headers))
        assert (status, sent["www-authenticate"]) == (401, "Bearer")
        assert told["error"]["message"].startswith(said)


def test_a_broken_list_of_keys_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"team": 3}')
    with pytest.raises(MetierError, match="is no list of keys"):
        Keys.open(tmp_path / "keys.json")


def test_a_key_has_so_many_requests_at_once() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await echo(scope, receive, send)

    async def three() -> list[tuple[int, Any, dict[str, str]]]:
        to = guard(app=slow)
        return [*await asyncio.gather(*(ask(to) for _ in range(3))), await ask(to)]

    answers = run(three)
    assert sorted(status for status, *_ in answers) == [200, 200, 200, 429]
    (refused,) = [told for status, _, told in answers if status == 429]
    assert refused["retry-after"] == "1"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (Address("0.0.0.0"), "no key is known"),
        (Address("10.0.0.5"), "no key is known"),
        (
            Address(origins=("https://help.example.com",)),
            "no key is known",
        ),  # a proxy on this machine may let others in
        (Address(origins=("help.example.com",)), "is no origin"),
        (Address(origins=("https://help.example.com/page",)), "is no origin"),
    ],
)
def test_strangers_are_not_let_in_without_a_key(address: Address, told: str) -> None:
    with pytest.raises(MetierError, match=told):
        assert_safe(address, Keys())


def test_this_machine_needs_none() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert_safe(Address(host, origins=("http://localhost:3000",)), Keys())
    assert "help.example.com" in Address(origins=("https://help.example.com",)).names
