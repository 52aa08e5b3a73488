from __future__ import annotations

from typing import Any

import pytest

from metier.report.pictures import Axis, draw_curve, make_scale


def event(phase: str, step: int, **values: float) -> dict[str, Any]:
    return {"phase": phase, "done": step, "total": 100, "values": values}


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 100, ["0", "20", "40", "60", "80", "100"]),
        (-0.05, 0.25, ["\N{MINUS SIGN}0.05", "0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]),
        (0.31, 0.34, ["0.310", "0.315", "0.320", "0.325", "0.330", "0.335", "0.340"]),
        (0, 2, ["0.0", "0.5", "1.0", "1.5", "2.0"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, labels: list[str]) -> None:
    ticks = Axis(low, high).ticks(6 if low else 5)
    assert [tick.label for tick in ticks] == labels
    assert all(0 <= tick.at <= 100 for tick in ticks)


def test_nothing_trained_is_no_curve() -> None:
    assert draw_curve([event("note", 0)], None) is None


def test_one_step_is_a_curve() -> None:
    curve = draw_curve([event("train", 1, loss=2.0)], None)
    assert curve
    assert curve.loss.dots == "M1000.0 500.0h.1"
    assert curve.validation is None


def test_every_mark_stands_within_its_panel_and_the_best_step_on_its_axis() -> None:
    events = [event("train", step, loss=5 / step) for step in range(1, 101)]
    events += [event("validation", step, score=step / 100) for step in (50, 100)]
    curve = draw_curve(events, 50)
    assert curve
    assert curve.validation
    assert curve.best
    assert curve.best.at == 50
    for path in (curve.loss.dots, curve.loss.line, curve.validation.line):
        numbers = [float(number) for number in path.replace("h.1", "").replace("M", " ").replace("L", " ").split()]
        assert all(0 <= number <= 1000 for number in numbers)


def test_a_long_training_is_thinned_to_its_last_step() -> None:
    curve = draw_curve([event("train", step, loss=1.0) for step in range(1, 20_001)], None)
    assert curve
    assert curve.loss.dots.count("M") <= 500
    assert "M1000.0 500.0" in curve.loss.dots


@pytest.mark.parametrize("rise", [-0.4, 0.0, 0.07, 3.0])
def test_zero_alarm_and_the_interval_are_always_in_sight(rise: float) -> None:
    scale = make_scale(rise, rise - 0.02, rise + 0.02)
    marks = (scale.zero, scale.alarm, scale.mark.low, scale.mark.at, scale.mark.high, *scale.usual)
    assert all(0 <= mark <= 100 for mark in marks)
