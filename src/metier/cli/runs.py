"""`metier runs`: list the runs there are, or show one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier.cli.common import Json, emit, say
from metier.cli.results import show_scores
from metier.run import Run, list_runs
from metier.tables import Table


def runs(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN|FOLDER]", help="a run to show, or a folder of runs")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs in ./runs (or another folder), newest first; or show one with its scores."""
    folder = run or Path("runs")
    if run and (not folder.is_dir() or (folder / "run.json").exists()):
        _show(Run.open(folder), json)
        return
    folder = folder / "runs" if (folder / "runs").is_dir() else folder
    found = list_runs(folder)
    if json:
        emit([{"run": str(each.directory), **each.facts} for each in found])
    elif not found:
        say(f"no runs in {folder}; they lie in runs/ beside their recipe: `metier runs FOLDER` looks there")
    else:
        rows = [
            (each.name, *(str(each.facts[key]) for key in ("status", "method", "model", "started"))) for each in found
        ]
        print(Table(("run", "status", "method", "model", "started"), rows))


def _show(run: Run, json: bool) -> None:
    if json:
        scores = run.scores() if (run.directory / "scores.json").exists() else None
        emit({**run.facts, "scores": scores})
    elif (run.directory / "scores.json").exists():
        show_scores(run)
    else:
        say(f"{run.directory}: {run.status}{': ' if run.facts['why'] else ''}{run.facts['why']}")
