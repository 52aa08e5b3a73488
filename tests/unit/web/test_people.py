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
from metier.web.dispatch import Routed
from metier.web.failures import answer_failures
from metier.web.keys import Caller
from metier.web.lessons import Lesson, Lessons
from metier.web.people import people_routes


def voice(name: str, *domains: str) -> Any:
    """A run that is served, or, without domains, a base."""
    asked = SimpleNamespace(domains=domains, labels=lambda domain: ("glad", "sad") if domain == "mood" else ())
    return SimpleNamespace(name=name, run=domains, digest=f"of {name}", questions=asked, learned=domains)


def named(*voices: Any) -> dict[str, Any]:
    return {each.name: each for each in voices}


class Router:
    """Sends what is typed in a domain's own name."""

    class router:
        domains = ("retail", "travel", "cooking")

    def send(self, said: list[str]) -> Routed:
        return Routed(said[-1] if said[-1] in self.router.domains else None, 0.5)


@pytest.fixture
def kept(tmp_path: Path) -> Feedback:
    return Feedback(tmp_path / "a.db")


@pytest.fixture
def client(kept: Feedback, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    served = named(voice("desk-1", "retail", "travel"), voice("trips", "travel"), voice("sorts", "mood"))
    voices: Any = SimpleNamespace(all=served, grounds=())
    lessons = Lessons(Lesson(Router()))  # type: ignore[arg-type]
    targets = {"sorts": Target(served["sorts"]), "desk-1": Target(voices.all["desk-1"]), "nano": Target(voice("nano"))}
    targets["desk-1/travel"] = Target(voices.all["desk-1"], "travel")
    monkeypatch.setattr(Desk, "targets", property(lambda _: targets))
    app = FastAPI()
    answer_failures(app)
    app.include_router(people_routes(Desk(voices, lessons, Care(feedback=kept))))
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


@pytest.mark.parametrize(
    ("model", "said", "domain", "filed"),
    [
        ("auto", "retail", "", ("retail", "desk-1")),
        ("auto", "retail", "travel", ("travel", "trips")),
        ("auto", "how?", "retail", ("retail", "desk-1")),
        ("auto", "cooking", "", ("", "")),  # asked back: nobody knows it
        ("desk-1/travel", "how?", "", ("travel", "desk-1")),
        ("desk-1", "retail", "", ("", "desk-1")),
        ("nano", "retail", "", ("", "")),
    ],
)
def test_an_opinion_is_filed_under_who_answered(
    client: TestClient, kept: Feedback, model: str, said: str, domain: str, filed: tuple[str, str]
) -> None:
    """`auto` answered by whom it sends the last that a user said to."""
    turns = [{"role": "user", "content": "travel"}, {"role": "assistant", "content": "so"}]
    turns += [{"role": "user", "content": said}]
    body = {"model": model, "domain": domain, "messages": turns, "answer": "so", "liked": True}
    client.post("/v1/feedback", json=body).raise_for_status()
    (thumb,) = kept.listed()
    assert (thumb.domain, thumb.model.run) == filed


@pytest.mark.parametrize("model", ["auto", "desk-1"])
@pytest.mark.parametrize("role", ["system", "assistant"])
def test_an_opinion_on_no_answer_is_refused(client: TestClient, kept: Feedback, model: str, role: str) -> None:
    body = {"model": model, "messages": [{"role": role, "content": "so"}], "answer": "so", "liked": True}
    assert client.post("/v1/feedback", json=body).status_code == 400
    assert not [*kept.listed()]


def test_a_closed_set_is_corrected_by_its_replies_whoever_answered(client: TestClient, kept: Feedback) -> None:
    body = {"domain": "mood", "messages": [{"role": "user", "content": "how?"}], "answer": "so", "liked": False}
    for model in ("sorts", "nano"):
        refused = client.post("/v1/feedback", json={**body, "model": model, "correction": "gloomy indeed"})
        assert "choose from glad, sad" in refused.json()["error"]["message"]
        client.post("/v1/feedback", json={**body, "model": model, "correction": "sad"}).raise_for_status()
    assert len(kept.listed()) == 2


def test_a_conversation_that_would_take_minutes_to_be_masked_is_refused(client: TestClient, kept: Feedback) -> None:
    long = [{"role": "user", "content": "x" * 150_000}, {"role": "assistant", "content": "y" * 49_000}]
    body = {"model": "desk-1", "messages": [*long, {"role": "user", "content": "and?"}], "answer": "no", "liked": True}
    assert client.post("/v1/feedback", json=body).status_code == 200
    refused = client.post("/v1/feedback", json={**body, "correction": "z" * 1000})
    assert refused.status_code == 400
    assert "more than 200,000 characters" in refused.json()["error"]["message"]
    assert len(kept.listed()) == 1
