"""Whether a model is as often right as it is sure: reliability diagrams of closed sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from metier.evaluation.answers import Answer
from metier.figures import count, decimal
from metier.report.charts import Chart, Charts, Frame, Spot
from metier.report.entrants import Entrant
from metier.report.pictures import Axis, Tick

_BINS = 10
_DRAWN = 3
_LARGEST = 11  # pixels of the radius of a bin that holds everything


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence: its mean and how many of them are right, both out of 1."""

    count: int
    confidence: float
    accuracy: float


def reliability(answers: Sequence[Answer]) -> tuple[Bin, ...]:
    """Ten equally wide bins of confidence without those that are empty.

    Confidence is the probability of the likeliest label by softmax over the labels' log-probabilities.
    """
    asked = [each for each in answers if each.kind == "label" and each.label_logprobs and not each.failed]
    sure = np.array([_confidence(each.label_logprobs) for each in asked])
    right = np.array([each.output == each.reference for each in asked], dtype=float)
    places = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    inside = [places == place for place in range(_BINS)]
    return tuple(
        Bin(int(each.sum()), float(sure[each].mean()), float(right[each].mean())) for each in inside if each.any()
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error out of 1: |accuracy − confidence|, weighted by a bin's answers.

    Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602; with ten bins.
    """
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def draw_calibration(entrants: Sequence[Entrant]) -> Charts | None:
    """The first three that answered a closed set by probabilities; None where nobody did."""
    measured = ((each, bins) for each in entrants if (bins := reliability(each.answers())))
    charts = tuple(_chart(*each) for each in islice(measured, _DRAWN))
    return Charts("", "confidence, %", "right, %", charts) if charts else None


def _chart(entrant: Entrant, bins: Sequence[Bin]) -> Chart:
    whole = Axis(0, 100)
    frame = Frame(whole, whole)
    total = sum(each.count for each in bins)
    error = decimal(100 * calibration_error(bins), 1)
    ticks = tuple(Tick(at, f"{at:.0f}") for at in (0, 50, 100))
    return Chart(
        look=entrant.look,
        name=entrant.name,
        said=", ".join(f"{100 * each.confidence:.0f} % sure, {100 * each.accuracy:.0f} % right" for each in bins),
        across=ticks,
        up=tuple(Tick(100 - tick.at, tick.label) for tick in ticks),
        behind=frame.path([[(0, 0), (100, 100)]]),
        spots=tuple(_spot(each, total, entrant.look, frame) for each in bins),
        note=f"calibration error {error} points, {count(total)} answers",
    )


def _spot(each: Bin, total: int, look: str, frame: Frame) -> Spot:
    radius = round(max(2.0, _LARGEST * (each.count / total) ** 0.5), 1)
    return Spot(look, frame.across(100 * each.confidence), frame.up(100 * each.accuracy), radius)


def _confidence(logprobs: Sequence[float]) -> float:
    likely = np.exp(np.array(logprobs) - max(logprobs))
    return float(1 / likely.sum())
