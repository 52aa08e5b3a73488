"""The largest bodies that may be sent: each is answered or refused at once, and nobody else waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from metier.assistant.tickets import Tickets
from metier.inference.voices import Limits, Voices
from metier.run import Run
from metier.web.care import Care
from metier.web.desk import Desk
from tests import opened
from tests.promises import serving

SECONDS = 2.0
LONG = "no chest pain, " * 60_000
CHAT = "chat/completions"
EMERGENCY = {"model": "small/help", "messages": [{"role": "user", "content": "my dad is not breathing"}]}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"in": schema}, "required": ["in"]}
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def wide(count: int) -> dict[str, Any]:
    schema = {"type": "object", "properties": {f"key{n}": {"enum": [f"a{n}", f"b{n}"]} for n in range(count)}}
    return {"type": "json_schema", "json_schema": {"schema": schema}}


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "a long message": (CHAT, {"messages": [user(LONG)]}),
    "a long message of parts": (CHAT, {"messages": [user([{"type": "text", "text": "word " * 200}] * 1000)]}),
    "many messages": (CHAT, {"messages": [user(f"{n} " + "word " * 1000) for n in range(1000)]}),
    "long stop strings": (CHAT, {"messages": [user("how?")], "stop": ["x" * 1000] * 16}),
    "longer stop strings": (CHAT, {"messages": [user("how?")], "stop": ["x" * 1_000_000] * 8}),
    "a deep schema": (CHAT, {"messages": [user("how?")], "response_format": deep(200)}),
    "a wide schema": (CHAT, {"messages": [user("how?")], "response_format": wide(20_000)}),
    "a long prompt": ("completions", {"prompt": LONG}),
    "many prompts": ("completions", {"prompt": ["word " * 10_000] * 256}),
    "many ids": ("completions", {"prompt": [5] * 100_000}),
}


@pytest.fixture(scope="module")
def url(served_runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, safety = tmp_path_factory.mktemp("cheap"), opened.safety()
    voices = Voices(Limits(sequences=4, waiting=16), offline=True)
    voices.add(served_runs["small"], "small")
    care = Care(safety, opened.moods(), Tickets(home / "assistant.db", safety.masked))
    with serving.served(Desk(voices, care=care), home) as url:
        yield url


def timed(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[requests.Response, float]:
    begun = time.monotonic()
    answer = requests.post(f"{url}/v1/{path}", json=body, timeout=60) if body else requests.get(url + path, timeout=60)
    return answer, time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("name", BODIES)
def test_the_largest_bodies_hold_up_nobody(url: str, name: str) -> None:
    path, body = BODIES[name]
    heard: list[tuple[requests.Response, float]] = []
    asking = {"model": "small/help", "max_tokens": 1, **body}
    large = threading.Thread(target=lambda: heard.append(timed(url, path, asking)))
    large.start()
    others = []
    while large.is_alive():
        others += [timed(url, "/health"), timed(url, CHAT, EMERGENCY)]
        assert others[-1][0].json()["metier"]["safety"]["kind"] == "emergency"
    answer, seconds = heard[0]
    assert answer.status_code in (200, 400), answer.text
    assert max(seconds, *(each for _, each in others)) < SECONDS
