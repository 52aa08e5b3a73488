"""A run and those it was compared with → everything that its page shows, in plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.figures import HABITS, Habit, habit
from metier.report.choice import Group, show_answers
from metier.report.confusions import Confusion, read_confusion
from metier.report.costs import Cost, Data, Reproduction, read_cost, read_data, read_reproduction
from metier.report.pictures import Curve, draw_curve
from metier.report.scoring import Domain, Forgetting, arrange, asked, read_domains, read_forgetting
from metier.report.sides import Side, find_sides
from metier.report.weighing import Choices, Tradeoff, read_choices, read_tradeoff
from metier.run import Run
from metier.tables import HARDLY, Table, benchmark_parts, counterfactual_parts, guard_line, hardly_differs

_BEFORE = ("Scores", "Learning", "Confusions", "Counterfactuals", "Forgetting", "Benchmarks")
_SECTIONS = (*_BEFORE, "Answers", "Cost", "Data", "Reproduce")


@dataclass(frozen=True)
class Guard:
    name: str
    said: str
    passed: bool


@dataclass(frozen=True)
class Benchmarks:
    """One asking of benchmark tasks: how they were asked, and a row for each metric of each."""

    asked: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tests: str


@dataclass(frozen=True)
class Named:
    """One domain whose texts name other people: what became of the answers, and the tables that say how."""

    said: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Worded:
    """The instruction of several that was chosen for a domain, and who was asked with it."""

    domain: str
    instruction: str
    sides: str


@dataclass(frozen=True)
class View:
    """What the page's sections show, in their order; None or empty where a run of its method has nothing to show."""

    name: str
    facts: Mapping[str, Any]
    verdict: str
    warning: str
    guards: tuple[Guard, ...]
    sides: tuple[Side, ...]
    domains: tuple[Domain, ...]
    plots: tuple[tuple[Domain, ...], ...]
    wordings: tuple[Worded, ...]
    metrics: tuple[Habit, ...]
    curve: Curve | None
    validations: tuple[Mapping[str, Any], ...]
    confusions: tuple[Confusion, ...]
    counterfactuals: tuple[Named, ...]
    forgetting: Forgetting | None
    tradeoff: Tradeoff | None
    choices: Choices | None
    why_unknown: str
    benchmarks: tuple[Benchmarks, ...]
    groups: tuple[Group, ...]
    cost: Cost
    data: Data
    reproduction: Reproduction

    @property
    def sections(self) -> tuple[str, ...]:
        """Those that have something to show."""
        shown = {
            "Learning": self.curve,
            "Confusions": self.confusions,
            "Counterfactuals": self.counterfactuals,
            "Forgetting": self.forgetting or self.why_unknown,
            "Benchmarks": self.benchmarks,
        }
        return tuple(name for name in _SECTIONS if shown.get(name, True))


def look_at(run: Run) -> View:
    """Raises `RunError` where a run that it was compared with is gone."""
    facts, events = run.facts, list(run.events())
    sides = find_sides(run)
    scores = sides[0].scores
    measured = {score["metric"] for domain in asked(scores) for score in domain["scores"]}
    domains = read_domains(sides)
    return View(
        name=run.name,
        facts=facts,
        verdict=scores["verdict"],
        warning=HARDLY if hardly_differs(scores) else "",
        guards=tuple(_guard(name, guard) for name, guard in scores["guard"].items()),
        sides=sides,
        domains=domains,
        plots=arrange(domains),
        wordings=tuple(_wordings(sides)),
        metrics=tuple(map(habit, sorted(measured, key=_place))),
        curve=draw_curve(events, facts.get("best_step")),
        validations=tuple(event for event in events if event["phase"] == "validation"),
        confusions=tuple(read_confusion(domain) for domain in asked(scores) if domain["confusion"]),
        counterfactuals=tuple(map(_named, scores.get("counterfactuals", ()))),
        forgetting=read_forgetting(scores),
        tradeoff=read_tradeoff(scores),
        choices=read_choices(scores),
        why_unknown=run.why_unknown,
        benchmarks=tuple(map(_benchmarks, run.benchmarks)),
        groups=show_answers(sides, facts["seed"]),
        cost=read_cost(run, events),
        data=read_data(facts),
        reproduction=read_reproduction(run),
    )


def _wordings(sides: Sequence[Side]) -> Iterator[Worded]:
    asked: dict[tuple[str, str], list[str]] = {}
    for side in sides:
        for domain, instruction in side.run.facts.get("wordings", {}).items():
            asked.setdefault((domain, instruction), []).append(side.name)
    return (Worded(*chosen, " and ".join(names)) for chosen, names in asked.items())


def _named(found: Mapping[str, Any]) -> Named:
    said, *tables = counterfactual_parts(found)
    return Named(str(said), tuple(each for each in tables if isinstance(each, Table)))


def _benchmarks(measured: Mapping[str, Any]) -> Benchmarks:
    asked, table, *tests = benchmark_parts(measured)
    assert isinstance(table, Table)
    return Benchmarks(str(asked), table.head, tuple(table.rows), "".join(map(str, tests)))


def _place(metric: str) -> tuple[int, str]:
    """The built-in ones in their own order, then those that a user brought."""
    names = list(HABITS)
    return (names.index(metric) if metric in HABITS else len(names)), metric


def _guard(name: str, guard: Mapping[str, Any]) -> Guard:
    return Guard(name, guard_line(name, guard), guard["passed"])
