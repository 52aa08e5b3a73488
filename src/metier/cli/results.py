"""A run's scores as people read them on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metier.cli.common import say
from metier.run import Run
from metier.tables import benchmark_parts


def show_scores(run: Run) -> None:
    """Scores by domain with intervals, differences with verdicts, forgetting, cost; then where the report is."""
    say()
    for part in run.parts():
        say(part)
        say()
    say(f"report: {run.report}")


def show_benchmarks(run: Run, measured: Mapping[str, Any]) -> None:
    """A line for each metric of each task: base, tuned, and what the paired test allows to be said."""
    base = measured["base"]
    say(f"\n{run.directory}" + (f" beside its untuned base {base}" if base else ""))
    for part in benchmark_parts(measured):
        say()
        say(part)
    say(f"\nevery answer: {run.directory / 'benchmarks'}; report: {run.report}")
