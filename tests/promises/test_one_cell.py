"""One odd cell never changes how the other rows are read: the mapping stays, or the command ends with 2.

Each shape that other tools document has one cell of one row spoiled: taken out, emptied, or of another kind.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from metier.data.guessing import propose
from metier.data.items import Item, make_items
from metier.data.sources import read_rows
from metier.errors import DataError
from tests.unit.data.foreign import COUNT, SHAPES, asked, rows

_DROP = object()
SPOILT = {
    "taken out": _DROP,
    "null": None,
    "empty": "",
    "an empty list": [],
    "a number": 5,
    "a word": "word",
    "a text": "some text that is long",
    "a list": ["only one"],
    "three": ["a x", "b y", "c z"],
    "an object": {"a": 1},
}
LABELLED: dict[str, Callable[[int], dict[str, Any]]] = {
    "labels": lambda n: {"text": asked(n), "label": ("up", "down", "level")[n % 3]},
    "yes or no": lambda n: {"question": asked(n), "answer": ("yes", "no")[n % 2]},
    "a system prompt each": lambda n: {"system": f"Be {n}.", "instruction": asked(n), "output": f"{n} it is."},
    "numbers": lambda n: {"instruction": asked(n), "input": f"See page {n}.", "output": str(n)},
}
KNOWN = SHAPES | LABELLED
CASES = [
    (name, row, column, what)
    for name, shape in KNOWN.items()
    for row in (0, 7, COUNT - 1)
    for column in shape(0)
    for what in SPOILT
]
QUICK = set(random.Random(17).sample(range(len(CASES)), 100))


def read(path: Path, values: list[dict[str, Any]]) -> tuple[dict[str, Any], list[Item]]:
    """The mapping, without what odd labels add to it, and the items."""
    path.write_text("".join(json.dumps(each) + "\n" for each in values))
    domain = propose(path)
    found = make_items(domain, read_rows(domain, path))
    return domain.model_dump(exclude={"name", "data", "labels"}), found


def told(found: list[Item], but: int) -> list[Any]:
    """What the other rows say; the labels that a prompt lists are those of the whole file."""
    others = (item for item in found if item.row != but)
    return [(each.kind, _asked(each), each.reference, each.liked, each.options) for each in others]


def _asked(item: Item) -> list[str]:
    return [message.content.replace("/".join(item.replies), "…") for message in item.messages]


@cache
def good(name: str, folder: Path) -> tuple[dict[str, Any], list[Item]]:
    return read(folder / f"{name}.jsonl", rows(KNOWN[name]))


@pytest.mark.parametrize(
    ("name", "row", "column", "what"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (n not in QUICK)) for n, case in enumerate(CASES)],
)
def test_it_changes_no_other_row(
    name: str, row: int, column: str, what: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mapping, items = good(name, tmp_path_factory.getbasetemp())
    values = copy.deepcopy(rows(KNOWN[name]))
    if SPOILT[what] is _DROP:
        del values[row][column]
    else:
        values[row][column] = SPOILT[what]
    try:
        now, found = read(tmp_path / "x.jsonl", values)
    except DataError:
        return
    assert told(found, row) == told(items, row)
    if all(shape[column] in ("", None) for shape in rows(KNOWN[name])):  # one cell of such a column is read
        mapping, now = {**mapping, "prompt": ""}, {**now, "prompt": ""}
    assert now == mapping
