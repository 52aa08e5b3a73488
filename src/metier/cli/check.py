"""`metier check`: every fault in recipe and data, before anything heavy loads."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import Json, Offline, Progress, Set, emit, overrides, recipe_from, say
from metier.errors import MetierError
from metier.grid import Comparison, is_comparison
from metier.recipe import Recipe
from metier.tables import Table

if TYPE_CHECKING:
    from metier.data.rendering import Renderer
    from metier.job import Job
    from metier.trees import Example


def check(
    target: Annotated[
        Path, typer.Argument(metavar="RECIPE|COMPARISON|FILE", help="a recipe or comparison (toml), or a data file")
    ],
    show: Annotated[int, typer.Option(help="print so many training rows a domain, trained tokens marked")] = 0,
    set_: Set = None,
    json: Json = False,
    offline: Offline = False,
) -> None:
    """Check recipe and data before anything heavy loads.

    Prints what was read, left out and dropped, and every fault; of a comparison the faults of all strategies.
    """
    if is_comparison(target):
        if show:
            raise MetierError("--show prints rows of one recipe", f"metier check RECIPE --show {show}")
        _check_comparison(Comparison.load(target, overrides(set_)), json=json, offline=offline)
        return
    recipe = recipe_from(target, set_) if target.suffix == ".toml" else _recipe_for(target, set_)
    from metier import experiment  # behind what can be told at once
    from metier.data.mappings import told

    job = experiment.check(recipe, offline=offline, on_event=Progress())
    if json:
        emit(_facts(job))
        return
    for part in job.parts():
        say(part)
    if target.suffix != ".toml" and (left := job.data.domains[0].unused):
        say(told(left))
    for line in job.lines():
        say(line)
    for name in job.units:
        for row in [row for unit in job.units[name][:show] for row in unit.rows][:show]:
            show_row(job.renderer, row)
    say("no faults")


def _check_comparison(comparison: Comparison, *, json: bool, offline: bool) -> None:
    from metier.comparison.running import How, look_ahead

    lines = look_ahead(comparison, How({}, offline, 1, Progress()))
    if json:
        emit([{"name": line.name, "runs": line.runs, "missing": len(line.missing)} for line in lines])
        return
    rows = [(line.name, str(line.runs), str(len(line.missing))) for line in lines]
    say(f"\n{Table(('strategy', 'runs', 'missing'), rows)}\n")
    say("no faults")


def _recipe_for(file: Path, changes: list[str] | None) -> Recipe:
    """A data file by itself is checked as `metier init` would use it."""
    from metier.data.guessing import propose

    domain = propose(file, []).model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    domain["data"] = file.name
    return Recipe.of({"model": "nano", "domain": [domain]}, file).override(**overrides(changes))


def _facts(job: Job) -> dict[str, object]:
    domains = [
        {
            "domain": each.domain.name,
            **job.sizes(each),
            "left_out": [str(fault) for fault in each.left_out],
            "warnings": [str(warning) for warning in each.warnings],
            "target_tokens": job.target_tokens[each.domain.name],
        }
        for each in job.data.domains
    ]
    kinds = [asdict(kind) for kind in job.kinds]
    skipped = [str(fault) for fault in job.data.skipped]
    return {"domains": domains, "skipped": skipped, "dropped": [str(fault) for fault in job.dropped], "trained": kinds}


def show_row(renderer: Renderer, row: Example) -> None:
    """The tokens of a row, the trained ones green on a terminal and in ⟦ ⟧ elsewhere."""
    on, off = ("\x1b[32m", "\x1b[0m") if sys.stderr.isatty() else ("⟦", "⟧")
    pieces, trained = [], False
    for text, weight in zip((*renderer.spelled(row.tokens), ""), (*row.weights, 0.0), strict=True):
        if (weight > 0) != trained:
            pieces.append(on if weight else off)
            trained = weight > 0
        pieces.append(text.replace("\n", "\\n"))
    marked = sum(weight > 0 for weight in row.weights)
    say(f"\n{marked} of {len(row.tokens)} tokens are trained\n{'·'.join(filter(None, pieces))}")
