"""A run's scores as people read them on a terminal."""

from __future__ import annotations

from typing import Any

from metier.cli.common import say, table
from metier.report.figures import HABITS, duration, figure, size
from metier.run import OPPONENTS, Run


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
