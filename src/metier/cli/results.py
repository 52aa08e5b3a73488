"""A run's scores as people read them on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metier.cli.common import say
from metier.figures import decimal
from metier.run import Run
from metier.tables import Table

if TYPE_CHECKING:
    from metier.evaluation.benchmarks import Line
    from metier.scores import Score


def show_scores(run: Run) -> None:
    """Scores by domain with intervals, differences with verdicts, forgetting, cost; then where the report is."""
    say()
    for part in run.parts():
        say(part)
        say()
    say(f"report: {run.report}")


def show_benchmarks(run: Run, base: Run | None, lines: Sequence[Line]) -> None:
    """A line for each metric of each task: base, tuned, and what the paired test allows to be said."""
    say(f"\n{run.directory}" + (f" beside its untuned base {base.directory.name}" if base else "") + "\n")
    if base is None:
        rows = [(line.task, _metric(line), str(line.n), _with_interval(line.tuned)) for line in lines]
        say(Table(("task", "metric", "items", "score, 95 % interval"), rows))
    else:
        head = ("task", "metric", "items", "base", "tuned", "difference, 95 % interval", "p", "verdict")
        say(Table(head, [_benchmark_row(line) for line in lines]))
        say("\npaired tests item by item, Holm over the lines of a metric")
    say(f"\nevery answer: {run.directory / 'benchmarks'}")


def _benchmark_row(line: Line) -> tuple[str, ...]:
    base = _number(line.base.value) if line.base else ""
    scores = (line.task, _metric(line), str(line.n), base, _number(line.tuned.value))
    if not (each := line.difference):
        return (*scores, "", "", "not tested")
    ends = f"[{_number(each.low, signed=True)}, {_number(each.high, signed=True)}]"
    return (*scores, f"{_number(each.value, signed=True)} {ends}", f"{each.p_adjusted:.2g}", each.verdict)


def _metric(line: Line) -> str:
    """lm-eval's name; its filter where it is not the plain one."""
    return line.metric.removesuffix(",none")


def _with_interval(score: Score) -> str:
    if math.isnan(score.low):
        return _number(score.value)
    return f"{_number(score.value)} [{_number(score.low)}, {_number(score.high)}]"


def _number(value: float, *, signed: bool = False) -> str:
    """In lm-eval's own unit: shares of 1, perplexities."""
    return decimal(value, 3 if abs(value) < 100 else 0, signed=signed)
