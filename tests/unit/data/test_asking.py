"""What a user typed is read back out of a prompt, so that no template gives its domain away."""

from __future__ import annotations

import pytest

from metier.data.asking import turns_typed, typed
from metier.data.items import Message
from metier.domain import Domain

_SHAPED = {"prompt": "{instruction}\nHeadline: {text}\nSentiment:", "instruction": "What is the mood?"}


def turns(domain: dict[str, str], columns: list[str], *said: str) -> list[str]:
    roles = ("user", "assistant") * len(said)
    messages = [Message("system", "Be kind."), *(Message(role, text) for role, text in zip(roles, said, strict=False))]
    return turns_typed(Domain(name="d", data="d.csv", **domain), columns, typed("d", messages))


@pytest.mark.parametrize(
    ("domain", "columns", "said", "wanted"),
    [
        (_SHAPED, ["text"], ["What is the mood?\nHeadline: Profit\nis up\nSentiment:"], ["Profit\nis up"]),
        ({"prompt": "{a} or {b}?"}, ["a", "b"], ["tea or milk?"], ["tea\nmilk"]),
        (_SHAPED, ["text"], ["something else"], ["something else"]),
        ({}, [], ["My card is gone", "Freeze it.", "How?"], ["My card is gone", "How?"]),
        (_SHAPED, ["text"], ["What is the mood?\nHeadline: A\nSentiment:", "up", "Why?"], ["A", "Why?"]),
    ],
    ids=["template", "two columns", "no such template", "no template", "a later turn"],
)
def test_what_was_typed(domain: dict[str, str], columns: list[str], said: list[str], wanted: list[str]) -> None:
    assert turns(domain, columns, *said) == wanted
