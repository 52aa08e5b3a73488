"""Who is upset, unhelped or asks for a person is heard, and the calm are left alone, in words by somebody who had not
seen the rules."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from metier.assistant.mood import Moods

TALKS = Path(__file__).parents[1] / "safety" / "fresh_mood.jsonl"
KINDS = {"asks-person": "person", "upset": "upset", "unhelped": "unhelped", "calm": ""}


@cache
def moods() -> Moods:
    return Moods.open()


@cache
def shares(first: int) -> dict[str, float]:
    """Of every second conversation from the `first` on, by kind: those whose mood was told right; none for the calm."""
    rows = [json.loads(line) for line in TALKS.read_text(encoding="utf-8").splitlines()[first - 1 :: 2]]
    right = {kind: [heard(row["texts"]) == mood for row in rows if row["kind"] == kind] for kind, mood in KINDS.items()}
    return {kind: sum(each) / len(each) for kind, each in right.items()}


def heard(turns: list[str]) -> str:
    mood = moods().of(turns)
    return mood.kind if mood else ""


def test_the_half_that_the_thresholds_were_chosen_by() -> None:
    found = shares(1)
    assert found["asks-person"] >= 30 / 31
    assert found["upset"] >= 26 / 32
    assert found["unhelped"] >= 24 / 28
    assert found["calm"] >= 76 / 78


def test_the_half_that_nobody_looked_at_gets_no_worse() -> None:
    """Measured once, when the layer was done."""
    found = shares(2)
    assert found["asks-person"] >= 29 / 31
    assert found["upset"] >= 25 / 32
    assert found["unhelped"] >= 27 / 27
    assert found["calm"] >= 78 / 79
