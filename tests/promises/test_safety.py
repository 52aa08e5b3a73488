"""Red flags are answered as emergencies and look-alikes are not, on messages by somebody who had not seen the rules."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from metier.assistant.safety import Safety

MESSAGES = Path(__file__).parents[1] / "safety" / "messages.jsonl"


@cache
def safety() -> Safety:
    return Safety.open()


@cache
def shares(first: int) -> tuple[float, float]:
    """Of every second message from the `first` on: of red flags and of harmless ones, those answered before a model."""
    rows = [json.loads(line) for line in MESSAGES.read_text(encoding="utf-8").splitlines()[first - 1 :: 2]]
    answered = [(row["kind"], safety().before(row["text"], "medical") is not None) for row in rows]
    flags, harmless = ([was for kind, was in answered if kind == wanted] for wanted in ("red-flag", "harmless"))
    return sum(flags) / len(flags), sum(harmless) / len(harmless)


def test_the_half_that_the_rules_were_made_by() -> None:
    recall, alarms = shares(1)
    assert recall >= 0.99
    assert alarms <= 0.03


def test_the_half_that_nobody_looked_at_gets_no_worse() -> None:
    """Measured once, when the rules were done: 198 of 209 red flags, 17 of 256 harmless ones."""
    recall, alarms = shares(2)
    assert recall >= 198 / 209
    assert alarms <= 17 / 256


@pytest.mark.parametrize("domain", ["banking", "telecom"])
def test_samples_of_other_trades_are_hardly_ever_taken_for_emergencies(domain: str) -> None:
    path = Path(__file__).parents[2] / "src/metier/assets/samples" / f"{domain}.jsonl"
    talks = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    said = [turn["content"] for talk in talks for turn in talk if turn["role"] == "user"]
    assert sum(safety().before(text, "shop") is not None for text in said) / len(said) <= 0.04
