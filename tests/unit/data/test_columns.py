from __future__ import annotations

from collections.abc import Sequence

import pytest

from metier.data.columns import Column, named, survey
from metier.data.sources import Row


def column(name: str, values: Sequence[str]) -> Column:
    return Column(name, tuple(values), len(values))


TEXTS = [f"a text of several words, number {word}" for word in ("one", "two", "three", "four", "five", "six")]


@pytest.mark.parametrize("name", ["customerMessage", "Customer_message", "customer message", "CUSTOMER-MESSAGE"])
def test_names_have_words(name: str) -> None:
    assert column(name, []).parts == ("customer", "message")


def test_text_is_no_part_of_context() -> None:
    assert named([column("context", TEXTS)], ["text"], lambda _: True) is None
    found = named([column("context", TEXTS), column("tweet_text", TEXTS)], ["text"], lambda _: True)
    assert found is not None
    assert found.name == "tweet_text"


def test_a_whole_name_beats_a_part_and_then_the_vocabulary_s_order_counts() -> None:
    found = [column(name, TEXTS) for name in ("text_clean", "body", "text")]
    best = named(found, ["text", "body"], lambda _: True)
    assert best is not None
    assert best.name == "text"
    assert named(found[:1], ["text"], lambda _: True, exact=True) is None


def test_few_short_values_that_repeat_are_labels() -> None:
    assert column("y", ["0", "1"] * 6).is_label
    assert not column("y", ["0", "1"] * 2).is_label
    assert not column("y", ["same"] * 6).is_label
    assert not column("y", TEXTS * 3).is_label  # longer than six words


@pytest.mark.parametrize(
    "found",
    [
        column("user_id", TEXTS),
        column("column 1", TEXTS),
        column("Unnamed: 0", TEXTS),
        column("when", [f"2026-01-{day:02} 10:00" for day in range(1, 9)]),
        column("when", [f"{day}.1.2026" for day in range(1, 9)]),
        column("score", [f"0.{number}" for number in range(9)]),
        column("price", [f"€ {number},50" for number in range(9)]),
        column("source", [f"https://example.org/{number}" for number in range(9)]),
        column("ticket", [f"T-{number}" for number in range(9)]),
        Column("mostly_empty", ("some text",), 9),
    ],
)
def test_what_nobody_reads_is_not_readable(found: Column) -> None:
    assert not found.is_readable


def test_texts_are_readable() -> None:
    assert column("anything", TEXTS).is_text
    assert column("word", ["apple", "pear", "plum"]).is_text
    assert column("", TEXTS).is_text


def test_lists_and_names_with_braces_are_no_columns_for_templates() -> None:
    rows = [Row("x:1", 0, {"a": "text", "b": ["list"], "{c}": "text", "d": None})]
    assert survey(rows) == [Column("a", ("text",), 1), Column("d", (), 1)]
