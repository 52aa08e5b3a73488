from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from metier.web.people import Thumb
from metier.web.schema import ChatBody, CompletionBody, LoadBody, Said, TokenizeBody


@pytest.mark.parametrize("wrap", [str, lambda stop: [stop]])
def test_stop_strings_are_short(wrap: Any) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "how?"}]}
    assert ChatBody.model_validate({**body, "stop": wrap("x" * 1000)}).stops == ["x" * 1000]
    with pytest.raises(ValidationError, match="at most 1000 characters"):
        ChatBody.model_validate({**body, "stop": wrap("x" * 1001)})


@pytest.mark.parametrize(("given", "most"), [({}, 16), ({"max_tokens": None}, 16), ({"max_tokens": 0}, 0)])
def test_a_text_is_gone_on_with_by_sixteen_tokens_unless_a_number_is_given(given: dict[str, Any], most: int) -> None:
    assert CompletionBody.model_validate({"model": "m", "prompt": "so", **given}).most == most


def test_parts_of_a_message_are_text_and_others_are_named() -> None:
    said = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    assert Said.model_validate({"role": "user", "content": said}).message.content == "ab"
    image = {"type": "image_url", "image_url": {"url": "x"}}
    for part, told in ((image, "'image_url'"), ({"type": "text"}, "Field required")):
        with pytest.raises(ValidationError, match=told):
            Said.model_validate({"role": "user", "content": [part]})


def test_words_of_other_servers_mean_the_same() -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}
    said = ChatBody.model_validate({**body, "tool_choice": "none", "top_k": -1})
    assert said.sampling == ChatBody.model_validate({**body, "tools": None}).sampling
    with pytest.raises(ValidationError, match="tools"):
        ChatBody.model_validate(body)
    loaded = LoadBody.model_validate({"lora_name": "shop", "lora_path": "runs/lora-1"})
    assert (loaded.name, loaded.run) == ("shop", "runs/lora-1")


@pytest.mark.parametrize(
    ("roles", "order"),
    [("usd", "sdu"), ("uausd", "uasdu"), ("su", "su"), ("uaus", "uasu"), ("u", "u"), ("sus", "ssu")],
)
def test_what_the_system_says_behind_a_question_stands_in_front_of_it(roles: str, order: str) -> None:
    names = {"u": "user", "a": "assistant", "s": "system", "d": "developer"}
    said = [{"role": names[each], "content": f"{each}{place}"} for place, each in enumerate(roles)]
    read = [TokenizeBody.model_validate({"model": "m", "messages": said}).messages or ()]
    read += [ChatBody.model_validate({"model": "m", "messages": said}).messages]
    read += [Thumb.model_validate({"model": "m", "messages": said, "answer": "x", "liked": True}).messages]
    for each in read:
        assert "".join(str(turn.content)[0] for turn in each) == order
        assert str(each[-1].content) == f"u{roles.rindex('u')}"


@pytest.mark.parametrize("roles", [("system",), ("user", "assistant"), ("user", "assistant", "system")])
def test_where_nothing_is_asked_it_is_told(roles: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="end with a user's"):
        ChatBody.model_validate({"model": "m", "messages": [{"role": each, "content": "x"} for each in roles]})


def test_a_text_is_not_said_to_be_json_that_is_none() -> None:
    body: dict[str, Any] = {"model": "m", "prompt": "so", "response_format": {"type": "text"}}
    assert CompletionBody.model_validate(body).most == 16
    with pytest.raises(ValidationError, match="ask /v1/chat/completions for JSON"):
        CompletionBody.model_validate({**body, "response_format": {"type": "json_object"}})


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [[""] * 1000] * 200},
        {"prompt": [1.5] * 1000},
        {"prompt": [None] * 200},
        {"prompt": "x", "logit_bias": {f"x{n}": 1 for n in range(1025)}},
        {"messages": [{"role": "user", "content": [{}] * 900}] * 900},
        {"messages": [None] * 900},
    ],
)
def test_of_many_faults_a_few_are_gathered(body: dict[str, Any]) -> None:
    """All of them would fill the memory, and the thread that serves everybody."""
    kind = ChatBody if "messages" in body else CompletionBody
    with pytest.raises(ValidationError) as faults:
        kind.model_validate({"model": "m", **body})
    assert faults.value.error_count() < 10
