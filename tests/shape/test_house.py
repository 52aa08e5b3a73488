"""The house as docs/concepts/house.md draws it: order of imports, one room a vendor, sizes that fit a head."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "metier"
MATERIALS = {"torch", "numpy", "safetensors", "pydantic", "pydantic_core"}
ISLANDS = {"trees": set(), "resampling": set(), "scores": {"resampling"}, "kernels": set()}
LINE = re.compile(r"^\d+\. `(\w+)`( \*light\*)?: [^\[]*(?:\[([^\]]*)\])?$")


@dataclass(frozen=True)
class Unit:
    name: str
    light: bool
    vendors: frozenset[str]


def units() -> list[Unit]:
    lines = (ROOT / "docs/concepts/house.md").read_text().splitlines()
    found = [match.groups() for line in lines if (match := LINE.match(line))]
    return [Unit(name, bool(light), frozenset((vendors or "").split(", ")) - {""}) for name, light, vendors in found]


UNITS = units()
ORDER = [unit.name for unit in UNITS]
FILES = sorted(SOURCE.rglob("*.py"))


def unit_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("metier.")}


_DOORS = {"__init__", "__main__"}  # the public names, imported when they are asked for, and the command


def test_every_unit_is_on_the_list_and_every_line_is_a_unit() -> None:
    assert {unit_of(path) for path in FILES} - _DOORS == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_unit_imports_only_units_above_it(path: Path) -> None:
    unit = unit_of(path)
    if unit in _DOORS:
        return
    above = set(ORDER[: ORDER.index(unit) + 1])
    assert ours(path) <= above
    if unit in ISLANDS:
        assert ours(path) <= {unit, "errors", *ISLANDS[unit]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_vendor_has_its_house(path: Path) -> None:
    unit = next((unit for unit in UNITS if unit.name == unit_of(path)), None)
    vendors = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - MATERIALS - {"metier"}
    assert vendors <= (unit.vendors if unit else frozenset())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_fit_a_head(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


def test_light_units_load_no_torch() -> None:
    """Run in a child: other tests have loaded everything already."""
    import subprocess

    names = [f"metier.{unit.name}" for unit in UNITS if unit.light]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_module_bears_the_name_of_a_function_beside_it() -> None:
    """Modules are nouns, functions are verbs; the verbs of the command line alone are files."""
    for path in FILES:
        if unit_of(path) == "cli":
            continue
        functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert path.stem not in functions


def test_nothing_catches_everything_but_the_edge() -> None:
    # Each names its reason.
    reasoned = {SOURCE / "data" / "rendering.py", SOURCE / "evaluation" / "tasks.py"}
    reasoned |= {SOURCE / "inference" / name for name in ("worker.py", "rows.py", "elsewhere.py")}
    reasoned |= {SOURCE / "web" / name for name in ("chat.py", "jobs.py", "guard.py", "lessons.py")}
    allowed = {SOURCE / "cli" / "main.py"} | reasoned
    for path in FILES:
        if "except Exception" in path.read_text():
            assert path in allowed
