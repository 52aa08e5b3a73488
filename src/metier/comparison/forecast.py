"""What a comparison would do, told before it does anything: which runs are missing, how long they take, how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from metier import experiment
from metier.comparison.layouts import MERGES, mergeable
from metier.comparison.running import Ahead, How
from metier.figures import duration, size
from metier.planning import MEASURING, Plan
from metier.recipe import Recipe
from metier.strategies import Classical, Endpoint
from metier.tables import Part, Table


@dataclass(frozen=True)
class Forecast:
    """Of one line's missing runs, one after another: seconds, and bytes at the peak; None where nothing is forecast.

    What a run is compared with (its base and baseline) counts for the line that is named so.
    """

    name: str
    runs: int
    missing: int
    seconds: float | None
    memory: int | None


def forecast_lines(ahead: Sequence[Ahead], how: How) -> list[Forecast]:
    """A line's forecast; a run that two lines share counts for the first."""
    known: set[str] = set()
    lines = []
    for line in ahead:
        new = [each for each in line.missing if each.to_toml() not in known]
        known |= {each.to_toml() for each in new}
        plans = [_plan(each, how) for each in new if not isinstance(each.strategy, Classical | Endpoint)]
        seconds = sum(sum(each.seconds.values()) for each in plans) if plans else None
        memory = max(each.peak for each in plans) if plans else None
        lines.append(Forecast(line.name, line.runs, len(new), seconds, memory))
        if mergeable(line.entry):
            lines.append(_merges(line, how))
    return lines


def _merges(line: Ahead, how: How) -> Forecast:
    """What measuring the merges of experts takes, each as long as measuring one of these."""
    runs = len(MERGES) * len({cell.seed for cell in line.entry.cells})
    if not line.unmerged:
        return Forecast(f"{line.name}, merged", runs, 0, None, None)
    plan = _plan(line.entry.recipe, how)
    seconds = line.unmerged * sum(plan.seconds[name] for name in MEASURING)
    return Forecast(f"{line.name}, merged", runs, line.unmerged, seconds, plan.peak)


def _plan(recipe: Recipe, how: How) -> Plan:
    return experiment.plan(recipe, how.overrides, offline=how.offline)


def parts(lines: Sequence[Forecast]) -> Iterator[Part]:
    """The lines for people, and what they come to."""
    yield Table(("strategy", "runs", "missing", "time", "peak memory"), [_row(line) for line in lines])
    seconds, memory = sum(line.seconds or 0 for line in lines), max(line.memory or 0 for line in lines)
    missing = sum(line.missing for line in lines)
    yield f"in all: {missing} runs to do, one after another {duration(seconds)}, at most {size(memory)} at once"


def _row(line: Forecast) -> tuple[str, ...]:
    time = "–" if line.seconds is None else duration(line.seconds)
    return line.name, str(line.runs), str(line.missing), time, "–" if line.memory is None else size(line.memory)
