"""`metier plan`: does it fit, how, how long, and why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.cli.common import (
    Json,
    Offline,
    PlanSet,
    Progress,
    Set,
    emit,
    overrides,
    recipe_from,
    say,
)
from metier.grid import Comparison, is_comparison
from metier.tables import as_text, plan_parts

if TYPE_CHECKING:
    from metier.job import Job
    from metier.planning import Plan


def plan(
    target: Annotated[Path, typer.Argument(metavar="RECIPE|COMPARISON", help="a recipe or a comparison (toml)")],
    set_: Set = None,
    plan: PlanSet = None,
    json: Json = False,
    offline: Offline = False,
) -> None:
    """Show whether it fits this machine, how, how long, and why.

    Of a comparison: for every line the time that its missing runs take, and the most memory.
    """
    if is_comparison(target):
        _plan_comparison(Comparison.load(target, overrides(set_)), overrides(plan), json=json, offline=offline)
        return
    wanted = recipe_from(target, set_)
    from metier import experiment  # behind what can be told at once

    job = experiment.check(wanted, offline=offline, on_event=Progress())
    chosen = experiment.plan(job, overrides(plan))
    if json:
        emit({**asdict(chosen), "recipe": job.recipe.values(), "trained": [asdict(kind) for kind in job.kinds]})
    else:
        show_plan(job, chosen)


def _plan_comparison(comparison: Comparison, forced: dict[str, Any], *, json: bool, offline: bool) -> None:
    from metier.comparison.forecast import forecast_lines, parts
    from metier.comparison.running import How, look_ahead

    how = How(forced, offline, 1, Progress())
    lines = forecast_lines(look_ahead(comparison, how), how)
    if json:
        emit([asdict(line) for line in lines])
    else:
        say(f"\n{as_text([*parts(lines)])}")


def show_plan(job: Job, chosen: Plan) -> None:
    """What was resolved, what moves, which means and why, memory and time."""
    for line in job.lines():
        say(line)
    train = job.recipe.train
    say(
        f"train    {train.num_train_epochs} epochs × {train.batch_size} examples a step = {chosen.steps} steps, "
        f"learning rate {train.learning_rate}, warm-up {chosen.warmup} steps"
    )
    if chosen.long_warmup:
        say(f"warning  {chosen.long_warmup}")
    for part in plan_parts(asdict(chosen)):
        say()
        say(part)
