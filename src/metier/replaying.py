"""What the untuned base itself says to general prompts, so that tuning on it changes the base least."""

from __future__ import annotations

import time
from dataclasses import replace

from metier.errors import RunError
from metier.evaluation.answering import answer
from metier.evaluation.answers import read_answers, to_json
from metier.events import Event, Listener
from metier.files import write_atomic
from metier.inference.engine import Engine
from metier.job import Job
from metier.run import Run


def with_base_answers(run: Run, job: Job, base: Engine, listen: Listener) -> tuple[Job, dict[str, float]]:
    """The job with the base's own answers where its recipe asks for them, and the seconds that they took.

    They are decoded greedily, once: a run that continues reads them from its directory. As many prompts are
    answered as the run's steps take. Raises `RunError` where the base says nothing to any of them.
    """
    spec, max_length = job.recipe.train.replay, job.recipe.train.max_length
    if spec is None or spec.answers != "base":
        return job, {}
    begun = time.monotonic()
    pool = job.replay.first(sum(unit.replay for units in job.steps() for unit in units))
    if not run.replay.exists():
        listen(Event("note", values={"text": f"the untuned base answers {len(pool.items)} general prompts"}))
        answers = answer(base, job.renderer, pool.items, job.limits, listen, "replay")
        write_atomic(run.replay, "".join(f"{to_json(each)}\n" for each in answers))
    said = {each.id: (each.output or "", bool(each.stopped)) for each in read_answers(run.replay)}
    answered = pool.answered(said, job.renderer, max_length)
    if not answered.units:
        hint = "give other prompts in train.replay, or the file's own answers"
        raise RunError("train.replay: the untuned base says nothing that could be replayed", hint)
    return replace(job, replay=answered), {"replay answers": time.monotonic() - begun}
