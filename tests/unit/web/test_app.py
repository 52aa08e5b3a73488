from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from metier.inference.engine import Request
from metier.inference.voices import Ground, Voice, Voices
from metier.inference.worker import FullError, Heard, StoppedError, Ticket, Worker
from metier.web.app import DRAIN, make_app
from metier.web.desk import Desk
from metier.web.guard import Rules
from metier.web.jobs import Jobs
from metier.web.keys import Keys


@pytest.fixture
def client(tmp_path: Path) -> Callable[[Voices, Jobs], TestClient]:
    def made(voices: Voices, jobs: Jobs) -> TestClient:
        return TestClient(make_app(Desk(voices), jobs, Rules(hosts=("testserver",)), Keys(), home=tmp_path))

    return made


class Busy:
    """An engine that is full, or never comes to an answer."""

    capacity = 4

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked, self.left = error, list[Request](), list[Request]()

    def ask(self, request: Request, heard: Heard) -> Ticket:
        if self.error:
            raise self.error
        self.asked.append(request)
        return Ticket(request, heard)

    def cancel(self, ticket: Ticket) -> None:
        self.left.append(ticket.request)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Busy], Voices]:
    def standing(busy: Busy) -> Voices:
        renderer = SimpleNamespace(
            stop_ids=frozenset({2}), longest=9, prompt_ids=lambda _: [5], spoken=lambda *_, **__: "", decode=str
        )
        known = cast(Any, renderer), 99, 64, cast(Worker, busy)
        ground = Ground("base", Path(), *known, bank=cast(Any, "there"))
        monkeypatch.setattr(Voices, "grounds", property(lambda _: [ground]))
        monkeypatch.setattr(Voice, "shown", lambda _, item: item)
        return Voices(offline=True)

    return standing


ASKED: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "base", "prompt": [5], "echo": True, "stream": True},
    "/v1/chat/completions": {
        "model": "base",
        "messages": [{"role": "user", "content": "how?"}],
        "n": 2,
        "stream": True,
    },
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("error", [FullError("4 requests wait already"), StoppedError("the server is being stopped")])
def test_a_stream_that_finds_no_place_is_refused_as_an_answer_at_once_is(
    client: Callable[[Voices, Jobs], TestClient],
    engine: Callable[[Busy], Voices],
    tmp_path: Path,
    path: str,
    error: Exception,
) -> None:
    jobs = Jobs(tmp_path / "jobs", lambda *_: None)
    answer = client(engine(Busy(error)), jobs).post(path, json=ASKED[path])
    assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), answer.text
    assert answer.json()["error"]["code"] == "overloaded"
    jobs.stop(5)


@pytest.mark.parametrize("path", ASKED)
def test_who_leaves_before_a_stream_has_begun_frees_the_place(
    client: Callable[[Voices, Jobs], TestClient], engine: Callable[[Busy], Voices], tmp_path: Path, path: str
) -> None:
    jobs, busy = Jobs(tmp_path / "jobs", lambda *_: None), Busy()
    app = client(engine(busy), jobs).app
    body = json.dumps(ASKED[path]).encode()
    news: list[Any] = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "scheme": "http"}

    async def receive() -> Any:
        while len(news) == 1 and not busy.asked:
            await asyncio.sleep(0.01)
        return news.pop(0)

    async def send(message: Any) -> None:
        assert message.get("status") != 200

    asyncio.run(cast(Any, app)({**scope, "client": ("127.0.0.1", 1)}, receive, send))
    assert len(busy.left) == len(busy.asked) == ASKED[path].get("n", 1)
    jobs.stop(5)


@pytest.mark.parametrize(("ago", "left"), [(0, DRAIN), (DRAIN - 5, 5), (DRAIN + 5, 0)])
def test_all_of_a_server_ends_by_one_deadline(
    client: Callable[[Voices, Jobs], TestClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ago: float,
    left: float,
) -> None:
    """From when it was told to stop, however long answers took after that."""
    jobs, given = Jobs(tmp_path / "jobs", lambda *_: None), []
    jobs._halted = time.monotonic() - ago
    monkeypatch.setattr(Jobs, "stop", lambda _, timeout: given.append(timeout))
    monkeypatch.setattr(Voices, "stop", lambda _, timeout: given.append(timeout))
    with client(Voices(offline=True), jobs):
        pass
    assert given == pytest.approx([left, left], abs=1)


def test_a_server_without_an_engine_is_not_well(
    client: Callable[[Voices, Jobs], TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [SimpleNamespace(worker=SimpleNamespace(alive=True)) for _ in range(2)]
    monkeypatch.setattr(Voices, "grounds", property(lambda _: engines))
    jobs = Jobs(tmp_path / "jobs", lambda *_: None)
    asking = client(Voices(offline=True), jobs)
    assert asking.get("/health").json() == {"status": "ok"}
    engines[1].worker.alive = False
    answer = asking.get("/health")
    assert (answer.status_code, "an engine has ended" in answer.text) == (503, True)
    jobs.stop(5)
