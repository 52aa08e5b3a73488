"""What was gained beside what was forgotten: scales of the adapter, and general questions that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metier.figures import decimal, interval, with_unit
from metier.report.pictures import Axis, Tick
from metier.tables import choices_line


@dataclass(frozen=True)
class Dot:
    """One scale, in percent of the picture's width and, from the top, of its height."""

    x: float
    y: float
    label: str
    recommended: bool


@dataclass(frozen=True)
class Tradeoff:
    """The curve of scales; `rows` are (scale, score, forgetting) as text."""

    forgetting: tuple[Tick, ...]
    score: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    rows: tuple[tuple[str, str, str], ...]
    recommended: str
    why: str


@dataclass(frozen=True)
class Choices:
    """General questions before and after; `lost` and `gained` are (question, right, before, after)."""

    said: str
    verdict: str
    difference: str
    lost: tuple[tuple[str, str, str, str], ...]
    gained: tuple[tuple[str, str, str, str], ...]


def read_tradeoff(scores: Mapping[str, Any]) -> Tradeoff | None:
    """None where it was not measured; without a picture where the whole adapter is the only point."""
    if not (found := scores.get("tradeoff")):
        return None
    points, best = found["points"], found["recommended"]
    across, up = (Axis.around(each[name] for each in points) for name in ("forgetting", "score"))
    dots = (
        Dot(
            across.percent(each["forgetting"]),
            round(100 - up.percent(each["score"]), 2),
            f"{each['scale']:g}",
            each["scale"] == best,
        )
        for each in points
    )
    return Tradeoff(
        forgetting=across.ticks(5),
        score=tuple(Tick(round(100 - tick.at, 2), tick.label) for tick in up.ticks(4)),
        dots=tuple(dots) if len(points) > 1 else (),
        rows=tuple(
            (f"{each['scale']:g}", decimal(each["score"], 3), decimal(each["forgetting"], 3, signed=True))
            for each in points
        ),
        recommended=f"{best:g}",
        why=found["why"],
    )


def read_choices(scores: Mapping[str, Any]) -> Choices | None:
    if not (found := scores.get("general_choices")):
        return None
    ends = interval("accuracy", found["low"], found["high"], signed=True)
    return Choices(
        said=choices_line(found),
        verdict=found["verdict"],
        difference=f"{with_unit('accuracy', found['value'], signed=True)} {ends}",
        lost=tuple(map(_item, found["lost"])),
        gained=tuple(map(_item, found["gained"])),
    )


def _item(item: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return item["prompt"], item["reference"], item["before"] or "no answer", item["after"] or "no answer"
