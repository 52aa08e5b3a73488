"""Tool calls as text, one way for every base: Hermes' tags, which many templates write themselves.

An assistant's calls become <tool_call> blocks in what it says, a tool's results a user's <tool_response>,
the tools' descriptions a block of the system prompt. So they are trained, measured and chatted like any
other turn, whatever the base's own template knows of tools.
"""

from __future__ import annotations

import json
from typing import Any

from metier.data.sources import text_of

RESULTS = {"tool", "function", "observation", "ipython", "tool_response"}
CALLS = "function_call"  # ShareGPT's role for an assistant that calls


def calls_of(message: dict[str, Any]) -> list[Any]:
    """What a message calls, in OpenAI's shape (new or old) or as ShareGPT's text."""
    if isinstance(calls := message.get("tool_calls"), list):
        return [call.get("function", call) if isinstance(call, dict) else call for call in calls]
    if message.get("function_call"):
        return [message["function_call"]]
    if text_of(message.get("role", message.get("from"))) == CALLS:
        found = parsed(message.get("content", message.get("value")))
        return found if isinstance(found, list) else [found]
    return []


def write_calls(text: str, calls: list[Any]) -> str:
    """What the assistant says, with its calls behind."""
    return "\n".join([*([text] if text else []), *(f"<tool_call>\n{_call(each)}\n</tool_call>" for each in calls)])


def write_result(said: str) -> str:
    """A tool's result as the turn that follows the call."""
    return f"<tool_response>\n{said}\n</tool_response>"


def write_tools(system: str, tools: Any) -> str:
    """A system prompt with the descriptions of the tools that may be called."""
    described = [_plain(each) for each in (tools if isinstance(tools, list) else [tools])]
    asked = (
        "You may call these tools. To call one, answer with <tool_call> and </tool_call> around a JSON object "
        'such as {"name": "…", "arguments": {…}}.'
    )
    return "\n\n".join([*([system] if system else []), "\n".join([asked, "<tools>", *described, "</tools>"])])


def tools_of(value: Any) -> Any:
    """The tools that a cell describes; OpenAI's preference files keep them beside the messages."""
    found = parsed(value)
    return found.get("tools") if isinstance(found, dict) and "messages" in found else found


def parsed(value: Any) -> Any:
    """JSON that stands as text; anything else as it is."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _call(call: Any) -> str:
    if isinstance(call, dict) and "arguments" in call:
        call = {"name": call.get("name"), "arguments": parsed(call["arguments"])}
    return _plain(call)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
