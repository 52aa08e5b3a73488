from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metier.assistant.tickets import Tickets
from metier.inference.questions import Questions
from metier.web.care import Care
from metier.web.chat import _assert_watchable, _before, events
from metier.web.desk import Desk, Target
from metier.web.dispatch import Routed
from metier.web.failures import Refusal
from metier.web.lessons import Lesson, Lessons
from metier.web.schema import ChatBody
from tests import opened


@pytest.mark.parametrize(
    ("how", "param"),
    [({"logprobs": True}, "logprobs"), ({"response_format": {"type": "json_object"}}, "response_format")],
)
def test_what_goes_past_the_watch_over_an_answer_is_refused(how: dict[str, Any], param: str) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "how?"}]}
    _assert_watchable(ChatBody.model_validate({**body, "response_format": {"type": "text"}}), ["medical"])
    with pytest.raises(Refusal, match=f"{param}: .*answers of banking, medical") as refused:
        _assert_watchable(ChatBody.model_validate({**body, **how}), ["banking", "medical"])
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(("domains", "refused"), [(("telecom", "banking"), True), (("telecom", "retail"), False)])
@pytest.mark.parametrize("sent", ["telecom", None])
def test_a_secret_that_auto_sends_elsewhere_is_refused_where_a_bank_may_be_meant(
    domains: tuple[str, ...], refused: bool, sent: str | None
) -> None:
    router = SimpleNamespace(router=SimpleNamespace(domains=domains), send=lambda _: Routed(sent, 0.6))
    voices: Any = SimpleNamespace(all={each: SimpleNamespace(learned=(each,)) for each in domains}, grounds=())
    desk = Desk(voices, Lessons(Lesson(router)), Care(opened.safety()))  # type: ignore[arg-type]
    asked = {"messages": [{"role": "user", "content": "my password is Blue42sky"}]}
    target, _, notes, said = _before(desk, ChatBody.model_validate({"model": "auto", **asked}))
    assert (target.domain if target else None, notes["route"]["domain"]) == (sent, sent)
    assert (said is not None and said.notes.get("safety", {}).get("kind") == "refusal") == refused


@pytest.mark.parametrize(
    ("model", "learned", "topics"),
    [
        ("auto", ("medical", "banking"), ("medical", "banking")),
        ("auto", (), ("help", "mood")),  # the base, or nobody: it may belong to all among which `auto` chooses
        ("auto", None, ("help", "mood")),
        ("care", ("medical", "banking"), ("medical", "banking")),
        ("care", (), ()),
    ],
)
def test_a_request_goes_by_one_lesson_though_another_is_learned_meanwhile(
    model: str, learned: tuple[str, ...] | None, topics: tuple[str, ...]
) -> None:
    """A run that learned its topics, a base, or nobody answers."""
    lessons = Lessons()

    def send(_: str) -> Routed:
        lessons.now = Lesson()  # all were unloaded
        return Routed(None, 0.4)

    lessons.now = Lesson(cast(Any, SimpleNamespace(router=SimpleNamespace(domains=("help", "mood")), send=send)))
    desk = Desk(cast(Any, None), lessons, Care(opened.safety()))
    voice: Any = SimpleNamespace(learned=learned, questions=Questions({}, {}))
    target = None if learned is None else Target(voice)
    desk.target = lambda *_, **__: target  # type: ignore[assignment, method-assign, return-value]
    desk.send = lambda text, lesson: (target, lesson.dispatch.send(text))  # type: ignore[method-assign, union-attr]
    found = _before(desk, ChatBody.model_validate({"model": model, "messages": [{"role": "user", "content": "how?"}]}))
    assert found[:2] == (target, topics)
    assert (found[3] is not None and "help and mood" in found[3].text) == (target is None)


@pytest.mark.parametrize(
    ("closed", "more", "handed"),
    [
        (False, {}, True),
        (False, {"response_format": {"type": "text"}}, True),
        (False, {"response_format": {"type": "json_object"}}, False),
        (True, {}, False),
        (True, {"model": "auto"}, True),
    ],
)
def test_who_wants_json_or_a_label_hands_in_texts_and_is_not_handed_over(
    tmp_path: Path, closed: bool, more: dict[str, Any], handed: bool
) -> None:
    """An emergency is one in any text."""
    voice = SimpleNamespace(questions=SimpleNamespace(closed=lambda _: closed))
    target = SimpleNamespace(topics=("reviews",), domain="reviews", voice=voice)
    desk: Any = SimpleNamespace(
        lessons=Lessons(),
        care=Care(opened.safety(), opened.moods(), Tickets(tmp_path / "a.db")),
        target=lambda *_, **__: target,
        send=lambda *_: (target, Routed("reviews", 0.9)),
    )

    def answered(said: str) -> Any:
        body = {"model": "m", "messages": [{"role": "user", "content": said}], **more}
        return _before(desk, ChatBody.model_validate(body))[-1]

    assert bool(answered("worst service ever, I hate this company")) == handed
    assert answered("my dad is not breathing")


def test_no_line_of_a_stream_ends_within_a_text() -> None:
    """Some clients, as httpx, requests and LiteLLM, end a line wherever Unicode does."""
    said = {"said": "one\u2028two\u2029three\x85four"}

    async def chunks() -> AsyncGenerator[dict[str, Any]]:
        yield said

    async def sent() -> str:
        return "".join([each async for each in events(None, chunks())])

    line, *_ = asyncio.run(sent()).splitlines()
    assert json.loads(line.removeprefix("data: ")) == said
