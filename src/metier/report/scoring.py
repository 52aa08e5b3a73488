"""Scores, differences and forgetting as the page's tables and pictures take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.evaluation.answers import GENERAL
from metier.evaluation.measures import METRICS
from metier.evaluation.metrics import CLOSED
from metier.figures import Habit, chance, count, decimal, figure, habit, interval, sample
from metier.report.pictures import ALARM, Axis, Mark, Scale, Tick, make_scale
from metier.report.sides import Side, pick
from metier.scores import Difference

_NATS = {"base_loss": "loss before tuning", "loss": "loss after tuning", "kl": "distance from the base (KL)"}


@dataclass(frozen=True)
class Value:
    figure: str
    interval: str


@dataclass(frozen=True)
class Contrast:
    """This run minus another, with what the stored test allows to be said; `why` it says less than the interval."""

    figure: str
    interval: str
    p: str
    test: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Row:
    """One metric of one domain: a value a side, a difference to every side but this run."""

    metric: Habit
    primary: bool
    sample: str
    values: tuple[Value | None, ...]
    differences: tuple[Contrast | None, ...]


@dataclass(frozen=True)
class Domain:
    """One domain; `ticks` are its marks' axis; `failed` and, of closed sets, `unparsed` count answers of every side."""

    name: str
    primary: Habit
    items: str
    ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    rows: tuple[Row, ...]
    failed: tuple[str, ...]
    unparsed: tuple[str, ...]


@dataclass(frozen=True)
class Forgetting:
    """What tuning cost on general text; `values` are (name, value, interval) in nats a token."""

    scale: Scale
    values: tuple[tuple[str, str, str], ...]
    difference: Contrast
    alarm: bool
    passages: str


def read_domains(sides: Sequence[Side]) -> tuple[Domain, ...]:
    """Every domain of the first side beside the others'."""
    return tuple(_domain(domain, sides) for domain in asked(sides[0].scores))


def arrange(domains: Sequence[Domain]) -> tuple[tuple[Domain, ...], ...]:
    """Domains that share an axis together: all from 0 to 100, then every one that has its own."""
    drawn = [domain for domain in domains if domain.marks]
    shared = tuple(domain for domain in drawn if domain.primary.of_100)
    own = ((domain,) for domain in drawn if not domain.primary.of_100)
    return ((shared,) if shared else ()) + tuple(own)


def asked(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scores of the recipe's own domains, and not of what measures forgetting."""
    return [domain for domain in scores["domains"] if domain["kind"] not in GENERAL]


def read_forgetting(scores: Mapping[str, Any]) -> Forgetting | None:
    difference = scores["forgetting"]
    if not difference:
        return None
    text = pick(scores["domains"], "kind", "text")
    found = [(name, pick(text["scores"], "metric", metric)) for metric, name in _NATS.items()]
    return Forgetting(
        scale=make_scale(difference["value"], difference["low"], difference["high"]),
        values=tuple((name, *_nats(score)) for name, score in found if score),
        difference=read_contrast(difference),
        alarm=difference["value"] >= ALARM,
        passages=sample(difference["n"], difference["groups"], "passage"),
    )


def _domain(domain: Mapping[str, Any], sides: Sequence[Side]) -> Domain:
    name, measured = domain["domain"], domain["scores"]
    primary = (
        measured[0]["metric"] if measured else METRICS[domain["kind"]][0].name
    )  # of a run without it, what comes next
    # Of a side that was not asked.
    nothing: Mapping[str, Any] = {"scores": [], "differences": [], "failed": 0, "unparsed": 0}
    same = [pick(side.scores["domains"], "domain", name) or nothing for side in sides]
    against = [pick(each["domains"], "domain", name) or nothing for each in sides[0].scores["against"].values()]
    scores = [pick(each["scores"], "metric", primary) for each in same]
    axis = _axis(primary, [score for score in scores if score])
    return Domain(
        name=name,
        primary=habit(primary),
        items=sample(domain["n"], domain["n"]),
        ticks=axis.ticks(5 if habit(primary).of_100 else 4),
        marks=tuple(_mark(side, score, axis) for side, score in zip(sides, scores, strict=True) if score),
        rows=tuple(_row(score, primary, same, against) for score in domain["scores"]),
        failed=tuple(count(each["failed"]) for each in same),
        unparsed=tuple(count(each["unparsed"]) for each in same) if domain["kind"] in CLOSED else (),
    )


def _axis(metric: str, scores: Sequence[Mapping[str, Any]]) -> Axis:
    """In the metric's unit: from 0 to 100, or as far as its marks reach."""
    ends = [score[end] for score in scores for end in ("low", "value", "high")]
    return Axis.around(ends) if ends and not habit(metric).of_100 else Axis(0, 100)


def _mark(side: Side, score: Mapping[str, Any], axis: Axis) -> Mark:
    metric = score["metric"]
    at, low, high = (axis.percent(habit(metric).factor * score[name]) for name in ("value", "low", "high"))
    return Mark(side.look, side.name, at, low, high, figure(metric, score["value"]))


def _row(score: Mapping[str, Any], primary: str, same: Sequence[Any], against: Sequence[Any]) -> Row:
    metric = score["metric"]
    values = [pick(domain["scores"], "metric", metric) for domain in same]
    differences = [pick(domain["differences"], "metric", metric) for domain in against]
    return Row(
        metric=habit(metric),
        primary=metric == primary,
        sample=sample(score["n"], score["groups"]),
        values=tuple(_value(each) if each else None for each in values),
        differences=tuple(read_contrast(each) if each else None for each in differences),
    )


def _value(score: Mapping[str, Any]) -> Value:
    metric = score["metric"]
    return Value(figure(metric, score["value"]), interval(metric, score["low"], score["high"]))


def read_contrast(difference: Mapping[str, Any]) -> Contrast:
    metric = difference["metric"]
    return Contrast(
        figure=figure(metric, difference["value"], signed=True),
        interval=interval(metric, difference["low"], difference["high"], signed=True),
        p=chance(difference["p_adjusted"]),
        test=difference["test"],
        verdict=difference["verdict"],
        why=_why(difference),
    )


def _why(difference: Mapping[str, Any]) -> str:
    """Nothing of a difference that is called negligible."""
    fields = {name: value for name, value in difference.items() if name != "verdict"}
    return Difference(**fields).unshown if difference["verdict"] == "no difference shown" else ""


def _nats(score: Mapping[str, Any]) -> tuple[str, str]:
    return decimal(score["value"], 3), f"[{decimal(score['low'], 3)}, {decimal(score['high'], 3)}]"
