"""The reference's tables say what the tests test."""

from __future__ import annotations

from pathlib import Path

from tests.unit.data import test_formats as formats

_TABLE = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"


def test_every_shape_and_format_is_in_the_table_and_no_other() -> None:
    lines = [line.strip("| ").split(" | ") for line in _TABLE.read_text().splitlines() if line.startswith("|")]
    head, _, *rows = lines
    assert head[2:] == formats.FORMATS
    shapes = [*formats.PLAIN, *formats.SYSTEM, formats.alpaca_with_all]
    assert {row[0] for row in rows} == {shape.__name__ for shape in shapes}
    assert all(set(row[2:]) == {"same"} and len(row) == len(head) for row in rows)
