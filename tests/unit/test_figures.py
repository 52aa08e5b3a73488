from __future__ import annotations

import pytest

from metier.figures import chance, decimal, duration, figure, interval, sample, size


def test_rates_are_percent_and_minus_is_a_minus() -> None:
    assert figure("accuracy", 0.9123) == "91.2"
    assert figure("loss", -0.0421, signed=True) == "\N{MINUS SIGN}0.042"
    assert interval("accuracy", -0.1, 0.25, signed=True) == "[\N{MINUS SIGN}10.0, +25.0]"
    assert decimal(-0.0001, 2) == "0.00"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (42.2, "42 s"), (119.8, "2 min 0 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_small_things() -> None:
    assert size(3 << 30) == "3.00 GiB"
    assert size(1 << 20) == "1 MiB"
    assert chance(0.00001).split() == ["p", "<", "0.0001"]
    assert chance(0.0421).split() == ["p", "=", "0.042"]
    assert sample(1, 1) == "1 item"
    assert sample(1200, 300) == "1,200 items in 300 groups"
