from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from metier.assistant.safety import Safety
from metier.web.care import Care
from metier.web.chat import _assert_watchable, _before
from metier.web.desk import Desk
from metier.web.dispatch import Routed
from metier.web.failures import Refusal
from metier.web.lessons import Lesson, Lessons
from metier.web.schema import ChatBody


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
    desk = Desk(voices, Lessons(Lesson(router)), Care(Safety.open()))  # type: ignore[arg-type]
    asked = {"messages": [{"role": "user", "content": "my password is Blue42sky"}]}
    target, notes, said = _before(desk, ChatBody.model_validate({"model": "auto", **asked}))
    assert (target.domain if target else None, notes["route"]["domain"]) == (sent, sent)
    assert (said is not None and said.notes["safety"]["kind"] == "refusal") == refused
