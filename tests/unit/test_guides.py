"""The guides, executed in order in an empty folder: what they say is printed is printed, but for its numbers."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
QUICK = {"own-data", "one-gpu"}  # the others train, even if little
PAGES = sorted(path.stem for path in GUIDES.glob("*.md") if path.stem != "benchmarks")  # it has a test of its own
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PAGES]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def guides() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "guides.py"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PAGES]
)
def test_a_guide_does_what_it_says(name: str, guides: dict[str, Any]) -> None:
    text = (GUIDES / f"{name}.md").read_text()
    with guides["somewhere_new"]():
        done = guides["execute"](text)
    assert guides["comparable"](done) == guides["comparable"](text)


@pytest.mark.slow
def test_the_notebook_runs_cell_by_cell(guides: dict[str, Any]) -> None:
    text = (GUIDES / "notebook.ipynb").read_text()
    with guides["somewhere_new"]():
        done = guides["execute_notebook"](text)
    assert all(kinds for kinds in _kinds(text)[1:])
    assert _kinds(done) == _kinds(text)


def _kinds(notebook: str) -> list[list[str]]:
    """Of every code cell the kinds of its outputs."""
    cells = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]
    return [
        [kind for output in cell["outputs"] for kind in output.get("data", [output["output_type"]])] for cell in cells
    ]


@pytest.mark.parametrize("page", [*sorted(path.name for path in GUIDES.iterdir()), "../../README.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    path = GUIDES / page
    links = LINK.findall(path.read_text())
    assert all((path.parent / link).exists() for link in links), links
    if page.endswith(".md") and not page.startswith(".."):
        text = path.read_text()
        assert page == "benchmarks.md" or ("\nYou get: " in text and "\n## Where to go on\n" in text)
