"""comparison.json's values and its runs → everything that a comparison's page shows, in plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.evaluation.lines import Line, Runs
from metier.evaluation.metrics import domain_scores, to_dict
from metier.figures import decimal, sample
from metier.grid import told_apart
from metier.report.calibration import draw_calibration
from metier.report.charts import Chart, Charts
from metier.report.choice import Group, show_answers
from metier.report.confusions import Confusion, read_confusion
from metier.report.entrants import Entrant, find_entrants, speakers
from metier.report.experts import Experts, read_experts
from metier.report.outlay import Again, Costs, read_again, read_costs
from metier.report.ranking import Forest, Row, draw_forests, read_rows
from metier.report.tradeoffs import Crossing, draw_forgetting, read_crossing
from metier.report.trends import draw_examples, draw_learning
from metier.report.weighing import Tradeoff, read_tradeoff
from metier.run import Run

_SECTIONS = (
    "Table",
    "Scores",
    "Examples",
    "Learning",
    "Confusions",
    "Calibration",
    "Forgetting",
    "Domains",
    "Experts",
    "Answers",
    "Cost",
    "Reading",
    "Reproduce",
)
_SPEAKERS = 5


@dataclass(frozen=True)
class Overview:
    """What the page's sections show, in their order; None or empty where a comparison has nothing to show."""

    name: str
    facts: tuple[str, ...]
    verdict: str
    entrants: tuple[Entrant, ...]
    failed: Mapping[str, str]
    warnings: tuple[str, ...]
    margin: str
    rows: tuple[Row, ...]
    forests: tuple[Forest, ...]
    examples: Charts | None
    learning: tuple[Charts, ...]
    spoken: Entrant | None
    confusions: tuple[Confusion, ...]
    calibration: Charts | None
    forgetting: Chart | None
    weighed: Tradeoff | None
    crossing: Crossing | None
    experts: Experts | None
    groups: tuple[Group, ...]
    costs: Costs
    again: Again

    @property
    def guarded(self) -> bool:
        return any(row.guards for row in self.rows)

    @property
    def sections(self) -> tuple[str, ...]:
        """Those that have something to show."""
        shown = {
            "Scores": self.forests,
            "Examples": self.examples,
            "Learning": self.learning,
            "Confusions": self.confusions,
            "Calibration": self.calibration,
            "Forgetting": self.forgetting,
            "Domains": self.crossing,
            "Experts": self.experts,
            "Answers": self.groups,
        }
        return tuple(name for name in _SECTIONS if shown.get(name, True))


def look_over(values: Mapping[str, Any], runs: Path) -> Overview:
    """Raises `RunError` where a run is gone or unreadable."""
    table, kept = values["table"], Runs(runs)
    entrants = find_entrants(table, kept)
    asked = speakers(entrants, _SPEAKERS)
    first = asked[0] if asked else None
    return Overview(
        name=Path(values["file"]).stem,
        facts=_facts(table, entrants),
        verdict=table["verdict"],
        entrants=entrants,
        failed=table["failed"],
        warnings=tuple(table["warnings"]),
        margin=decimal(100 * table["margin"], 1),
        rows=read_rows(entrants, table["margin"]),
        forests=draw_forests(table, entrants),
        examples=draw_examples(table, entrants),
        learning=draw_learning(table, entrants),
        spoken=first,
        confusions=_confusions(first) if first else (),
        calibration=draw_calibration(speakers(entrants, len(entrants))),
        forgetting=draw_forgetting(entrants),
        weighed=read_tradeoff(first.runs[0].scores()) if first and first.alone else None,
        crossing=read_crossing(table, entrants),
        experts=read_experts(table),
        groups=show_answers(asked, first.runs[0].facts["seed"]) if first else (),
        costs=read_costs(values, entrants),
        again=read_again(values, _runs_of(values["lines"], kept)),
    )


def _facts(table: Mapping[str, Any], entrants: Sequence[Entrant]) -> tuple[str, ...]:
    """What was compared, on what."""
    models = dict.fromkeys(each.line["model"] for each in entrants)
    scores = [each.overall for each in entrants if each.overall]
    items = [f"{sample(scores[0]['n'], scores[0]['groups'], 'held-out item')}"] if scores else []
    return (f"{len(entrants)} strategies", *models, ", ".join(table["domains"]), *items)


def _confusions(entrant: Entrant) -> tuple[Confusion, ...]:
    domains = [to_dict(each) for each in domain_scores(entrant.answers())]
    return tuple(read_confusion(domain) for domain in domains if domain["confusion"])


def _runs_of(lines: Sequence[Mapping[str, Any]], kept: Runs) -> dict[str, list[Run]]:
    """By line, with its number of examples where several lines are called alike."""
    named: dict[str, list[Run]] = {}
    known = [Line.of_json(each) for each in lines]
    for name, line in zip(told_apart(known), known, strict=True):
        runs = dict.fromkeys(each for source in line.sources for each in source.runs)
        named[name] = [kept.run(each) for each in runs]
    return named
