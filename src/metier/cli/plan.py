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
    table,
)
from metier.figures import duration, size

if TYPE_CHECKING:
    from metier.job import Job
    from metier.planning import Plan


def plan(
    recipe: RecipePath, set_: Set = None, plan: PlanSet = None, json: Json = False, offline: Offline = False
) -> None:
    """Show how this machine would do it: choices with reasons, forecast memory and time."""
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
    shape, train = job.shape, job.recipe.train
    say(f"model    {job.recipe.model}: {shape.parameters / 1e6:,.1f} M parameters, {shape.layers} layers")
    answers = sum(len(unit.rows) for units in job.units.values() for unit in units)
    told = f" with {answers} answers" if answers != shape.examples else ""
    distinct = f"{shape.packed_tokens:,} of them distinct"
    say(f"data     {shape.examples} examples{told}, {shape.row_tokens:,} tokens, {distinct}")
    say(
        f"train    {train.num_train_epochs} epochs × {train.batch_size} examples a step = {chosen.steps} steps, "
        f"learning rate {train.learning_rate}, warm-up {chosen.warmup} steps"
    )
    show_kinds(job)
    if chosen.long_warmup:
        say(f"warning  {chosen.long_warmup}")
    fields = asdict(chosen)
    say("\n" + table(("choice", "value", "why"), [(key, str(fields[key]), why) for key, why in chosen.reasons.items()]))
    say("\n" + table(("memory", "forecast"), [(name, size(value)) for name, value in chosen.memory.items() if value]))
    say(f"peak of {size(chosen.peak)}, in this phase: {chosen.largest}")
    if host := sum(chosen.host_memory.values()):
        say(f"beside it {size(host)} of the machine's own memory")
    say("\n" + table(("time", "forecast"), [(name, duration(value)) for name, value in chosen.seconds.items()]))


def show_kinds(job: Job) -> None:
    """In which kinds of module something moves, and how much in each."""
    if job.kinds:
        say(f"moves    {job.shape.trainable:,} parameters: {', '.join(map(str, job.kinds))}")
