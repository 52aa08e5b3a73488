"""Clients that leave at every stage, while an adapter comes and goes: nothing is left of them, the rest is right."""

from __future__ import annotations

import gc
import json
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from metier.inference.voices import Limits, Voices
from metier.inference.worker import Worker
from metier.run import Run
from metier.web.desk import Desk
from tests.promises import serving

Asked = tuple[str, dict[str, Any]]
"""A path and a body."""

AT_ONCE = 24
QUESTION = [{"role": "user", "content": "how do I open the 7th box?"}]
LONG = [{"role": "user", "content": "how do I open the 7th box? " * 20}]
ON: dict[str, Any] = {"prompt": [5, 6, 7], "max_tokens": 100, "logit_bias": {"0": -100, "4": -100}}  # no turn ends
SCHEMA = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}

REQUESTS: dict[str, Asked] = {
    "tokens": ("completions", ON),
    "several": ("completions", {**ON, "n": 4, "temperature": 1}),
    "weighed": ("completions", {**ON, "prompt": [[5, 6, 7] * 60] * 8, "max_tokens": 0, "echo": True, "logprobs": 2}),
    "a long prompt": ("chat/completions", {"messages": LONG, "max_tokens": 3}),
    "several turns": ("chat/completions", {"messages": QUESTION, "n": 3, "max_tokens": 6, "temperature": 1}),
    "a label": ("chat/completions", {"domain": "mood", "messages": [{"role": "user", "content": "I am glad"}]}),
    "json": ("chat/completions", {"messages": QUESTION, "response_format": FORMAT, "max_tokens": 80}),
}
MODELS = ("small", "shown", "comes and goes", "base")


@pytest.fixture
def desk(served_runs: dict[str, Run]) -> Desk:
    voices = Voices(Limits(sequences=6, waiting=64), offline=True)
    for name, run in served_runs.items():
        voices.add(run, name)
    return Desk(voices)


@pytest.fixture
def url(desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    with serving.served(desk, tmp_path, at_once=AT_ONCE) as url:
        logging.getLogger("uvicorn").addHandler(caplog.handler)  # which passes nothing on to the root
        yield url
        logging.getLogger("uvicorn").removeHandler(caplog.handler)


def sent(asked: Asked, model: str, *, stream: bool) -> bytes:
    path, body = asked
    known = {**body, "model": model, "stream": stream}
    if model == "base":
        known.pop("domain", None)
    raw = json.dumps(known).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw


def leave(port: int, chance: random.Random) -> None:
    """Ask something, and be gone: in the head, in the body, at once, a little later, or with so much of the answer."""
    raw = sent(chance.choice([*REQUESTS.values()]), chance.choice(MODELS), stream=chance.random() < 0.5)
    stage = chance.randrange(5)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        if chance.random() < 0.5:  # at once and rudely, with a reset
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end = raw.index(b"\r\n\r\n")
        line.sendall(raw[: {0: chance.randrange(end), 1: chance.randrange(end + 4, len(raw))}.get(stage, len(raw))])
        if stage == 3:
            time.sleep(chance.random() * 0.3)
        if stage == 4:
            for _ in range(chance.randrange(1, 8)):
                if not line.recv(300):
                    return


def comes_and_goes(voices: Voices, run: Run, over: threading.Event) -> int:
    """How often."""
    count = 0
    while not over.is_set():
        voices.add(run, "comes and goes")
        time.sleep(0.1)
        voices.remove("comes and goes")
        count += 1
    return count


def answers(url: str) -> list[Any]:
    """What each is answered that is alone, without what is counted on."""
    found = []
    for model in ("small", "shown", "base"):
        for path, body in REQUESTS.values():
            known = {key: value for key, value in body.items() if model != "base" or key != "domain"}
            seeded = {**known, "model": model, "seed": 3, "max_tokens": min(30, body.get("max_tokens", 30))}
            told = requests.post(f"{url}/v1/{path}", json=seeded, timeout=60).json()
            found.append({key: told.get(key) for key in ("choices", "usage", "metier", "error")})
    return found


def idle(worker: Worker) -> bool:
    """Nothing decodes and nothing waits, in no queue of any room."""
    engine: Any = worker._engine
    queues = (*worker._waiting.values(), *worker._rows.values(), worker._work, worker._speaking)
    return worker.load == (0, 0) and not engine.busy and not any(queues)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def lines_open(port: int) -> list[Any]:
    return [
        each
        for each in psutil.Process().net_connections("tcp")
        if each.laddr and each.laddr.port == port and each.status not in ("LISTEN", "TIME_WAIT")
    ]


def hostile(url: str, desk: Desk, run: Run, times: int) -> None:
    """So many who leave, a dozen at a time."""
    port, over = int(url.rpartition(":")[2]), threading.Event()
    with ThreadPoolExecutor(13) as pool:
        coming = pool.submit(comes_and_goes, desk.voices, run, over)
        left = [pool.submit(leave, port, random.Random(number)) for number in range(times)]
        try:
            for each in left:
                each.result()
        finally:
            over.set()
        assert coming.result()


def assert_nothing_is_left(url: str, desk: Desk) -> None:
    (worker,) = {ground.worker for ground in desk.voices.grounds}
    until(lambda: idle(worker))
    until(lambda: not desk._front._waiting)
    until(lambda: not lines_open(int(url.rpartition(":")[2])))
    with ThreadPoolExecutor(AT_ONCE) as pool:  # as many at once as a key may have: none of them counts as there still
        told = [*pool.map(lambda _: requests.get(f"{url}/v1/models", timeout=20).status_code, range(AT_ONCE))]
    assert told == [200] * AT_ONCE


@pytest.mark.long
@pytest.mark.parametrize(
    "times", [pytest.param(100, id="a hundred"), pytest.param(3000, id="three thousand", marks=pytest.mark.slow)]
)
def test_whoever_leaves_leaves_nothing_behind(
    served_runs: dict[str, Run], desk: Desk, url: str, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    alone = answers(url)
    hostile(url, desk, served_runs["small"], times)
    assert_nothing_is_left(url, desk)
    assert answers(url) == alone
    gc.collect()  # asyncio tells of what nobody waited for once it is thrown away
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
