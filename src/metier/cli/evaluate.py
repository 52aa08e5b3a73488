"""`metier eval`: scores of a run, of the untuned base on a recipe's held-out items, or of both on benchmarks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import Json, Offline, Progress, Set, emit, recipe_from
from metier.cli.results import show_benchmarks, show_scores
from metier.errors import MetierError

if TYPE_CHECKING:
    from metier.run import Run

Tasks = Annotated[str | None, typer.Option(metavar="NAME,FILE,…", help="lm-eval tasks, YAML files or folders of them")]
Limit = Annotated[int | None, typer.Option(min=1, help="items a task")]
Fewshot = Annotated[int | None, typer.Option(min=0, help="examples in front; else as each task says")]
Chat = Annotated[bool, typer.Option("--apply-chat-template", help="ask through the chat template")]


def evaluate(  # noqa: PLR0913, PLR0917 (a parameter is a flag)
    target: Annotated[Path, typer.Argument(metavar="RUN|RECIPE", help="a run's folder, or a recipe")],
    tasks: Tasks = None,
    limit: Limit = None,
    num_fewshot: Fewshot = None,
    apply_chat_template: Chat = False,
    set_: Set = None,
    json: Json = False,
    offline: Offline = False,
) -> None:
    """Measure a recipe's base, score a run anew, or run benchmarks.

    A recipe's untuned base answers its held-out items; a run's scores are recomputed from its answers. With --tasks
    a run and its untuned base are measured on benchmarks, through lm-evaluation-harness.
    """
    from metier import experiment
    from metier.run import Run

    if tasks is not None:
        asked = (limit, num_fewshot, apply_chat_template)
        _benchmarks(_run(target), tasks.split(","), asked, json=json, offline=offline)
        return
    if limit is not None or num_fewshot is not None or apply_chat_template:
        raise MetierError("--limit, --num-fewshot and --apply-chat-template belong to --tasks", "name a task")
    chosen = recipe_from(target, set_) if target.suffix == ".toml" else Run.open(target)
    run = experiment.evaluate(chosen, offline=offline, on_event=Progress())
    if json:
        emit({"run": str(run.directory), **run.scores()})
    else:
        show_scores(run)


def _run(target: Path) -> Run:
    from metier.run import Run

    if target.suffix == ".toml":
        raise MetierError(f"{target}: benchmarks need a run", "`metier eval RECIPE` alone measures the base: a run too")
    run = Run.open(target).finished()
    if run.why_shut:
        raise MetierError(f"{target}: {run.why_shut}", "choose a run from `metier runs`")
    if getattr(run.recipe().strategy, "objective", "") == "classify":
        raise MetierError(f"{target}: a head that classifies is no language model", "choose a run from `metier runs`")
    return run


def _benchmarks(
    run: Run, names: list[str], asked: tuple[int | None, int | None, bool], *, json: bool, offline: bool
) -> None:
    from metier.evaluation.harness import require

    require()
    from metier.evaluation import benchmarks
    from metier.evaluation.tasks import Asking, find_tasks
    from metier.report.page import write_report

    asking = Asking(*asked)
    found = find_tasks([name.strip() for name in names if name.strip()], asking, offline=offline)
    base = benchmarks.untuned(run)
    sides = [benchmarks.measure(each, found, asking, Progress(), offline=offline) for each in (run, base) if each]
    lines = benchmarks.compare(sides[0], sides[1] if base else None, found)
    told = {"tasks": list(found.tasks), "settings": asdict(asking), "base": base.name if base else None}
    measured = {**told, "lines": [line.to_dict() for line in lines]}
    run.write_benchmarks(measured)
    write_report(run)
    if json:
        head = {"run": str(run.directory), "base": str(base.directory) if base else None}
        emit({**head, "lines": measured["lines"]})
    else:
        show_benchmarks(run, measured)
