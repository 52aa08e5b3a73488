"""`metier runs`: list the runs there are, or show one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from metier.cli.common import Json, emit, say
from metier.cli.results import show_scores
from metier.errors import RunError
from metier.evaluation.answers import GENERAL
from metier.figures import habit, with_unit
from metier.run import Run, list_runs
from metier.tables import Table


def runs(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN|FOLDER]", help="a run to show, or a folder of runs")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="list what runs were compared with, too")] = False,
    json: Json = False,
) -> None:
    """List runs with their scores, newest first, or show one.

    Without an argument those in ./runs.
    """
    folder = run or Path("runs")
    if run and (not folder.is_dir() or (folder / "run.json").exists()):
        _show(Run.open(folder), json)
        return
    folder = folder / "runs" if (folder / "runs").is_dir() else folder
    found, faults = list_runs(folder)
    for fault in faults:
        say(f"left out: {fault}{f'; {fault.hint}' if fault.hint else ''}")
    if json:
        emit([{"run": str(each.directory), **each.facts, "status": each.status} for each in found])
    elif not (found or faults):
        say(f"no runs in {folder}; they lie in runs/ beside their recipe: `metier runs FOLDER` looks there")
    elif found:
        _list(found, every)


def _list(found: Sequence[Run], every: bool) -> None:
    scores = {each.name: _scores(each) for each in found}
    theirs = {each["run"] for own in scores.values() for each in own.get("against", {}).values()}
    shown = [each for each in found if every or each.name not in theirs]
    facts = ("method", "model", "started")
    rows = [
        (each.name, each.status, *(str(each.facts.get(key, "")) for key in facts), _scored(scores[each.name]))
        for each in shown
    ]
    print(Table(("run", "status", *facts, "scores on held-out items"), rows))
    if hidden := len(found) - len(shown):
        say(f"\n{hidden} that they were compared with (the untuned base, the classical baseline): metier runs --all")


def _scores(run: Run) -> dict[str, Any]:
    try:
        return run.scores() if run.has_scores else {}
    except RunError as error:
        say(f"without its scores: {error}; {error.hint}")
        return {}


def _scored(scores: Mapping[str, Any]) -> str:
    """The primary score of each domain."""
    found = [(each["domain"], each["scores"][0]) for each in scores.get("domains", ()) if each["kind"] not in GENERAL]
    return ", ".join(
        f"{domain} {with_unit(score['metric'], score['value'])} {habit(score['metric']).label}"
        for domain, score in found
    )


def _show(run: Run, json: bool) -> None:
    if json:
        emit({**run.facts, "status": run.status, "scores": run.scores() if run.has_scores else None})
    elif run.has_scores:
        show_scores(run)
    else:
        say(f"{run.directory}: {run.status}{': ' if run.facts['why'] else ''}{run.facts['why']}")
