"""A run's scores as people read them on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metier.cli.common import say, table
from metier.figures import HABITS, decimal, duration, figure, size
from metier.run import OPPONENTS, Run

if TYPE_CHECKING:
    from metier.evaluation.benchmarks import Line
    from metier.scores import Score


def show_scores(run: Run) -> None:
    """Scores by domain with intervals, differences with verdicts, forgetting, cost; then where the report is."""
    facts, scores = run.facts, run.scores()
    say(f"\n{run.directory}  ({facts['method']}, {facts['model']}, {facts['status']})\n")
    say(table(("domain", "metric", "score", "95 % interval", "items", "failed"), _score_rows(scores)))
    for role, against in scores["against"].items():
        say(f"\nagainst {OPPONENTS[role]} (paired, Holm over the domains)")
        say(table(("domain", "metric", "difference", "95 % interval", "p", "verdict"), _difference_rows(against)))
    if forgetting := scores["forgetting"]:
        say(f"\nforgetting: {forgetting['value']:+.3f} nats a token on general text, {forgetting['verdict']}")
    for name, guard in scores["guard"].items():
        passed = "passed" if guard["passed"] else "FAILED"
        say(f"guard {name}: {guard['value']:+.3f} of at most {guard['limit']:+.3f}: {passed}")
    _show_cost(run)
    say(f"\n{scores['verdict']}\n\nreport: {run.report}")


def show_benchmarks(run: Run, base: Run | None, lines: Sequence[Line]) -> None:
    """A line for each metric of each task: base, tuned, and what the paired test allows to be said."""
    say(f"\n{run.directory}" + (f" beside its untuned base {base.directory.name}" if base else "") + "\n")
    if base is None:
        rows = [(line.task, _metric(line), str(line.n), _with_interval(line.tuned)) for line in lines]
        say(table(("task", "metric", "items", "score, 95 % interval"), rows))
    else:
        head = ("task", "metric", "items", "base", "tuned", "difference, 95 % interval", "p", "verdict")
        say(table(head, [_benchmark_row(line) for line in lines]))
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


def _score_rows(scores: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            domain["domain"],
            score["metric"],
            _figure(score["metric"], score["value"]),
            f"{_figure(score['metric'], score['low'])} – {_figure(score['metric'], score['high'])}",
            str(score["n"]),
            str(domain["failed"]),
        )
        for domain in scores["domains"]
        for score in domain["scores"]
    ]


def _difference_rows(against: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            domain["domain"],
            each["metric"],
            _figure(each["metric"], each["value"], signed=True),
            " … ".join(_figure(each["metric"], each[end], signed=True) for end in ("low", "high")),
            f"{each['p_adjusted']:.2g}",
            each["verdict"],
        )
        for domain in against["domains"]
        for each in domain["differences"]
    ]


def _show_cost(run: Run) -> None:
    measured = run.facts.get("measured")
    if not measured:
        return
    seconds = sum(measured["seconds"].values())
    line = f"\ncost: {duration(seconds)}, peak memory {size(measured['peak_memory'])}"
    if (run.directory / "plan.json").exists():
        plan = run.plan()
        line += f" (forecast {duration(sum(plan['seconds'].values()))}, {size(sum(plan['memory'].values()))})"
    say(line)


def _figure(metric: str, value: float, *, signed: bool = False) -> str:
    """With its unit where that is short; the others are their metric's habit."""
    return figure(metric, value, signed=signed) + (" %" if HABITS[metric].unit == "%" else "")
