"""Red flags are answered as emergencies and look-alikes are not, on messages by people who had not seen the rules."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from metier.assistant.safety import Safety

MESSAGES = Path(__file__).parents[1] / "safety"


@cache
def safety() -> Safety:
    return Safety.open()


@cache
def shares(name: str, first: int, step: int) -> tuple[float, float]:
    """Of every `step`th message of a file from the `first` on: of red flags and of harmless ones, those answered as
    emergencies."""
    rows = [json.loads(line) for line in (MESSAGES / name).read_text(encoding="utf-8").splitlines()[first - 1 :: step]]
    answered = [(row["kind"], emergency(row["text"])) for row in rows]
    flags, harmless = ([was for kind, was in answered if kind == wanted] for wanted in ("red-flag", "harmless"))
    return sum(flags) / len(flags), sum(harmless) / len(harmless)


def emergency(said: str) -> bool:
    found = safety().before(said, "medical")
    return found is not None and found.kind == "emergency"


def test_messages_that_the_rules_were_made_by_get_no_worse() -> None:
    recall, alarms = shares("messages.jsonl", 1, 1)
    assert recall >= 405 / 418
    assert alarms <= 17 / 512


def test_the_half_of_fresh_messages_that_the_texts_were_made_by_gets_no_worse() -> None:
    recall, alarms = shares("fresh.jsonl", 1, 2)
    assert recall >= 282 / 298
    assert alarms <= 13 / 321


def test_the_half_of_fresh_messages_that_nobody_looked_at_gets_no_worse() -> None:
    """Measured once, when the layer was done: 94.3 % and 4.7 %, where 99 % and 3 % are wanted."""
    recall, alarms = shares("fresh.jsonl", 2, 2)
    assert recall >= 281 / 298
    assert alarms <= 15 / 320


@pytest.mark.parametrize("domain", ["banking", "telecom"])
def test_samples_of_other_trades_are_hardly_ever_taken_for_emergencies(domain: str) -> None:
    path = Path(__file__).parents[2] / "src/metier/assets/samples" / f"{domain}.jsonl"
    talks = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    said = [turn["content"] for talk in talks for turn in talk if turn["role"] == "user"]
    assert sum(safety().before(text, "shop") is not None for text in said) / len(said) <= 0.04
