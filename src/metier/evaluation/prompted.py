"""Held-out items as messages to a chat model, and what it writes as answers: closed sets are read out of its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

from metier.data.items import Item
from metier.evaluation.answering import blank
from metier.evaluation.answers import Answer
from metier.inference.journal import Reply

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)  # what reasoning models write before they answer


def messages(item: Item) -> list[dict[str, str]]:
    """What a local model reads, with the allowed replies named where the prompt does not name them."""
    if item.kind == "preference":  # examples show replies, and here a letter is wanted
        item = replace(item, shots=())
    *before, last = ({"role": each.role, "content": each.content} for each in item.asked)
    return [*before, last | {"content": last["content"] + _wanted(item)}]


def answered(item: Item, reply: Reply) -> Answer:
    """The answer that a reply gives. What is none of a closed set stays as it was written, which counts as unparsed."""
    if reply.failed:
        return blank(item, reply.failed)
    text = reply.text.strip()
    if item.kind == "open":
        stopped = reply.finish_reason == "stop" if reply.finish_reason else None
        return replace(blank(item), output=text, new_tokens=reply.tokens_out, stopped=stopped)
    names = _letters(item) if item.kind == "preference" else item.replies
    found = parse(text, names)
    return replace(blank(item), output=item.replies[names.index(found)] if found else text, new_tokens=reply.tokens_out)


def parse(text: str, names: Sequence[str]) -> str | None:
    """Which of `names` a text says: alone but for case, punctuation and white space, or as the only one within it.

    A name within a longer one (spam in not spam) counts for the longer one. A single letter within a sentence
    counts as it is written: a is a word, A is not. None where no name is said, or several are.
    """
    text = _THOUGHT.sub("", text)
    plain = {_plain(name): name for name in names}
    if len(plain) == len(names) and "" not in plain and (alone := plain.get(_plain(text))):
        return alone
    longest_first = sorted(names, key=len, reverse=True)
    parts = (re.escape(name) if len(name) == 1 else f"(?i:{re.escape(name)})" for name in longest_first)
    said = {match.group().casefold() for match in re.finditer(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)", text)}
    found = [name for name in names if name.casefold() in said]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    """Letters and digits in lower case, by words; + and - stay, which may be all that a label is."""
    return " ".join(re.findall(r"[^\W_]+|[+-]", unicodedata.normalize("NFKC", text).casefold()))


def _wanted(item: Item) -> str:
    if item.kind == "open":
        return ""
    if item.kind == "preference":
        pair = "\n\n".join(f"{letter}: {reply}" for letter, reply in zip(_letters(item), item.replies, strict=True))
        return f"\n\nTwo replies to this:\n\n{pair}\n\nWhich one is better? Answer with A or B and nothing else."
    asked = "\n".join(message.content for message in item.messages)
    if all(_says(asked, reply) for reply in item.replies):
        return ""
    return "\n\nAnswer with one of these and nothing else:\n" + "\n".join(f"- {reply}" for reply in item.replies)


def _says(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE if len(name) > 1 else 0) is not None


def _letters(item: Item) -> tuple[str, ...]:
    return tuple(ascii_uppercase[: len(item.replies)])
