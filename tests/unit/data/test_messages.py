"""What a message says, in every shape that files have."""

from __future__ import annotations

from typing import Any

import pytest

from metier.data.messages import is_learned, message_list, said, unread
from metier.data.tools import tools_of, write_tools

CALL = '<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": " Hi. "}, "Hi."),
        ({"from": "human", "value": "Hi."}, "Hi."),
        ({"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "text", "text": "You?"}]}, "Hi.\nYou?"),
        ({"role": "assistant", "content": None}, ""),
        ({"role": "assistant", "content": None, "refusal": "No."}, "No."),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"n": 1}'}}]}, CALL),
        (
            {
                "role": "assistant",
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}],
            },
            CALL,
        ),
        (
            {"role": "assistant", "content": "Wait.", "tool_calls": [{"name": "f", "arguments": {"n": 1}}]},
            f"Wait.\n{CALL}",
        ),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": '{"n": 1}'}}, CALL),
        ({"from": "function_call", "value": '{"name": "f", "arguments": {"n": 1}}'}, CALL),
        ({"from": "function_call", "value": '[{"name": "f", "arguments": {"n": 1}}]'}, CALL),
        ({"from": "function_call", "value": "f(1)"}, "<tool_call>\nf(1)\n</tool_call>"),
        ({"role": "assistant", "content": "So.", "tool_calls": []}, "So."),
        ({"role": "tool", "content": "done"}, "<tool_response>\ndone\n</tool_response>"),
        ({"role": "tool", "content": {"n": 1}}, '<tool_response>\n{"n": 1}\n</tool_response>'),
        ({"from": "observation", "value": "done"}, "<tool_response>\ndone\n</tool_response>"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, None),
        ({"role": "user", "content": {"text": "Hi."}}, None),
    ],
)
def test_a_message_says(message: dict[str, Any], text: str | None) -> None:
    assert said(message) == text


@pytest.mark.parametrize("value", [0, 0.0, "0", False])
def test_weight_and_train_mark_what_is_only_read(value: Any) -> None:
    assert not is_learned({"role": "assistant", "weight": value})
    assert not is_learned({"role": "assistant", "train": value})
    assert not is_learned({"role": "assistant", "training": value})
    assert not is_learned({"role": "assistant", "weight": 1, "training": value})


def test_what_a_message_holds_besides_is_named() -> None:
    plain = {"role": "assistant", "content": "a", "weight": 1, "name": "bo", "tool_calls": []}
    assert unread(plain) == []
    assert unread({**plain, "reasoning_content": "hm", "audio": None}) == ["reasoning_content"]


def test_what_has_no_mark_is_learned() -> None:
    assert all(is_learned(each) for each in ({}, {"weight": 1}, {"weight": None}, {"train": True}))


@pytest.mark.parametrize(
    "value",
    ["", "text", "[broken", "[]", [], {}, ["text"], [{"content": "no role"}], None, "[1]", "[" * 100_000],
)
def test_what_holds_no_messages_is_told_apart(value: Any) -> None:
    assert message_list(value) is None


def test_one_message_alone_and_a_list_within_an_object_are_lists() -> None:
    one = {"role": "user", "content": "Hi."}
    assert message_list(one) == message_list([one]) == message_list({"messages": [one], "tools": []}) == [one]
    assert message_list('{"role": "user", "content": "Hi."}') == [one]


def test_tools_stand_behind_the_system_prompt() -> None:
    text = write_tools("Be kind.", [{"name": "f"}, {"name": "g"}])
    assert text.startswith("Be kind.\n\nYou may call")
    assert text.endswith('<tools>\n{"name": "f"}\n{"name": "g"}\n</tools>')
    assert write_tools("", [{"name": "f"}]).startswith("You may call")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ('[{"name": "f", "n": 1}]', [{"name": "f", "n": 1}]),
        ([{"name": "f"}], [{"name": "f"}]),
        ({"messages": [], "tools": [{"name": "f"}]}, [{"name": "f"}]),
        ({"messages": []}, None),
        ("[]", []),
        (None, None),
    ],
)
def test_tools_are_found_as_values_or_text(value: Any, found: Any) -> None:
    assert tools_of(value) == found
