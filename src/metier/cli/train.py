"""`metier train`: tune, measure against base and baseline, report."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.cli.common import Json, Offline, PlanSet, Progress, Set, emit, overrides, recipe_from, say
from metier.cli.results import show_scores
from metier.errors import MetierError
from metier.recipe import Recipe

if TYPE_CHECKING:
    from metier.run import Run

_GATE = 3


def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="a recipe (toml)")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="continue a run that was interrupted")] = None,
    set_: Set = None,
    plan: PlanSet = None,
    json: Json = False,
    offline: Offline = False,
) -> None:
    """Tune, measure against base and baseline, and write a report."""
    if (recipe is None) == (resume is None):
        raise MetierError("give either a recipe, or --resume with a run", "metier train recipe.toml")
    if resume is not None:
        from metier.run import Run

        if set_:
            raise MetierError("--resume continues a run as it is; --set would make it another", "train the recipe")
        begun = Run.open(resume)
        run = train_recipe(begun.recipe(), plan, offline=offline, resume=begun)
    else:
        assert recipe is not None
        run = train_recipe(recipe_from(recipe, set_), plan, offline=offline)
    if json:
        emit({"run": str(run.directory), **run.scores()})
    else:
        show_scores(run)
    if any(not guard["passed"] for guard in run.scores()["guard"].values()):
        raise SystemExit(_GATE)


def train_recipe(recipe: Recipe, plan: list[str] | None, *, offline: bool, resume: Run | None = None) -> Run:
    """Train with progress on stderr; the first Ctrl-C ends the step and writes a checkpoint."""
    from metier import experiment

    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        say("\nstopping after this step (Ctrl-C again: at once, back to the last checkpoint)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        how: dict[str, Any] = {"overrides": overrides(plan), "offline": offline, "resume": resume}
        return experiment.train(recipe, **how, on_event=Progress(), stop=lambda: bool(asked))
    finally:
        signal.signal(signal.SIGINT, before)
