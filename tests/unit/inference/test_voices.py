from __future__ import annotations

from typing import Any, cast

import pytest

from metier.data.items import Message
from metier.domain import Domain
from metier.errors import MetierError
from metier.inference.questions import Questions
from metier.inference.voices import Ground, Voice

ASKING = Domain(name="help", data="help.csv", prompt="Question: {question}", answer="{answer}", system="Help.")
VOICE = Voice("help", cast(Ground, None), questions=Questions({"help": ASKING}, {"help": ("question",)}))


def read(*said: tuple[Any, str]) -> list[tuple[str, str]]:
    found = VOICE.item([Message(*each) for each in said], "help")
    return [(each.role, each.content) for each in found.messages]


def test_the_first_turn_fills_the_template() -> None:
    framed = [("system", "Help."), ("user", "Question: how?")]
    assert read(("user", "how?")) == framed
    assert read(("user", "how?"), ("assistant", "So."), ("user", "why?")) == [
        *framed,
        ("assistant", "So."),
        ("user", "why?"),
    ]


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_what_another_begins_is_taken_as_it_is(role: str) -> None:
    assert read((role, "Hello."), ("user", "how?")) == [(role, "Hello."), ("user", "how?")]


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_a_conversation_ends_in_a_question(role: str) -> None:
    with pytest.raises(MetierError, match="the last one is the ") as refused:
        read(("user", "how?"), (role, "So."))
    assert "end with a user's" in str(refused.value.hint)
