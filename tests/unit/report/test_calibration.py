from __future__ import annotations

import math

import pytest

from metier.evaluation.answers import Answer
from metier.report.calibration import Bin, calibration_error, reliability


def answer(number: int, sure: float, *, right: bool, **values: object) -> Answer:
    kept = {"id": str(number), "domain": "bank", "group": str(number), "kind": "label", "place": "", "prompt": ""}
    labels = {"labels": ("yes", "no"), "label_logprobs": (math.log(sure), math.log(1 - sure)), "output": "yes"}
    return Answer(**{**kept, **labels, "reference": "yes" if right else "no", **values})  # type: ignore[arg-type]


def test_bins_hold_mean_confidence_and_the_share_that_is_right() -> None:
    answers = [answer(number, 0.92, right=number < 3) for number in range(4)] + [answer(9, 0.61, right=True)]
    low, high = reliability(answers)
    assert (low.count, high.count) == (1, 4)
    assert (low.accuracy, high.accuracy) == (1.0, 0.75)
    assert (low.confidence, high.confidence) == (pytest.approx(0.61), pytest.approx(0.92))


def test_log_probabilities_need_not_sum_to_one() -> None:
    shifted = answer(1, 0.8, right=True, label_logprobs=(math.log(0.8) - 700, math.log(0.2) - 700))
    assert reliability([shifted])[0].confidence == pytest.approx(0.8)


def test_what_has_no_probabilities_or_no_answer_is_left_out() -> None:
    assert reliability([answer(1, 0.9, right=True, label_logprobs=()), answer(2, 0.9, right=True, failed="gone")]) == ()


def test_certainty_is_in_the_last_bin() -> None:
    assert reliability([answer(1, 0.5, right=True, label_logprobs=(0.0, -900.0))])[0].confidence == 1.0


@pytest.mark.parametrize(
    ("bins", "error"),
    [
        ([Bin(10, 0.7, 0.7)], 0.0),
        ([Bin(10, 0.9, 0.5)], 0.4),
        ([Bin(30, 0.9, 0.5), Bin(10, 0.4, 0.8)], 0.4),
        ([Bin(30, 0.9, 0.9), Bin(10, 0.4, 0.8)], 0.1),
    ],
)
def test_the_error_is_the_mean_distance_over_answers(bins: list[Bin], error: float) -> None:
    assert calibration_error(bins) == pytest.approx(error)
