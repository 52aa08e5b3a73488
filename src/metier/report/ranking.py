"""A comparison's scores as the page's table and forest plots take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.evaluation.standings import NOT_WORSE, OVERALL
from metier.figures import decimal, figure, interval, sample
from metier.report.entrants import Entrant
from metier.report.pictures import ALARM, Axis, Mark, Tick
from metier.report.scoring import Contrast, Value, read_contrast


@dataclass(frozen=True)
class Gap:
    """A line minus the best: whether it is shown to stay `within` the margin of it, or to lie `beyond` that."""

    figure: str
    interval: str
    within: bool
    beyond: bool


@dataclass(frozen=True)
class Forgotten:
    """Nats a token on general text."""

    figure: str
    interval: str
    alarm: bool


@dataclass(frozen=True)
class Row:
    """One line of the table; None is what was not measured or has nothing to be compared with."""

    entrant: Entrant
    overall: Value | None
    spread: str
    base: Contrast | None
    best: Gap | None
    forgetting: Forgotten | None
    guards: str  # "hold", "FAILED", or "" where none was set
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """One line's score on a forest's axis, in percent of its width; None where it has none."""

    rank: int
    look: str
    name: str
    mark: Mark | None


@dataclass(frozen=True)
class Forest:
    """Scores with intervals under each other; `base` and `band` (the best's score less the margin) are places."""

    name: str
    items: str
    ticks: tuple[Tick, ...]
    base: float | None
    band: tuple[float, float] | None
    bars: tuple[Bar, ...]


def read_rows(entrants: Sequence[Entrant], margin: float) -> tuple[Row, ...]:
    return tuple(_row(each, margin) for each in entrants)


def draw_forests(table: Mapping[str, Any], entrants: Sequence[Entrant]) -> tuple[Forest, ...]:
    """Overall first, on an axis as wide as it needs; then every domain, all from 0 to 100."""
    scores = [each.overall for each in entrants]
    known = [100 * score[end] for score in scores if score for end in ("low", "high")]
    if not known:
        return ()
    overall = _forest("Overall", entrants, scores, Axis.around(known), 100 * table["margin"])
    domains = table["domains"] if len(table["domains"]) > 1 else ()
    parts = ([each.line["by_domain"].get(name) for each in entrants] for name in domains)
    whole = Axis(0, 100)
    return overall, *(_forest(name, entrants, each, whole) for name, each in zip(domains, parts, strict=True))


def _forest(
    name: str, entrants: Sequence[Entrant], scores: Sequence[Any], axis: Axis, margin: float | None = None
) -> Forest:
    base = [score for each, score in zip(entrants, scores, strict=True) if each.is_base and score]
    best = max(100 * score["value"] for score in scores if score)
    return Forest(
        name=name,
        items=next(sample(score["n"], score["groups"]) for score in scores if score),
        ticks=axis.ticks(5),
        base=axis.percent(100 * base[0]["value"]) if len(base) == 1 else None,
        band=(max(0.0, axis.percent(best - margin)), axis.percent(best)) if margin else None,
        bars=tuple(_bar(each, score, axis) for each, score in zip(entrants, scores, strict=True)),
    )


def _bar(entrant: Entrant, score: Mapping[str, Any] | None, axis: Axis) -> Bar:
    mark = None
    if score:
        at, low, high = (axis.percent(100 * score[end]) for end in ("value", "low", "high"))
        mark = Mark(entrant.look, entrant.name, at, low, high, figure(OVERALL, score["value"]))
    return Bar(entrant.rank, entrant.look, entrant.name, mark)


def _row(entrant: Entrant, margin: float) -> Row:
    line, score = entrant.line, entrant.overall
    against = line["against_base"] and line["against_base"]["overall"]
    return Row(
        entrant=entrant,
        overall=_overall(score) if score else None,
        spread=_spread(line),
        base=read_contrast(against) if against else None,
        best=_gap(line["against_best"], margin),
        forgetting=_forgotten(line["forgetting"]),
        guards=("hold" if line["guards_hold"] else "FAILED") if entrant.guarded else "",
        notes=tuple(_notes(line)),
    )


def _overall(score: Mapping[str, Any]) -> Value:
    return Value(figure(OVERALL, score["value"]), interval(OVERALL, score["low"], score["high"]))


def _spread(line: Mapping[str, Any]) -> str:
    count = len(line["seeds"])
    return f"± {figure(OVERALL, line['spread'])} over {count} seeds" if line["spread"] is not None else ""


def _gap(against: Mapping[str, Any] | None, margin: float) -> Gap | None:
    if not against or not (found := against["overall"]):
        return None
    p = against["p_inferior"]
    return Gap(
        figure=figure(OVERALL, found["value"], signed=True),
        interval=interval(OVERALL, found["low"], found["high"], signed=True),
        within=p is not None and p < NOT_WORSE,
        beyond=found["high"] < -margin,
    )


def _forgotten(found: Mapping[str, Any] | None) -> Forgotten | None:
    if not found:
        return None
    return Forgotten(
        figure=decimal(found["value"], 3, signed=True),
        interval=interval("loss", found["low"], found["high"], signed=True),
        alarm=found["value"] >= ALARM,
    )


def _notes(line: Mapping[str, Any]) -> list[str]:
    """What else is to be known of a line."""
    notes = [f"{line[key]:,} {what}" for key, what in _COUNTED.items() if line[key]]
    if same := line.get("same_as"):
        notes.append(f"the same answers as {same}")
    return notes


_COUNTED = {"failed_items": "items without an answer", "unparsed": "answers that are no label"}
