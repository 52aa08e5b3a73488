"""A tiny base with data in two domains, one with labels and one with open answers, and a little general text."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.unit import tiny

DOMAINS = """
model = "base"
[[domain]]
name = "mood"
data = "mood.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
heldout = 0.4
[[domain]]
name = "help"
data = "help.csv"
prompt = "{question}"
answer = "{answer}"
heldout = 0.4"""
"""The beginning of a recipe; what follows still speaks of the last domain."""


def write(home: Path) -> None:
    """The base and the data."""
    tiny.save(home / "base")
    moods = [(f"share {n} {('rises', 'falls')[n % 2]}", ("up", "down")[n % 2]) for n in range(40)]
    helps = [(f"how do I open the {n}th box?", f"lift lid {n % 3}") for n in range(40)]
    tables: dict[str, list[tuple[str, ...]]] = {
        "mood.csv": [("text", "label"), *moods],
        "help.csv": [("question", "answer"), *helps],
        "general.csv": [("text",), ("The sea is calm today.",), ("Two and two make four.",)],
    }
    for name, rows in tables.items():
        with (home / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
