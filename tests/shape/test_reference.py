"""The reference's tables say what the tests test."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from peft import PeftType

from metier.strategies import METHODS, PEFT_METHODS
from tests.promises import test_families as families
from tests.unit.data import foreign
from tests.unit.data import test_formats as formats

_ROOT = Path(__file__).parents[2]
_REFERENCE = _ROOT / "docs" / "reference"
_TABLE, _FAMILIES, _METHODS = (_REFERENCE / f"{name}.md" for name in ("formats", "families", "methods"))


def test_every_shape_and_format_is_in_the_table_and_no_other() -> None:
    lines = [line.strip("| ").split(" | ") for line in _TABLE.read_text().splitlines() if line.startswith("|")]
    head, _, *rows = lines
    assert head[2:] == formats.FORMATS
    assert [row[0] for row in rows] == list(foreign.SHAPES)
    assert all(set(row[2:]) == {"same"} and len(row) == len(head) for row in rows)


def test_every_method_is_in_the_table_with_no_empty_cell() -> None:
    """What the cells say is measured by tests/promises/test_methods.py."""
    text = _METHODS.read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    rows = {line[0].strip("`"): line[1:] for line in lines}
    own = {"none", "classical", "endpoint", "adapter", "head", "word-list"}
    assert {name for name in rows if not name.startswith("lora, ")} == {*METHODS} - own
    assert all(len(cells) == 6 and all(cells) for cells in rows.values())
    refused = [name for name, cells in rows.items() if cells[0].startswith("refused: ")]
    assert all(f"`{name}`" in text.partition("|---")[2].rpartition("|")[2] for name in refused)  # and why, in words


def test_the_methods_are_those_of_peft() -> None:
    assert {*PEFT_METHODS} == {each.value.lower() for each in PeftType} - {"lora"}


def test_every_family_is_in_the_table_with_what_is_tested() -> None:
    lines = [line for line in _FAMILIES.read_text().splitlines() if line.startswith("|")]
    table = families.table()
    assert lines[: len(table)] == table
    cells = [cell for line in table[2:] for cell in line.strip("| ").split(" | ")[2:]]
    assert len(cells) == 4 * len(families.FAMILIES)
    assert all(cell == "same" or cell.startswith("no: ") for cell in cells)


@pytest.mark.parametrize("page", ["recipe.md", "commands.md"])
def test_the_generated_pages_are_up_to_date(page: str) -> None:
    script = runpy.run_path(str(_ROOT / "scripts" / "reference.py"))
    assert (_ROOT / "docs" / "reference" / page).read_text() == script["PAGES"][page](), "run `make reference`"
