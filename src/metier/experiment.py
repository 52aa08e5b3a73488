"""One recipe → one run, measured beside its untuned base and the classical baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from metier import hub
from metier import run as runs
from metier.data.classes import HeadRenderer
from metier.data.dataset import remember
from metier.data.showing import Front
from metier.errors import Fault, RecipeError, RunError
from metier.evaluation.answering import answer
from metier.evaluation.answers import Answer
from metier.evaluation.baseline import UNANSWERED, baseline_answers
from metier.evaluation.own import Own, check_own
from metier.evaluation.programs import keep_answers
from metier.evaluation.scoring import write_scores
from metier.evaluation.words import WordLists
from metier.events import Event, Listener, silent
from metier.hardware import Layer, measure, peak_memory, probe, settle
from metier.identity import key
from metier.job import Job, prepare
from metier.model.heads import open_base
from metier.model.loading import Base, NumberFormat
from metier.planning import ANSWERS, MEASURING, Plan
from metier.planning import plan as make_plan
from metier.recipe import Recipe
from metier.records import assert_same, create, parts_of
from metier.remote import answer_remotely, items_of
from metier.report.page import write_report
from metier.run import Run
from metier.strategies import Classical, Endpoint, Foreign, Untuned, WordList
from metier.training.checkpoint import Store
from metier.training.loop import Stopped
from metier.training.objectives import Objective
from metier.tuning import Means, make_engine, measure_foreign, measure_scaled, tune, worth_saying, write_shown
from metier.wording import choose_wordings, worded


def check(recipe: Recipe, *, offline: bool = False, on_event: Listener = silent) -> Job:
    """Read everything that a run would read, but the weights; raises with every fault."""
    return prepare(recipe, offline=offline, on_event=on_event)


def plan(recipe: Recipe | Job, overrides: Mapping[str, Any] | None = None, *, offline: bool = False) -> Plan:
    """How this machine would do it, with forecast memory and time. Raises `RunError` where another one does it."""
    job = recipe if isinstance(recipe, Job) else prepare(recipe, offline=offline)
    if isinstance(job.recipe.strategy, Endpoint):
        raise RunError("endpoint: there is nothing to plan: another machine answers", "ask it: metier train RECIPE")
    hardware = probe()
    draft = make_plan(job.recipe, job.shape, hardware, None, overrides or {})
    widths = (job.shape.hidden, job.shape.intermediate)
    layer = Layer(*widths, draft.tokens_per_batch, draft.sequences, draft.compute, draft.storage == "nf4", draft.device)
    return make_plan(job.recipe, job.shape, hardware, measure(layer, draft.threads), overrides or {})


def train(  # noqa: PLR0913 (keywords, each with its default)
    recipe: Recipe,
    *,
    overrides: Mapping[str, Any] | None = None,
    offline: bool = False,
    on_event: Listener = silent,
    stop: Callable[[], bool] = lambda: False,
    resume: Run | None = None,
    objective: Objective | None = None,
    metrics: Own | None = None,
    beside_others: bool = False,
) -> Run:
    """Tune, measure against base and baseline, and report. Called again after a crash, it continues.

    `resume` is the run that `recipe` comes from; raises `RunError` where data or base are not its own any more.
    `objective` replaces the recipe's, its source being part of what the run is. `metrics` are measured on open
    answers beside the built-in ones, as in `evaluate`. With `beside_others` other work shares the machine, and its
    seconds are no measure.
    """
    check_own(metrics or {})
    means = Means(overrides or {}, offline, _stoppable(on_event, stop), stop, beside_others)
    job = replace(prepare(recipe, offline=offline, on_event=means.listen), own=objective)
    run = _train(recipe, job, means, resume)
    return evaluate(run, metrics=metrics) if metrics else run


def _train(recipe: Recipe, job: Job, means: Means, resume: Run | None) -> Run:
    if isinstance(recipe.strategy, Classical | WordList):
        remember(recipe, job.data)
        baseline = _classical(job, means)
        return _only(baseline) if isinstance(recipe.strategy, Classical) else _by_words(job, baseline, means)
    if isinstance(recipe.strategy, Endpoint):
        return _remote(job, recipe.strategy, means, resume)
    _assert_choosable(recipe, job)
    chosen = plan(job, means.overrides)
    job = replace(job, source=hub.complete(job.source, offline=means.offline, listen=means.listen))
    remember(recipe, job.data)  # nothing is written before all that can be refused is
    opponents = _classical(job, means)
    if isinstance(recipe.strategy, Untuned):
        base = _load(job, chosen)
        untuned = _untuned(job, chosen, base, opponents, means)
        if not recipe.strategy.shows:
            return untuned
        return _untuned(job, chosen, base, {"none": untuned, **opponents}, means, recipe.strategy)
    if (scale := getattr(recipe.strategy, "scale", 1)) == 1:
        return _tuned(job, chosen, opponents, means, resume)
    whole = _tuned(_at(1.0, job), chosen, opponents, means)
    if (scale := _recommended(whole, means) if scale == "auto" else scale) == 1:
        return whole
    measuring = {name: chosen.seconds[name] for name in MEASURING if name in chosen.seconds}
    return _tuned(_at(scale, job), replace(chosen, seconds=measuring), opponents, means, resume, whole)


def _at(scale: float, job: Job) -> Job:
    return replace(job, recipe=job.recipe.override(**{"strategy.scale": scale}))


def _recommended(run: Run, means: Means) -> float:
    """The scale that validation recommends for a run."""
    tradeoff = run.tradeoff
    assert tradeoff, "refused before training where it cannot be measured"
    said = f"scale {tradeoff['recommended']:g} for {run.directory}: {tradeoff['why']}"
    means.listen(Event("note", values={"text": said}))
    return float(tradeoff["recommended"])


def _assert_choosable(recipe: Recipe, job: Job) -> None:
    """Raises `RecipeError` where no scale could be chosen, before anything is trained."""
    if getattr(recipe.strategy, "scale", 1) == "auto" and not job.general.validation:
        problem = "is auto, but eval.general_text has fewer than four passages, and none to choose by"
        raise RecipeError(str(recipe.path), [Fault("strategy.scale", problem, "give more passages, or a number")])


def _tuned(
    job: Job,
    chosen: Plan,
    opponents: Mapping[str, Run],
    means: Means,
    resume: Run | None = None,
    whole: Run | None = None,
) -> Run:
    """Train and measure, or measure an adapter made elsewhere, or that of `whole` at a share of its change."""
    if resume is not None:
        assert_same(resume, parts_of(job, chosen))
    run = _find(job, chosen)
    if run.status == "finished":
        return _judged(run, job.recipe)
    with run.locked():
        for text in worth_saying(job, chosen):
            means.listen(Event("note", values={"text": text}))
        chosen = _kept_plan(run, chosen, means)
        base = _load(job, chosen)
        wordings: Mapping[str, str] = {}
        if not (job.head and job.head.encoder):  # which answers nothing untuned
            untuned = _untuned(job, chosen, base, opponents, means)
            wordings, opponents = untuned.facts.get("wordings", {}), {"none": untuned, **opponents}
        with _followed(run, means):
            run.update(wordings=wordings)
            work = partial(measure_scaled, whole=whole) if whole else measure_foreign if job.foreign else tune
            seconds = work(run, worded(job, wordings, offline=means.offline), chosen, base, means)
            return _finish(run, opponents, seconds)


def locate(
    recipe: Recipe, overrides: Mapping[str, Any] | None = None, *, offline: bool = False, on_event: Listener = silent
) -> tuple[Run, bool]:
    """Where the run of this recipe lies or would, and whether it is finished. Raises with every fault, as `check` does.

    Of an adapter that is scaled it is the run of the whole as long as that is not finished.
    """
    return _located(prepare(recipe, offline=offline, on_event=on_event), overrides or {})


def _located(job: Job, overrides: Mapping[str, Any]) -> tuple[Run, bool]:
    if (scale := getattr(job.recipe.strategy, "scale", 1)) != 1:
        whole, finished = _located(_at(1.0, job), overrides)
        if not finished or (scale == "auto" and not whole.tradeoff):
            return whole, False
        scale = whole.tradeoff["recommended"] if scale == "auto" and whole.tradeoff else scale
        return (whole, True) if scale == 1 else _place(_at(scale, job), overrides)
    return _place(job, overrides)


def _place(job: Job, overrides: Mapping[str, Any]) -> tuple[Run, bool]:
    if isinstance(job.recipe.strategy, Classical | WordList):
        parts = _parts_without_base(job)
    elif isinstance(job.recipe.strategy, Endpoint):
        parts = {"heldout": job.data.heldout_hash, **job.front.digests}
    else:
        parts = parts_of(job, make_plan(job.recipe, job.shape, probe(), None, overrides))
    run = runs.locate(job.recipe.directory / "runs", job.recipe, key(job.recipe, **parts))
    there = (run.directory / "run.json").exists()
    return run, there and run.status == "finished" and run.priced_as(job.recipe)


def evaluate(
    target: Run | str | Path | Recipe, *, offline: bool = False, on_event: Listener = silent, metrics: Own | None = None
) -> Run:
    """A run's scores recomputed from its answers, or a recipe's base (or adapter) measured on its held-out items.

    A run may be given by its folder. `metrics` are measured on open answers beside the built-in ones:
    {name: function(output, reference) -> float}, higher being better, with interval and paired test. They stand
    in scores and report, of the runs it was compared with too, until these are computed again without them.
    """
    check_own(metrics or {})
    if isinstance(target, Recipe):
        trained = not isinstance(target.strategy, Untuned | Foreign | Endpoint)
        measured = target.override(strategy={"method": "none"}) if trained else target
        return train(measured, offline=offline, on_event=on_event, metrics=metrics)
    target = (target if isinstance(target, Run) else Run.open(target)).finished()
    opponents = {
        role: Run.open(target.directory.parent / each["run"]) for role, each in target.scores()["against"].items()
    }
    if metrics:
        opponents = {role: evaluate(opponent, metrics=metrics) for role, opponent in opponents.items()}
    write_scores(target, opponents, metrics)
    write_report(target)
    return target


def _find(job: Job, chosen: Plan) -> Run:
    """The run of this job in this number format, new or begun before."""
    return create(job, parts_of(job, chosen), number_format=chosen.number_format)


def _kept_plan(run: Run, chosen: Plan, means: Means) -> Plan:
    """A resumed run keeps its plan, thread count included, or its bits would differ."""
    if not (run.directory / "plan.json").exists():
        runs.save_plan(run, chosen)
        return chosen
    kept = replace(Plan(**run.plan()), **means.overrides)
    if kept.device not in (devices := probe().devices):
        lost = f"warning: begun on {kept.device}, which this machine lacks: continues on {devices[0]} with other bits"
        means.listen(Event("note", values={"text": lost}))
        kept = replace(kept, device=devices[0])
    runs.save_plan(run, kept)
    changed = {name: number for name, number in run.facts["versions"].items() if runs.versions().get(name) != number}
    if changed:
        then = ", ".join(f"{name} {number}" for name, number in changed.items())
        means.listen(Event("note", values={"text": f"warning: begun with {then}; what follows may differ in its bits"}))
    if kept.threads > chosen.threads:
        means.listen(Event("note", values={"text": f"{kept.threads} threads as begun; this machine has fewer cores"}))
    return kept


def _load(job: Job, chosen: Plan) -> Base:
    settle(chosen.threads)
    number_format = NumberFormat(chosen.storage, chosen.compute)
    reference = chosen.kernels == "reference"
    how: dict[str, Any] = {"why_rows": job.shape.why_rows, "reference": reference, "multiple": chosen.pad_to}
    return open_base(job.source.directory, number_format, chosen.device, job.head, **how)


def _untuned(
    job: Job, chosen: Plan, base: Base, opponents: Mapping[str, Run], means: Means, shown: Untuned | None = None
) -> Run:
    """The untuned base on the same held-out items, in the same number format, asked bare or as `shown` says."""
    strategy = (shown or Untuned(method="none")).model_dump()
    job = replace(job, recipe=job.recipe.override(strategy=strategy), kinds=(), front=job.front if shown else Front())
    if isinstance(job.renderer, HeadRenderer):
        job = replace(job, renderer=job.renderer.plain, head=None)
    run = _find(job, chosen)
    with run.locked(wait=True), _followed(run, means):
        if run.status == "finished":
            return _judged(run, job.recipe)
        begun = time.monotonic()
        runs.save_plan(run, replace(chosen, seconds={ANSWERS: chosen.seconds.get(ANSWERS, 0.0)}))
        engine = make_engine(base.forward, base, chosen)
        wordings = choose_wordings(job, engine, means.listen, offline=means.offline)
        run.update(wordings=wordings)
        job = worded(job, wordings, offline=means.offline)
        phase = "few-shot" if shown else "base"
        answers = answer(engine, job.renderer, job.heldout, job.limits, means.listen, phase)
        keep_answers(run, answers, means.listen)
        write_shown(run, job)
        return _finish(run, opponents, {ANSWERS: time.monotonic() - begun})


def _only(opponents: Mapping[str, Run]) -> Run:
    if not opponents:
        problem = "classical: the data asks for no answers, and the baseline can do nothing else"
        raise RunError(problem, "choose another strategy.method, such as none or lora")
    return opponents["classical"]


def _classical(job: Job, means: Means) -> dict[str, Run]:
    """The classical baseline's run, if some domain asks for answers; no base is read."""
    if all(each.heldout[0].kind in UNANSWERED for each in job.data.domains):
        return {}
    job = replace(job, recipe=job.recipe.override(strategy={"method": "classical"}))

    def answers() -> list[Answer]:
        # It chooses nothing, so it may learn from the validation slice too.
        limit = job.recipe.eval.limit
        each_of = (baseline_answers([*each.train, *each.validation], each.heldout[:limit]) for each in job.data.domains)
        return [answer for each in each_of for answer in each]

    return {"classical": _without_base(job, answers, {}, means, "fitting and answers")}


def _by_words(job: Job, opponents: Mapping[str, Run], means: Means) -> Run:
    return _without_base(job, lambda: WordLists.of(job.recipe).answers(job.heldout), opponents, means, "answers")


def _parts_without_base(job: Job) -> dict[str, str]:
    """What such a run depends on beside its recipe's own values, as hashes."""
    if isinstance(job.recipe.strategy, WordList):
        return {"heldout": job.data.heldout_hash, "words": WordLists.of(job.recipe).digest}
    return {"heldout": job.data.heldout_hash, "train": job.data.train_hash}


def _without_base(
    job: Job, answers: Callable[[], list[Answer]], opponents: Mapping[str, Run], means: Means, phase: str
) -> Run:
    """The run of a strategy that reads no base."""
    run = create(job, _parts_without_base(job))
    with run.locked(wait=True), _followed(run, means):
        if run.status == "finished":
            return _judged(run, job.recipe)
        begun = time.monotonic()
        found = answers()
        means.listen(Event("baseline", len(found), len(found)))
        keep_answers(run, found, means.listen)
        return _finish(run, opponents, {phase: time.monotonic() - begun})


def _judged(run: Run, recipe: Recipe) -> Run:
    """A finished run by the guard, and by what is said of the labels, that `recipe` has now."""
    return evaluate(run) if run.judge_by(recipe) or not run.report.exists() else run


def _remote(job: Job, strategy: Endpoint, means: Means, resume: Run | None) -> Run:
    """The run of an endpoint; no base is read, only a tokenizer that counts what may stand in front."""
    items_of(job)
    remember(job.recipe, job.data)
    opponents = _classical(job, means)
    parts = {"heldout": job.data.heldout_hash, **job.front.digests}
    if resume is not None:
        assert_same(resume, parts)
    run = create(job, parts, model=strategy.model)
    with run.locked(wait=True), _followed(run, means):
        if run.status == "finished" and resume is None and run.priced_as(job.recipe):
            return run
        run.price_by(job.recipe)
        run.update(status="started", why="")
        measured = answer_remotely(run, job, means)
        return _finish(run, opponents, **measured)


def _stoppable(listen: Listener, stop: Callable[[], bool]) -> Listener:
    """A listener through which work between two signs of life can be stopped; training writes its checkpoint first."""

    def heard(event: Event) -> None:
        listen(event)
        if event.phase not in ("note", "train", "validation") and stop():
            raise Stopped(f"stopped at {event.phase} {event.done} of {event.total}")

    return heard


@contextmanager
def _followed(run: Run, means: Means) -> Iterator[None]:
    """The run's status follows what becomes of the work on it."""
    if means.beside_others and run.status != "finished":
        run.update(beside_others=True)  # at once, for what goes on from here after a kill is not timed alone
    try:
        yield
    except Stopped as stopped:
        run.update(status="stopped", why=str(stopped))
        stopped.hint = f"continue with: metier train --resume {run.directory}"
        raise
    except RunError as error:
        run.update(status="failed", why=str(error))
        raise


def _finish(run: Run, opponents: Mapping[str, Run], seconds: Mapping[str, float], **measured: Any) -> Run:
    """Score and report it; `measured` is what a run of its method tells besides seconds and memory."""
    write_scores(run, opponents)
    device = run.plan()["device"] if (run.directory / "plan.json").exists() else "cpu"
    memory = {"peak_memory": peak_memory(device)} | ({} if device == "cpu" else {"host_memory": peak_memory()})
    run.update(status="finished", why="", measured={"seconds": dict(seconds), **memory, **measured})
    write_report(run)
    Store(run.directory / "checkpoints").clear()
    return run
