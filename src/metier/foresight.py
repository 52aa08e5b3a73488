"""What a recipe would take: its faults, or its rows and plan, in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from metier import experiment
from metier.data.mappings import explain
from metier.data.sources import SKIP, of_rows
from metier.errors import DoesNotFit, Fault, FaultsError
from metier.job import Job
from metier.recipe import Recipe


def foresee(recipe: Recipe, *, offline: bool) -> dict[str, Any]:
    """Every fault of recipe and data; without one what was read, and the plan, None where it does not fit and why.

    Raises `MetierError` for what is no fault of a recipe or its data, such as a base that cannot be read.
    """
    try:
        job = experiment.check(recipe, offline=offline)
    except FaultsError as error:
        return faulty(error)
    told = _read(job)
    try:
        plan = experiment.plan(job)
    except DoesNotFit as error:
        return {**told, "plan": None, "hint": f"{error}; {error.hint}"}
    return {**told, "plan": {**asdict(plan), "peak": plan.peak}, "hint": plan.long_warmup}


def faulty(error: FaultsError) -> dict[str, Any]:
    """The same of what cannot be read at all; `skippable` where the rows at fault can be left out."""
    skippable = error.hint == SKIP or of_rows(error.faults)
    return {"faults": _listed(error.faults), "skippable": skippable, "hint": error.hint}


def _read(job: Job) -> dict[str, Any]:
    """How the data was understood, with a few items, and what is strange about it."""
    domains = [
        {
            "name": each.domain.name,
            **job.sizes(each),
            "warnings": [str(warning) for warning in each.warnings],
            "read_as": explain(each.domain, each.train),
        }
        for each in job.data.domains
    ]
    left_out = [*job.data.notes, *(fault for each in job.data.domains for fault in each.left_out), *job.dropped]
    facts = {"recipe": job.recipe.to_toml(), "lines": [*job.lines()], "left_out": _listed(left_out)}
    return {"faults": [], "skippable": False, "domains": domains, **facts}


def _listed(faults: Sequence[Fault]) -> list[dict[str, str]]:
    return [asdict(fault) for fault in faults]
