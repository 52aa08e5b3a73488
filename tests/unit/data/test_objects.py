"""JSON with the lines on which its objects begin; numbers as the file writes them, or as numbers further in."""

from __future__ import annotations

from typing import Any

import pytest

from metier.data.objects import listed, read_objects
from metier.errors import Fault


def read(text: str) -> list[Any]:
    return list(read_objects(text, "x.json"))


def test_a_cells_number_keeps_its_text_and_those_within_are_numbers() -> None:
    assert read('{"a": 1.50, "b": [1.50, 2], "c": {"d": {"e": -3}, "f": "1.50"}, "g": true, "h": NaN}') == [
        (1, {"a": "1.50", "b": [1.5, 2], "c": {"d": {"e": -3}, "f": "1.50"}, "g": True, "h": None})
    ]


def test_a_number_longer_than_python_takes_stays_text() -> None:
    ((_, value),) = read('{"a": [' + "9" * 5000 + "]}")
    assert value["a"] == ["9" * 5000]


def test_an_object_of_objects_gives_each_its_key_and_line() -> None:
    text = '{\n "7": {"a": "x"},\n\n "9":\n  {"a": "y", "id": "own"}\n}\n'
    assert read(text) == [(2, {"id": "7", "a": "x"}), (4, {"id": "own", "a": "y"})]


def test_one_object_of_values_is_one_row() -> None:
    assert read('{"a": "x", "b": {"c": 1}}') == [(1, {"a": "x", "b": {"c": 1}})]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1}\n{"a": }\n', "x.json:2"),
        ('[{"a": 1},\n 2]', "x.json:2"),
        ('[{"a": 1},\n {"a": }]', "x.json:2"),
        ('{"a": 1}\n[1]\n', "x.json:2"),
        ('{"a": "\\ud800"}', "x.json:1"),
        ("[" * 100_000, "x.json:1"),
        ('{"1": {"a": 1}, "2": {"b": }}', "x.json:1"),
    ],
)
def test_a_fault_names_its_line(text: str, place: str) -> None:
    (fault,) = (each for each in read(text) if isinstance(each, Fault))
    assert fault.place == place


@pytest.mark.parametrize(
    ("value", "found"),
    [("[1]", [1]), (' {"a": 1}', {"a": 1}), ("[1", None), ("text", "text"), (None, None), ([1], [1])],
)
def test_lists_in_csv_cells_are_read(value: Any, found: Any) -> None:
    assert listed(value) == found
