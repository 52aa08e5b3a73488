from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from metier.assistant.feedback import Feedback
from metier.web.callers import caller_of
from metier.web.care import Care
from metier.web.desk import Desk, Target
from metier.web.failures import answer_failures
from metier.web.keys import Caller
from metier.web.lessons import Lesson, Lessons
from metier.web.people import people_routes


def voice(name: str, *domains: str) -> Any:
    """A run that is served, or, without domains, a base."""
    return SimpleNamespace(name=name, run=domains, digest="", questions=SimpleNamespace(domains=domains))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    voices: Any = SimpleNamespace(all={"desk-1": voice("desk-1", "retail", "travel")})
    lessons = Lessons(Lesson(SimpleNamespace()))  # type: ignore[arg-type]
    desk = Desk(voices, lessons, Care(feedback=Feedback(tmp_path / "a.db")))
    targets = {"desk-1": Target(voices.all["desk-1"]), "nano": Target(voice("nano"))}
    monkeypatch.setattr(Desk, "targets", property(lambda _: targets))
    app = FastAPI()
    answer_failures(app)
    app.include_router(people_routes(desk))
    app.dependency_overrides[caller_of] = lambda: Caller("team", "user")
    return TestClient(app)


@pytest.mark.parametrize(
    ("model", "domain", "status"),
    [
        ("desk-1", "retail", 200),
        ("desk-1", "", 200),
        ("nano", "travel", 200),  # the base is asked as a run of it is
        ("auto", "", 200),
        ("desk-1", "/tmp/x/escaped", 400),
        ("nano", "a/b", 400),
        ("auto", "cooking", 400),
        ("desk-2", "retail", 404),
    ],
)
def test_an_opinion_is_of_what_is_served(client: TestClient, model: str, domain: str, status: int) -> None:
    body = {"model": model, "domain": domain, "messages": [{"role": "user", "content": "how?"}]}
    answer = client.post("/v1/feedback", json={**body, "answer": "so", "liked": True})
    assert answer.status_code == status, answer.text
