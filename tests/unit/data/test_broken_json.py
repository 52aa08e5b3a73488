"""JSON that is broken somewhere is complained of where it is broken, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metier.data.objects import read_objects
from metier.errors import Fault

ROWS = {f"k{n}": {"prompt": f"question {n}", "answer": f"answer {n}"} for n in range(5)}
KEYED = json.dumps(ROWS, indent=1)


def read(text: str) -> list[tuple[int, dict[str, Any]] | Fault]:
    return list(read_objects(text, "x.json"))


def test_an_object_by_id_that_breaks_off_keeps_what_stands_in_front() -> None:
    *rows, fault = read(KEYED[: KEYED.index("question 3")])
    assert len(rows) == 3
    assert isinstance(fault, Fault)
    assert fault.place == "x.json:14"


@pytest.mark.parametrize("indent", [1, None])
def test_a_stranger_among_objects_by_id_is_named(indent: int | None) -> None:
    found = read(json.dumps({**ROWS, "seed": 3}, indent=indent))
    assert [each.problem for each in found if isinstance(each, Fault)] == ["is not a JSON object"]
    assert len(found) == 6


def test_one_broken_object_over_many_lines_is_one_fault() -> None:
    (fault,) = read('{\n "prompt": "a",\n "answer" "b",\n "c": 3\n}\n')
    assert isinstance(fault, Fault)
    assert fault.place == "x.json:3"


def test_lines_behind_a_broken_one_are_still_read() -> None:
    first, second = read('{"prompt": "a"\n{"prompt": "b"}\n')
    assert isinstance(first, Fault)
    assert second == (2, {"prompt": "b"})


def test_rows_that_begin_with_an_object_are_lines() -> None:
    line = json.dumps({"about": {"a": 1}, "prompt": "b"})
    assert len(read(f"{line}\n{line}\n")) == 2


def test_a_list_of_texts_is_one_fault() -> None:
    (fault,) = read('["one", "two", 3]')
    assert isinstance(fault, Fault)
    assert fault.problem == "holds values, but no JSON objects"
