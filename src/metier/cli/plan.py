"""`metier plan`: does it fit, how, how long, and why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from metier.cli.common import (
    Json,
    Offline,
    PlanSet,
    Progress,
    RecipePath,
    Set,
    emit,
    overrides,
    recipe_from,
    say,
)
from metier.tables import plan_parts

if TYPE_CHECKING:
    from metier.job import Job
    from metier.planning import Plan


def plan(
    recipe: RecipePath, set_: Set = None, plan: PlanSet = None, json: Json = False, offline: Offline = False
) -> None:
    """Show whether it fits this machine, how, how long, and why."""
    wanted = recipe_from(Path(recipe), set_)
    from metier import experiment  # behind what can be told at once

    job = experiment.check(wanted, offline=offline, on_event=Progress())
    chosen = experiment.plan(job, overrides(plan))
    if json:
        emit({**asdict(chosen), "recipe": job.recipe.values(), "trained": [asdict(kind) for kind in job.kinds]})
    else:
        show_plan(job, chosen)


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
