"""Which of a domain's instructions to use: the one with which the untuned base answers the validation slice best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metier.data.dataset import load, once
from metier.evaluation.answering import answer
from metier.evaluation.metrics import out_of_one, primary_values
from metier.events import Event, Listener, silent
from metier.inference.engine import Engine
from metier.job import Job, prepare
from metier.recipe import Recipe

Wordings = Mapping[str, str]
"""The chosen instruction of each domain that has several."""


def choose_wordings(job: Job, engine: Engine, listen: Listener, *, offline: bool) -> Wordings:
    """Try every instruction on the validation slice; the first of equally good ones is taken."""
    chosen, how = {}, {"offline": offline, "read": once()}
    for domain in job.recipe.domain:
        if domain.instructions:
            scores = {text: _score(job, engine, domain.name, text, how) for text in domain.instructions}
            best = chosen[domain.name] = max(scores, key=scores.__getitem__)
            told = ", ".join(f"{text!r} {score:.3f}" for text, score in scores.items())
            equal = sum(score == scores[best] for score in scores.values()) > 1
            rank = "the first of those that are equally good" if equal else "best"
            text = f"{domain.name}: of {len(scores)} instructions {best!r} is {rank} on validation: {told}"
            listen(Event("note", values={"text": text}))
    return chosen


def worded(job: Job, wordings: Wordings, *, offline: bool) -> Job:
    """The job with its domains asked as chosen; nothing stands in front where it shows nothing."""
    if not wordings:
        return job
    again = prepare(_with(job.recipe, wordings), offline=offline)
    return replace(again, kinds=job.kinds, own=job.own, front=again.front if job.front else job.front)


def _with(recipe: Recipe, wordings: Wordings) -> Recipe:
    changes: dict[str, Any] = {}
    for name, text in wordings.items():
        changes |= {f"domain.{name}.instruction": text, f"domain.{name}.instructions": None}
    return recipe.override(**changes)


def _score(job: Job, engine: Engine, name: str, text: str, how: Mapping[str, Any]) -> float:
    """The domain's primary metric, out of 1, on those items of the job that it chooses by."""
    by = {item.id for each in job.data.domains if each.domain.name == name for item in each.validation}
    data = load(_with(job.recipe, {name: text}), **how)
    (own,) = (each for each in data.domains if each.domain.name == name)
    own = replace(own, validation=tuple(item for item in own.validation if item.id in by))
    items = replace(job, data=replace(data, domains=(own,))).validation
    ((_, metric), value), *_ = primary_values(answer(engine, job.renderer, items, job.limits, silent)).items()
    return out_of_one(metric, value)
