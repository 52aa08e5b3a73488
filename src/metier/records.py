"""Which run a job is: what it depends on, as hashes, and the directory that is found or made by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from metier import run as runs
from metier.errors import RunError
from metier.files import digest
from metier.hardware import probe
from metier.identity import key
from metier.job import Job
from metier.model.adapters import foreign_digest
from metier.planning import Plan
from metier.recipe import Recipe
from metier.run import Run
from metier.training.objectives import source_of


def parts_of(job: Job, chosen: Plan) -> dict[str, str]:
    """What a run depends on beside its recipe's own values, as hashes."""
    parts = {"heldout": job.data.heldout_hash, "base": job.source.weights_digest, "format": chosen.number_format}
    parts |= {"tokenizer": job.renderer.tokenizer_digest, "template": job.renderer.template_digest}
    if job.kinds:
        parts["train"] = replace(job.data, domains=tuple(job.learned)).train_hash
        if job.replay.items:
            parts["replay"] = job.replay.digest
    if job.kinds or job.foreign:
        parts["general"] = job.general.digest
    if job.foreign:
        parts["adapter"] = foreign_digest(job.foreign)
    parts |= job.front.digests
    if asked := {domain.name: domain.instructions for domain in job.recipe.domain if domain.instructions}:
        parts["wordings"] = digest([asked, job.data.train_hash])  # validation, on which one is chosen, included
    if job.kinds and job.own is not None:
        parts["objective"] = digest(source_of(job.own))
    return parts


def assert_same(run: Run, parts: Mapping[str, str]) -> None:
    then = run.facts["hashes"]
    if changed := [name for name in {**then, **parts} if parts.get(name) != then.get(name)]:
        problem = f"{run.directory}: cannot continue: {', '.join(changed)} changed since it began"
        raise RunError(problem, f"restore it, or start a new run with: metier train {run.recipe().path}")


def create(job: Job, parts: Mapping[str, str], **facts: Any) -> Run:
    counts = {
        each.domain.name: {
            **job.sizes(each),
            "target_tokens": job.target_tokens[each.domain.name],
            "weight": job.weights.get(each.domain.name, 0.0),
            "columns": each.columns,
        }
        for each in job.data.domains
    }
    facts |= {"data": counts, "hashes": dict(parts), "revision": job.source.revision}
    facts |= {"dropped": [str(fault) for fault in job.dropped], "seed": job.recipe.train.seed}
    facts |= {"left_out": [str(fault) for each in job.data.domains for fault in each.left_out]}
    facts |= {"skipped": [str(fault) for fault in job.data.skipped]}
    facts |= {"notes": [str(fault) for fault in job.data.notes], "leaks": [str(fault) for fault in job.front.leaks]}
    facts |= {"sources": {name: at for each in job.data.domains for name, at in each.revisions.items()}}
    facts |= {"machine": asdict(probe())}
    return runs.find_or_create(job.recipe.directory / "runs", _as_read(job), key(job.recipe, **parts), facts)


def _as_read(job: Job) -> Recipe:
    """The recipe with the mappings that were guessed, so that who talks with the run is asked as its rows were."""
    read = {each.domain.name: each.domain for each in job.data.domains}
    whole = (read.get(domain.name, domain) for domain in job.recipe.domain)
    domains = (each.model_copy(update={"instruction": None}) if each.instructions else each for each in whole)
    return job.recipe.model_copy(update={"domain": tuple(domains)})
