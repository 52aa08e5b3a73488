from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from metier.data.items import Message
from metier.web.schema import ChatBody, CompletionBody, LoadBody, Said


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


def test_what_the_system_says_last_is_what_is_asked() -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "developer", "content": "What is a kite?"}]
    assert ChatBody.model_validate({"model": "m", "messages": turns}).turns[-1] == Message("user", "What is a kite?")
    with pytest.raises(ValidationError, match="the last one is the assistant's own"):
        ChatBody.model_validate({"model": "m", "messages": [*turns, {"role": "assistant", "content": "A toy"}]})


def test_a_text_is_not_said_to_be_json_that_is_none() -> None:
    body: dict[str, Any] = {"model": "m", "prompt": "so", "response_format": {"type": "text"}}
    assert CompletionBody.model_validate(body).most == 16
    with pytest.raises(ValidationError, match="ask /v1/chat/completions for JSON"):
        CompletionBody.model_validate({**body, "response_format": {"type": "json_object"}})
