"""Messages as files hold them: OpenAI's {role, content} and ShareGPT's {from, value}, as lists or as JSON text."""

from __future__ import annotations

from typing import Any

from metier.data.objects import listed
from metier.data.sources import text_of
from metier.data.tools import CALLS, RESULTS, calls_of, write_calls, write_result


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


def speaker(message: dict[str, Any]) -> str:
    """The role as the file names it."""
    return text_of(message.get("role", message.get("from")))


def said(message: dict[str, Any]) -> str | None:
    """The text of a message, calls and results of tools included; None where it is something else."""
    content = message.get("content", message.get("value")) or message.get("refusal")
    if isinstance(content, list) and all(isinstance(each, dict) and "text" in each for each in content):
        content = "\n".join(text_of(each["text"]) for each in content)  # OpenAI's parts
    if calls := calls_of(message):
        return write_calls("" if speaker(message) == CALLS else text_of(content).strip(), calls)
    if speaker(message).strip().lower() in RESULTS:
        return write_result(text_of(content).strip())
    return None if isinstance(content, list | dict) else text_of(content).strip()


def is_learned(message: dict[str, Any]) -> bool:
    """OpenAI marks with weight 0, Axolotl with train = false, what an assistant should not learn to say."""
    return text_of(message.get("weight", message.get("train"))) not in ("0", "0.0", "false")
