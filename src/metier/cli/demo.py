"""`metier demo`: the whole way on the embedded model and sample data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import say
from metier.cli.plan import show_plan
from metier.cli.results import show_scores
from metier.cli.shipped import shipped
from metier.cli.train import train_recipe
from metier.files import write_atomic
from metier.recipe import Recipe

if TYPE_CHECKING:
    from metier.run import Run

_SHOWN = 2


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="where to work")] = Path("metier-demo"),
) -> None:
    """Do everything on the embedded model and data, in minutes.

    Check, plan, tune, measure, report, and show answers before and after.
    """
    from metier import experiment

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    if not path.exists():
        write_atomic(path, shipped("recipes")["quickstart"].read_text(encoding="utf-8"))
    recipe = Recipe.load(path)
    say(f"$ metier plan {path}\n")
    job = experiment.check(recipe, offline=True)
    show_plan(job, experiment.plan(job))
    say(f"\n$ metier train {path}\n")
    run = train_recipe(recipe, None, offline=True)
    show_scores(run)
    show_before_after(run)
    say(f"\nnext: metier chat {run.directory}, or your own data: metier init FILE")


def show_before_after(run: Run) -> None:
    """Some held-out answers of the untuned base and of the tuned model, side by side."""
    from metier.run import Run as Opened

    base = Opened.open(run.directory.parent / run.scores()["against"]["none"]["run"])
    before = {(answer["domain"], answer["id"]): answer for answer in base.answers()}
    shown: dict[str, int] = {}
    for after in run.answers():
        asked = (after["domain"], after["id"])
        if asked in before and shown.setdefault(after["domain"], 0) < _SHOWN:
            shown[after["domain"]] += 1
            say(f"\n[{after['domain']}] {after['prompt']}")
            say(f"  before: {before[asked].get('output', '')}")
            say(f"  after:  {after.get('output', '')}")
            say(f"  wanted: {after['reference']}")
