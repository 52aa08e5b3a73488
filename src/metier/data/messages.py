"""Messages as files hold them: OpenAI's {role, content} and ShareGPT's {from, value}, as lists or as JSON text."""

from __future__ import annotations

from typing import Any

from metier.data.objects import listed
from metier.data.sources import text_of
from metier.data.tools import CALLS, RESULTS, calls_of, write_calls, write_result

DETAILS = "train_detail"  # Axolotl's marks within a message
_MARKS = ("weight", "train", "training")
_READ = {"role", "from", "content", "value", "refusal", "tool_calls", "function_call", DETAILS, *_MARKS}
_READ |= {"name", "id", "tool_call_id", "type"}  # who speaks and what a result belongs to, which order tells too


def message_list(value: Any) -> list[dict[str, Any]] | None:
    """The messages of a cell, which in a csv file is JSON text; None where it holds none.

    A single message may stand alone, and a list within {messages: […]}.
    """
    value = listed(value)
    if isinstance(value, dict):
        value = value.get("messages", [value])
    if not isinstance(value, list) or not value:
        return None
    shaped = all(isinstance(each, dict) and ("role" in each or "from" in each) for each in value)
    return value if shaped else None


def in_one(content: Any) -> Any:
    """OpenAI's parts, and lists of texts, as one text; anything else as it is."""
    if not isinstance(content, list) or not all(isinstance(each, str) or _is_part(each) for each in content):
        return content
    return "\n".join(text_of(each["text"] if isinstance(each, dict) else each) for each in content)


def _is_part(each: Any) -> bool:
    return isinstance(each, dict) and "text" in each


def speaker(message: dict[str, Any]) -> str:
    """The role as the file names it."""
    return text_of(message.get("role", message.get("from")))


def said(message: dict[str, Any]) -> str | None:
    """The text of a message, calls and results of tools included; None where it is something else."""
    content = in_one(message.get("content", message.get("value")) or message.get("refusal"))
    if calls := calls_of(message):
        return write_calls("" if speaker(message) == CALLS else text_of(content).strip(), calls)
    if speaker(message).strip().lower() in RESULTS:
        return write_result(text_of(content).strip())
    return None if isinstance(content, list | dict) else text_of(content).strip()


def is_learned(message: dict[str, Any]) -> bool:
    """OpenAI marks with weight 0, Axolotl with train or training = false, what is not to be learned."""
    return not any(text_of(message.get(mark)).lower() in ("0", "0.0", "false") for mark in _MARKS)


def unread(message: dict[str, Any]) -> list[str]:
    """What a message holds besides that is not read."""
    return [name for name, value in message.items() if value not in (None, "", [], {}) and name not in _READ]
