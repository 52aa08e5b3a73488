"""What a comparison found: a folder with its table as data, as a page and as text, all of it following from runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier.comparison.layouts import Routing
from metier.comparison.running import How, Train, run_all
from metier.comparison.summary import as_csv, markdown, parts
from metier.comparison.table import FORMAT, tabulate
from metier.errors import RunError
from metier.evaluation.lines import Line, Runs
from metier.events import Listener, silent
from metier.figures import as_kept
from metier.files import read_json, write_atomic
from metier.grid import Comparison
from metier.report.contest import render
from metier.tables import Part, as_text, html

_FILE, _PAGE, _CSV, _SUMMARY = "comparison.json", "report.html", "table.csv", "summary.md"


@dataclass(frozen=True, repr=False)
class Outcome:
    """A finished comparison's folder."""

    directory: Path

    @classmethod
    def open(cls, path: str | Path) -> Outcome:
        """By its folder, or a file in it. Raises `RunError` where there is none of this format."""
        path = Path(path).resolve()
        directory = path if path.is_dir() else path.parent
        outcome = cls(directory)
        found = outcome.values.get("format")
        if found != FORMAT:
            problem = f"{directory}: was written by another metier (format {found}, this one's is {FORMAT})"
            raise RunError(problem, "run the comparison again: its runs are found, not repeated")
        return outcome

    @property
    def values(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = read_json(self.directory / _FILE)
        except OSError:
            problem = f"{self.directory}: holds no comparison"
            raise RunError(problem, "`metier compare FILE` writes one into comparisons/") from None
        except ValueError:
            problem = f"{self.directory / _FILE}: is not JSON any more"
            raise RunError(problem, "run the comparison again: its runs are found, not repeated") from None
        return values

    @property
    def report(self) -> Path:
        return self.directory / _PAGE

    @property
    def table(self) -> dict[str, Any]:
        table: dict[str, Any] = self.values["table"]
        return table

    def csv(self) -> str:
        return (self.directory / _CSV).read_text(encoding="utf-8")

    def markdown(self) -> str:
        return (self.directory / _SUMMARY).read_text(encoding="utf-8")

    def parts(self) -> Iterator[Part]:
        yield from parts(self.table)

    def __repr__(self) -> str:
        return as_text(self.parts())

    def _repr_html_(self) -> str:
        return html(self.parts())


def compare(
    comparison: Comparison,
    *,
    overrides: Mapping[str, Any] | None = None,
    offline: bool = False,
    jobs: int = 1,
    on_event: Listener = silent,
    train: Train | None = None,
) -> Outcome:
    """Run what is missing of every strategy, and write the table. Called again after a crash, it continues.

    `train` stands in for a child process a run. Raises `RecipeError` with every fault before anything starts.
    """
    how = How(overrides or {}, offline, jobs, on_event)
    how = how if train is None else replace(how, train=train)
    found = run_all(comparison, how, comparison.path.parent / _runs_folder(comparison))
    return _write(comparison, how.overrides, *found)


def check(outcome: Outcome) -> list[str]:
    """What differs between a comparison's files and what its runs' answers give; empty where nothing does.

    Raises `RunError` where a run is gone.
    """
    values = outcome.values
    files = _files(_comparison(outcome, values), values)
    differing = []
    for name, content in files.items():
        path = outcome.directory / name
        kept = path.read_text(encoding="utf-8") if path.exists() else ""
        if kept != content:
            differing.append(f"{path}:{_first_difference(kept, content)}")
    return differing


def _first_difference(kept: str, wanted: str) -> str:
    """The first line that differs, as it is and as it should be."""
    pairs = zip([*kept.splitlines(), ""], [*wanted.splitlines(), ""], strict=False)
    for number, (ours, theirs) in enumerate(pairs, start=1):
        if ours != theirs:
            return f"{number}: is {ours.strip()[:80]!r}, the runs give {theirs.strip()[:80]!r}"
    return "1: has other lines than the runs give"


def _comparison(outcome: Outcome, values: Mapping[str, Any]) -> Comparison:
    return Comparison.of(values["comparison"], outcome.directory.parent.parent / values["file"])


def _write(
    comparison: Comparison, plan: Mapping[str, Any], lines: Sequence[Line], routings: Sequence[Routing]
) -> Outcome:
    head = {
        "format": FORMAT,
        "file": comparison.path.name,
        "runs": str(_runs_folder(comparison)),
        "comparison": comparison.model_dump(mode="json", exclude_none=True),
        "changes": dict(comparison.changes),
        "plan": dict(plan),
        "lines": [line.to_json() for line in lines],
        "routings": [each.to_json() for each in routings],
    }
    files = _files(comparison, json.loads(json.dumps(head)))
    comparison.directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(comparison.directory / name, content)
    return Outcome(comparison.directory)


def _files(comparison: Comparison, head: Mapping[str, Any]) -> dict[str, str]:
    """Every file of the folder, by name."""
    lines = [Line.of_json(each) for each in head["lines"]]
    routings = [Routing.of_json(each) for each in head["routings"]]
    runs = Runs(comparison.path.parent / head["runs"])
    named = {name for line in lines for source in line.sources for name in source.runs}
    if gone := sorted(name for name in named if not runs.has(name)):
        raise RunError(f"{runs.folder}: {', '.join(gone)}: is gone", "run the comparison again")
    kept = {key: value for key, value in head.items() if key != "table"}
    table = _rounded(tabulate(comparison, lines, routings, runs))
    whole = {**kept, "table": table}
    return {
        _FILE: json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=False) + "\n",
        _CSV: as_csv(table),
        _SUMMARY: markdown(comparison.path.stem, table),
        _PAGE: render(whole, runs.folder),
    }


def _rounded(value: Any) -> Any:
    """Every number in it as it is kept."""
    match value:
        case float():
            return as_kept(value)
        case Mapping():
            return {key: _rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
    return value


def _runs_folder(comparison: Comparison) -> Path:
    """Relative to the comparison's own file."""
    recipe = Path(comparison.recipe)
    return recipe.parent / "runs"
