"""Where the marks of a picture stand. The template draws them as SVG, in the page's own colours.

Across, everything is in percent of the width, so that a picture fits a phone and a desk with its text
unchanged; down, in pixels or, within a curve's panel, in thousandths of its height.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from metier.figures import decimal

ALARM = 0.2  # nats a token of forgetting
_USUAL = (0.03, 0.11)  # what sane LoRA runs forget in PEFT's method comparison
_DOTS = 500  # drawn at most, of however many steps
_SMOOTHED = 300


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A value with its interval in percent of the axis, and as text."""

    look: str
    name: str
    at: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Curves over steps: `dots` and `line` are SVG paths in a square of 1000, origin top left."""

    ticks: tuple[Tick, ...]
    dots: str
    line: str


@dataclass(frozen=True)
class Curve:
    """Training loss and validation score over the same steps; `best` is the kept step."""

    steps: tuple[Tick, ...]
    loss: Panel
    validation: Panel | None
    best: Tick | None


@dataclass(frozen=True)
class Scale:
    """The forgetting on its axis: the usual range, the alarm, and where this run stands."""

    ticks: tuple[Tick, ...]
    zero: float
    usual: tuple[float, float]
    alarm: float
    mark: Mark


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers; `percent` says where in it a value stands."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float]) -> Axis:
        """A little wider than what stands on it."""
        low, high = min(values := [*values]), max(values)
        margin = 0.08 * (high - low) or 0.05
        return cls(low - margin, high + margin)

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ticks(self, about: int) -> tuple[Tick, ...]:
        """Round numbers within, roughly `about` of them."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return tuple(Tick(self.percent(number * step), decimal(number * step, digits)) for number in numbers)


def draw_curve(events: Sequence[Mapping[str, Any]], best_step: int | None) -> Curve | None:
    """The events of a training as curves; None where nothing was trained."""
    train = [(event["done"], event["values"]["loss"]) for event in events if event["phase"] == "train"]
    validation = [(event["done"], event["values"]["score"]) for event in events if event["phase"] == "validation"]
    if not train:
        return None
    steps = Axis(0, train[-1][0])
    best = Tick(steps.percent(best_step), f"best validation: step {best_step}") if best_step else None
    smooth = _thinned(_smoothed(train), _SMOOTHED)
    return Curve(
        steps=steps.ticks(min(5, train[-1][0])),
        loss=_panel(steps, _thinned(train, _DOTS), smooth),
        validation=_panel(steps, validation, validation) if validation else None,
        best=best,
    )


def make_scale(value: float, low: float, high: float) -> Scale:
    """Forgetting in nats a token; the alarm is always in sight."""
    axis = Axis(min(-0.05, 1.15 * low), max(0.25, 1.15 * high))
    at = axis.percent
    mark = Mark("tuned", "this run", at(value), at(low), at(high), decimal(value, 3, signed=True))
    return Scale(axis.ticks(7), at(0), (at(_USUAL[0]), at(_USUAL[1])), at(ALARM), mark)


Points = Sequence[tuple[int, float]]


def _panel(steps: Axis, dots: Points, line: Points) -> Panel:
    axis = Axis.around(value for _, value in (*dots, *line))
    places = [place(steps, axis, point) for point in line]
    return Panel(
        ticks=tuple(Tick(100 - tick.at, tick.label) for tick in axis.ticks(4)),
        # A stroke almost without length has round caps only: a dot that no stretching makes an ellipse.
        dots="".join(f"M{x} {y}h.1" for x, y in (place(steps, axis, point) for point in dots)),
        line="M" + "L".join(f"{x} {y}" for x, y in places),
    )


def place(across: Axis, up: Axis, point: tuple[float, float]) -> tuple[float, float]:
    """A point (x, y) in a square of 1000, origin top left."""
    x, y = point
    return round(10 * across.percent(x), 1), round(1000 - 10 * up.percent(y), 1)


def _smoothed(points: Points) -> list[tuple[int, float]]:
    """Means over a twentieth of the run around each step: centred, so that no curve lags behind its dots."""
    reach = max(1, len(points) // 40)
    sums = [0.0, *accumulate(value for _, value in points)]
    means = []
    for index, (step, _) in enumerate(points):
        start, end = max(0, index - reach), min(len(points), index + reach + 1)
        means.append((step, (sums[end] - sums[start]) / (end - start)))
    return means


def _thinned(points: Points, most: int) -> list[tuple[int, float]]:
    """Evenly spaced ones of many, the last among them."""
    every = math.ceil(len(points) / most)
    return list(points[::-1][::every][::-1])
