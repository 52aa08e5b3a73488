from __future__ import annotations

from typing import Any

import pytest

from metier.web.chat import _assert_watchable
from metier.web.failures import Refusal
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
