"""Who is upset, unhelped or asks for a person is heard, and the calm are left alone, in words by somebody who had not
seen the rules."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from metier.assistant.mood import Moods
from tests import opened

TALKS = Path(__file__).parents[1] / "safety"
KINDS = {"asks-person": "person", "upset": "upset", "unhelped": "unhelped", "calm": ""}


@cache
def moods() -> Moods:
    return opened.moods()


@cache
def shares(name: str, first: int, step: int = 2) -> dict[str, float]:
    """Of every `step`th conversation from the `first` on, by kind: those that were heard right."""
    rows = [json.loads(line) for line in (TALKS / name).read_text(encoding="utf-8").splitlines()[first - 1 :: step]]
    right = {kind: [heard(row["texts"]) == mood for row in rows if row["kind"] == kind] for kind, mood in KINDS.items()}
    return {kind: sum(each) / len(each) for kind, each in right.items()}


def heard(turns: list[str]) -> str:
    mood = moods().of(turns)
    return mood.kind if mood else ""


@pytest.mark.long
def test_conversations_that_the_thresholds_were_chosen_by() -> None:
    found = shares("fresh_mood.jsonl", 1, 1)
    assert found["asks-person"] >= 58 / 62
    assert found["upset"] >= 56 / 64
    assert found["unhelped"] >= 51 / 55
    assert found["calm"] >= 151 / 157


def test_short_messages_to_desks_of_all_kinds() -> None:
    """Measured once before their like was learned: 47, 37 and 31 of 50 by that name, 199 of 200 calm."""
    found = shares("short_mood.jsonl", 1, 1)
    assert found["asks-person"] >= 47 / 50
    assert found["upset"] >= 40 / 50
    assert found["unhelped"] >= 36 / 50
    assert found["calm"] >= 198 / 200


def test_customers_of_all_trades_are_seldom_handed_over() -> None:
    """Measured once before their like was learned: 13 of 320."""
    rows = [json.loads(line) for line in (TALKS / "trades.jsonl").read_text(encoding="utf-8").splitlines()]
    calm = [row["text"] for row in rows if row["kind"] == "harmless"]
    assert sum(bool(heard([text])) for text in calm) <= 7


def test_the_half_that_nobody_looked_at_gets_no_worse() -> None:
    """Measured once, when the layer was done."""
    found = shares("third_mood.jsonl", 2)
    assert found["asks-person"] >= 26 / 30
    assert found["upset"] >= 23 / 30
    assert found["unhelped"] >= 23 / 30
    assert found["calm"] >= 97 / 100


def test_a_few_words_in_the_midst_of_a_talk_hand_hardly_anybody_over() -> None:
    rows = map(json.loads, (TALKS / "fragments.jsonl").read_text(encoding="utf-8").splitlines())
    found = [heard(["how do I order a plant", row["text"]]) for row in rows]
    assert sum(map(bool, found)) <= 0.04 * len(found)
