"""A job → a tuned model: training, its validations, the adapter, and its held-out answers."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from metier.data.items import Item, fingerprint
from metier.data.retrieval import write_shelves
from metier.errors import RunError
from metier.evaluation.answering import answer
from metier.evaluation.forgetting import Beside, ask_general_choices, read_general_text
from metier.evaluation.metrics import out_of_one, primary_values
from metier.evaluation.programs import keep_answers
from metier.evaluation.tradeoff import measure_tradeoff
from metier.events import Event, Listener, silent
from metier.figures import habit
from metier.files import write_directory
from metier.inference.engine import Capacity, Engine
from metier.job import Job
from metier.model.adapters import Adapted, attach, load, load_foreign, restore, save, state
from metier.model.forward import Forward
from metier.model.heads import put
from metier.model.loading import Base
from metier.model.scaling import scale
from metier.model.trials import recompute
from metier.planning import ANSWERS, GENERAL, Plan
from metier.replaying import with_base_answers
from metier.run import Run
from metier.strategies import HeadOnly, Tuned
from metier.training.checkpoint import Progress, Store
from metier.training.loop import Hooks, Settings
from metier.training.loop import train as train_loop
from metier.training.objectives import Dpo, Kto, Likelihood, Objective, read_reference
from metier.training.replay import Replayed

_SWEEP_SHARE = 0.2  # of the steps, for each learning rate that is tried


@dataclass(frozen=True)
class Means:
    """What surrounds a run: choices forced on the plan, the network, who listens, who may stop it, what runs beside."""

    overrides: Mapping[str, Any]
    offline: bool
    listen: Listener
    stop: Callable[[], bool]
    beside_others: bool = False


def tune(run: Run, job: Job, chosen: Plan, base: Base, means: Means) -> dict[str, float]:
    """Train, keep the adapter and answer every held-out item; returns the seconds by purpose."""
    strategy, settings = job.recipe.strategy, _settings(job, chosen, base)
    untuned = make_engine(base.forward, base, chosen)
    job, replayed = with_base_answers(run, job, untuned, means.listen)
    objective, reference = _objective(job, untuned, means)
    assert isinstance(strategy, Tuned)
    network = put(base.network, job.head) if job.head else base.network
    adapted, kinds = attach(network, strategy, settings.seed)
    if chosen.checkpointing:
        recompute(adapted)
    forward = base.forward.over(adapted)
    engine = make_engine(forward, base, chosen)
    run.update(status="started", why="", trained=[asdict(kind) for kind in kinds])
    tuning = _Tuning(forward, engine, objective, settings)
    if job.recipe.train.sweep:
        tuning = replace(tuning, settings=_swept(run, job, tuning, means))
    progress = _train(run, job, tuning, means)
    restore(adapted, progress.best)
    run.write_seen(_seen(job, run.facts.get("wordings", {})))
    run.update(best_step=progress.best_step, steps=progress.step, stopped_early=progress.stopped_early)
    means.listen(Event("note", values={"text": ending(progress, chosen.steps)}))
    beside = Beside(base, forward, job.renderer, job.recipe.train.max_length)
    weighed = _weigh(run, job, beside, engine, progress.best_score or 0.0, means.listen)
    return {
        **replayed,
        **reference,
        "training and validation": progress.seconds,
        **weighed,
        **_measure(run, job, chosen, base, adapted, means),
    }


def _seen(job: Job, worded: Collection[str]) -> dict[str, set[str]]:
    """What this stage and those before learned from and chose by, `worded` domains for their instructions too."""
    learned = {each.domain.name for each in job.learned}
    by = {"train": learned, "validation": learned | {*worded}}
    items = {
        side: [item for each in job.data.domains if each.domain.name in names for item in getattr(each, side)]
        for side, names in by.items()
    }
    return {side: {*job.seen[side], *map(fingerprint, each)} for side, each in items.items()}


def measure_foreign(run: Run, job: Job, chosen: Plan, base: Base, means: Means) -> dict[str, float]:
    """Answer every held-out item with an adapter made elsewhere, and keep it; returns the seconds by purpose."""
    assert job.foreign
    adapted = load_foreign(base.network, job.foreign)
    run.update(status="started", why="")
    run.write_seen(job.seen)
    return _measure(run, job, chosen, base, adapted, means)


def measure_scaled(run: Run, job: Job, chosen: Plan, base: Base, means: Means, whole: Run) -> dict[str, float]:
    """Answer every held-out item with a share of what `whole` trained, which is kept; the seconds by purpose."""
    adapted = load(base.network, whole.adapter, job.identity())
    assert isinstance(job.recipe.strategy, Tuned)
    assert not isinstance(job.recipe.strategy.scale, str), "chosen by now"
    scale(adapted, job.recipe.strategy.scale)
    kept = {name: whole.facts[name] for name in ("trained", "best_step", "steps", "stopped_early")}
    run.update(status="started", why="", whole=whole.name, **kept)
    run.write_seen(whole.seen())
    return _measure(run, job, chosen, base, adapted, means)


def _weigh(run: Run, job: Job, beside: Beside, engine: Engine, best: float, listen: Listener) -> dict[str, float]:
    """What each scale of the adapter scores and forgets on validation; the seconds that it took."""
    assert isinstance(job.recipe.strategy, Tuned)
    if job.recipe.strategy.unscalable or not job.general.validation:
        return {}
    begun = time.monotonic()

    def score() -> float:
        return _validation(job, job.validation, engine)["score"]

    run.write_tradeoff(measure_tradeoff(beside, job.general.validation, best, score, listen))
    return {"trade-off": time.monotonic() - begun}


def _measure(run: Run, job: Job, chosen: Plan, base: Base, adapted: Adapted, means: Means) -> dict[str, float]:
    """Keep the adapter, answer what is held out, read general text."""
    forward = base.forward.over(adapted)
    engine = make_engine(forward, base, chosen)
    write_directory(run.adapter, lambda to: save(adapted, job.identity(), job.renderer.template, to, job.head))
    write_shown(run, job)
    begun = time.monotonic()
    answers = answer(engine, job.renderer, job.heldout, job.limits, means.listen)
    answered, beside = time.monotonic(), Beside(base, forward, job.renderer, job.recipe.train.max_length)
    if not job.head:
        answers += read_general_text(beside, job.general.heldout, means.listen)
        answers += ask_general_choices(beside, job.general.choices, means.listen)
    keep_answers(run, answers, means.listen)
    return {ANSWERS: answered - begun, GENERAL: time.monotonic() - answered}


@dataclass(frozen=True)
class _Tuning:
    """What is tuned, how it is measured, what for, and by which numbers."""

    forward: Forward
    engine: Engine
    objective: Objective
    settings: Settings


def _objective(job: Job, base: Engine, means: Means) -> tuple[Objective, dict[str, float]]:
    """The caller's or the recipe's, with what is replayed beside, and the seconds that it took to prepare."""
    objective, seconds = (job.own, {}) if job.own is not None else _own_objective(job, base, means)
    replay = job.recipe.train.replay
    return (Replayed(objective, replay.share, job.recipe.train.kl) if replay else objective), seconds


def _own_objective(job: Job, base: Engine, means: Means) -> tuple[Objective, dict[str, float]]:
    """The recipe's. Preferences are measured from the base, which no adapter stands on yet."""
    strategy = job.recipe.strategy
    assert isinstance(strategy, Tuned)
    if strategy.objective not in ("dpo", "kto"):
        return Likelihood(), {}
    means.listen(Event("note", values={"text": "reading what the untuned base says of every reply"}))
    begun = time.monotonic()
    reference = read_reference(base, [unit for units in job.units.values() for unit in units])
    assert strategy.beta, "resolved"
    made = (Dpo if strategy.objective == "dpo" else Kto)(strategy.beta, reference)
    return made, {"reference": time.monotonic() - begun}


def _train(run: Run, job: Job, tuning: _Tuning, means: Means) -> Progress:
    """The loop, its events kept with the run."""
    store = Store(run.directory / "checkpoints")
    run.forget_events_after(store.newest_step())
    hooks = Hooks(lambda: _validation(job, job.validation, tuning.engine), run.recorder(means.listen), means.stop)
    return train_loop(tuning.forward, job.steps(), tuning.objective, tuning.settings, store, hooks)


def _swept(run: Run, job: Job, tuning: _Tuning, means: Means) -> Settings:
    """The settings with that rate of the sweep whose short run validates best; of equal ones the lowest.

    A factor once tried is not tried again by a resumed run.
    """
    tried: list[dict[str, Any]] = run.facts.get("sweep", [])
    begun = state(tuning.forward.network)
    for factor in sorted(job.recipe.train.sweep)[len(tried) :]:
        rate = factor * tuning.settings.learning_rate
        score = _tried(run.directory / "sweep" / f"{factor:g}", job, tuning, rate, means)
        restore(tuning.forward.network, begun)
        tried.append({"factor": factor, "learning_rate": rate, "score": score})
        run.update(sweep=tried)
        said = "diverges" if score is None else f"validation score {score:.3f}"
        means.listen(Event("note", values={"text": f"sweep: learning_rate {rate:.2g}: {said}"}))
    shutil.rmtree(run.directory / "sweep", ignore_errors=True)
    if not (stable := [each for each in tried if each["score"] is not None]):
        raise RunError(f"{run.directory}: every learning rate of the sweep diverges", "lower train.learning_rate")
    best = max(stable, key=lambda each: (each["score"], -each["factor"]))
    return replace(tuning.settings, learning_rate=best["learning_rate"])


def _tried(directory: Path, job: Job, tuning: _Tuning, rate: float, means: Means) -> float | None:
    """What a run of a fifth of the steps at this rate scores on validation; None where it diverges."""
    steps = job.steps()
    steps = steps[: math.ceil(_SWEEP_SHARE * len(steps))]
    warmup = math.ceil(tuning.settings.warmup * _SWEEP_SHARE)
    settings = replace(tuning.settings, learning_rate=rate, warmup=warmup, validate_every=len(steps))

    def listen(event: Event) -> None:
        means.listen(replace(event, phase="sweep"))

    hooks = Hooks(lambda: _validation(job, job.validation, tuning.engine), listen, means.stop)
    try:
        return train_loop(tuning.forward, steps, tuning.objective, settings, Store(directory), hooks).best_score
    except RunError:
        return None


def ending(progress: Progress, steps: int) -> str:
    """When a training ended, and whose adapter it keeps."""
    best = f"(validation score {progress.best_score:.3f})"
    if progress.step < steps:
        return f"stopped early after step {progress.step} of {steps}; keeps step {progress.best_step} {best}"
    return f"keeps step {progress.best_step} of {steps}, the best on validation {best}"


def _validation(job: Job, items: Sequence[Item], engine: Engine) -> dict[str, float]:
    """The task's metric of each domain on its validation slice; `score` is their mean, each out of 1."""
    values = primary_values(answer(engine, job.renderer, items, job.limits, silent))
    score = sum(out_of_one(metric, value) for (_, metric), value in values.items()) / len(values)
    return {"score": score, **{f"{domain} {habit(metric).label}": value for (domain, metric), value in values.items()}}


def _settings(job: Job, chosen: Plan, base: Base) -> Settings:
    train = job.recipe.train
    assert not isinstance(train.learning_rate, str)
    return Settings(
        learning_rate=train.learning_rate,
        schedule=train.lr_scheduler_type,
        warmup=chosen.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
        tokens_per_batch=chosen.tokens_per_batch,
        boundary=base.boundary,
        validate_every=chosen.validate_every,
        checkpoint_every=chosen.checkpoint_every,
        patience=train.early_stopping_patience,
        loss_scaling=chosen.compute == "float16",
    )


def make_engine(forward: Forward, base: Base, chosen: Plan) -> Engine:
    """The engine that evaluates, by the plan's means."""
    return Engine(forward, Capacity(chosen.tokens_per_batch, chosen.sequences), boundary=base.boundary)


def worth_saying(job: Job, chosen: Plan) -> Iterator[str]:
    """What moves, and what a user may not have meant."""
    if job.head:
        yield "a head leaves no language model: what was forgotten of it is not measured"
    if job.kinds:
        yield f"trains {job.shape.trainable:,} parameters: {', '.join(map(str, job.kinds))}"
    if chosen.long_warmup:
        yield f"warning: {chosen.long_warmup}"
    if left := [kind.name for kind in job.kinds if not (kind.adapted or isinstance(job.recipe.strategy, HeadOnly))]:
        yield f"warning: {', '.join(left)} stay as they are: target_modules names {len(job.kinds) - len(left)} kinds"
    if (outside := job.shape.unreached) > 0.05 * job.shape.parameters:
        share = outside / job.shape.parameters
        yield f"warning: {share:.0%} of the base (experts) are no linear layers: neither adapted nor stored in 4 bits"
    if job.dropped:
        yield f"warning: {len(job.dropped)} training examples exceed max_length and are dropped: {job.dropped[0]}, …"


def write_shown(run: Run, job: Job) -> None:
    """Who talks with the run is answered as it was measured."""
    if job.front.shots:
        run.write_shots({domain: shots.to_json() for domain, shots in job.front.shots.items()})
    if job.front.shelves:
        run.write_passages(write_shelves(job.front.shelves))
