"""How scores grew: over a training, and over the number of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.evaluation.standings import OVERALL
from metier.figures import count, figure, interval
from metier.report.charts import Chart, Charts, Frame, Point, Spot
from metier.report.entrants import Entrant
from metier.report.pictures import Axis, Tick
from metier.run import Run

_EVERYWHERE = "Validated on all domains"
_ELSEWHERE = "Each validated on its own domain alone: their levels say nothing about each other"
_APART = 14  # percent of the width that two labels of examples need between them


@dataclass(frozen=True)
class _Training:
    """One run's validations on so many domains as (share of the run in percent, score of 100), and which was kept."""

    domains: int
    points: tuple[Point, ...]
    kept: Point | None


def draw_learning(table: Mapping[str, Any], entrants: Sequence[Entrant]) -> tuple[Charts, ...]:
    """Validation scores of all that was tuned; apart those that were not validated on every domain."""
    everywhere: dict[Entrant, list[_Training]] = {}
    elsewhere: dict[Entrant, list[_Training]] = {}
    for entrant in entrants:
        for training in filter(None, map(_read, entrant.runs)):
            kept = everywhere if training.domains == len(table["domains"]) else elsewhere
            kept.setdefault(entrant, []).append(training)
    titles = (_EVERYWHERE, everywhere), (_ELSEWHERE, elsewhere)
    return tuple(_learning(title, found) for title, found in titles if found)


def draw_examples(table: Mapping[str, Any], entrants: Sequence[Entrant]) -> Charts | None:
    """Scores over the logarithm of the number of examples; None where no strategy was given several."""
    curves = [curve for curve in table["curves"] if curve["points"]]
    if not curves:
        return None
    points = [point for curve in curves for point in curve["points"]]
    scores = [100 * point[end] for point in points for end in ("low", "high")]
    base = next((each.overall for each in entrants if each.is_base and each.overall), None)
    level = 100 * base["value"] if base else None
    frame = Frame(
        Axis.around(math.log2(point["examples"]) for point in points),
        Axis.around([*scores, *([level] if level is not None else [])]),
    )
    looks = {each.name: each.look for each in entrants}
    lines = [[_point(point) for point in curve["points"]] for curve in curves]
    levels = (Tick(frame.up(level), "untuned base"),) if level is not None else ()
    charts = (_examples(curve, looks.get(curve["name"], "other"), frame, lines, levels) for curve in curves)
    return Charts("", "examples a domain", "overall score of 100", tuple(charts))


def doubling(curve: Mapping[str, Any]) -> str:
    """What doubling the examples is expected to add, in words."""
    slope = curve["per_doubling"]
    if not slope:
        return ""
    ends = interval(OVERALL, slope["low"], slope["high"], signed=True)
    added = f"{figure(OVERALL, slope['value'], signed=True)} {ends}"
    if slope["low"] <= 0 <= slope["high"]:
        return f"that doubling them adds anything is not shown: {added}"
    return f"doubling them is expected to add {added}"


def _read(run: Run) -> _Training | None:
    events = [event for event in run.events() if event["phase"] == "validation"]
    if not events:
        return None
    points = tuple((100 * event["done"] / event["total"], 100 * event["values"]["score"]) for event in events)
    best = run.facts.get("best_step")
    kept = next((point for event, point in zip(events, points, strict=True) if event["done"] == best), None)
    return _Training(len(events[0]["values"]) - 1, points, kept)  # beside the score, the mean of all


def _learning(title: str, found: Mapping[Entrant, Sequence[_Training]]) -> Charts:
    everything = [training.points for trainings in found.values() for training in trainings]
    frame = Frame(Axis(0, 100), Axis.around(score for points in everything for _, score in points))
    behind = frame.path(everything) if title == _EVERYWHERE else ""
    charts = (
        Chart(
            look=entrant.look,
            name=entrant.name,
            said=", ".join(_told(each) for each in trainings),
            across=tuple(Tick(at, f"{at} %") for at in (0, 50, 100)),
            up=frame.upward(4),
            behind=behind,
            line=frame.path(each.points for each in trainings),
            spots=tuple(
                Spot(entrant.look, frame.across(x), frame.up(y), 4)
                for each in trainings
                if each.kept
                for x, y in [each.kept]
            ),
        )
        for entrant, trainings in found.items()
    )
    return Charts(title, "share of the training", "validation score of 100", tuple(charts))


def _told(training: _Training) -> str:
    return f"from {training.points[0][1]:.1f} to {training.points[-1][1]:.1f}"


def _examples(
    curve: Mapping[str, Any], look: str, frame: Frame, lines: Sequence[Sequence[Point]], levels: tuple[Tick, ...]
) -> Chart:
    points = curve["points"]
    spots = (
        Spot(look, frame.across(x), frame.up(y), 4, up=(frame.up(100 * point["low"]), frame.up(100 * point["high"])))
        for point in points
        for x, y in [_point(point)]
    )
    return Chart(
        look=look,
        name=curve["name"],
        said=", ".join(f"{_amount(point)}: {figure(OVERALL, point['value'])}" for point in points),
        across=_spaced([Tick(frame.across(_point(point)[0]), _amount(point)) for point in points]),
        up=frame.upward(4),
        behind=frame.path(lines),
        line=frame.path([[_point(point) for point in points]]),
        spots=tuple(spots),
        levels=levels,
        note=doubling(curve),
    )


def _point(point: Mapping[str, Any]) -> Point:
    return math.log2(point["examples"]), 100 * point["value"]


def _amount(point: Mapping[str, Any]) -> str:
    return count(round(point["examples"]))


def _spaced(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Those whose labels have room, the last among them."""
    kept: list[Tick] = []
    for tick in reversed(ticks):
        if not kept or kept[-1].at - tick.at >= _APART:
            kept.append(tick)
    return tuple(reversed(kept))
