"""Small pictures of curves and points, many of them on the same axes, so that they can be compared.

Places are in percent of a picture's width and height, origin top left; paths in a square of 1000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metier.report.pictures import Axis, Tick, place

Point = tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """A point with its radius in pixels and, where they are known, its intervals across and up (low, high)."""

    look: str
    x: float
    y: float
    radius: float
    label: str = ""
    across: tuple[float, float] | None = None
    up: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """One picture; `behind` is drawn in grey, `uprights` and `levels` are marked places on its axes.

    `said` is the same for who cannot see it, `note` what stands under it.
    """

    look: str
    name: str
    said: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    behind: str = ""
    line: str = ""
    spots: tuple[Spot, ...] = ()
    uprights: tuple[Tick, ...] = ()
    levels: tuple[Tick, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """Pictures on the same axes, whose names are `across` and `up`."""

    title: str
    across: str
    up: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Frame:
    """Two axes."""

    x: Axis
    y: Axis

    def path(self, curves: Iterable[Sequence[Point]]) -> str:
        """Each curve as a stroke of its own."""
        strokes = ([place(self.x, self.y, point) for point in curve] for curve in curves)
        return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in stroke) for stroke in strokes if stroke)

    def across(self, value: float) -> float:
        return self.x.percent(value)

    def up(self, value: float) -> float:
        """From the top."""
        return round(100 - self.y.percent(value), 2)

    def upward(self, about: int) -> tuple[Tick, ...]:
        """The ticks of the axis that goes up."""
        return tuple(Tick(round(100 - tick.at, 2), tick.label) for tick in self.y.ticks(about))
