"""`metier eval`: scores of a run, or of the untuned base on a recipe's held-out items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier.cli.common import Json, Offline, Progress, Set, emit, recipe_from
from metier.cli.results import show_scores


def evaluate(
    target: Annotated[Path, typer.Argument(metavar="RUN|RECIPE", help="a run's folder, or a recipe")],
    set_: Set = None,
    json: Json = False,
    offline: Offline = False,
) -> None:
    """Recompute a run's scores from its answers, or measure the untuned base on a recipe's held-out items."""
    from metier import experiment
    from metier.run import Run

    chosen = recipe_from(target, set_) if target.suffix == ".toml" else Run.open(target)
    run = experiment.evaluate(chosen, offline=offline, on_event=Progress())
    if json:
        emit({"run": str(run.directory), **run.scores()})
    else:
        show_scores(run)
