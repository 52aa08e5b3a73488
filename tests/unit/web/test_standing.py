"""What a served run is said to be worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metier.run import Run
from metier.web.answers import Standing
from metier.web.standing import standings


def told(path: Path, own: dict[str, float], **against: list[dict[str, Any]]) -> Standing:
    """Of a run of the domain "help": its values by metric, the primary one first, and its tests by opponent."""
    ends = {"low": 0.0, "high": 50.0, "n": 40}
    scores = [{"metric": metric, "value": value, **ends} for metric, value in own.items()]
    compared = {
        role: {"run": role, "domains": [{"domain": "help", "differences": tests}]} for role, tests in against.items()
    }
    run = Run(path)
    run.write_scores({"domains": [{"domain": "help", "scores": scores}], "against": compared})
    (found,) = standings(run, ["help"])
    return Standing.model_validate(found)


def contrast(metric: str, value: float, verdict: str, n: int = 40) -> dict[str, Any]:
    return {"metric": metric, "value": value, "low": value - 1, "high": value + 1, "n": n, "verdict": verdict}


def test_a_run_that_beats_its_base_is_still_told_to_be_worse_than_the_classical_baseline(tmp_path: Path) -> None:
    tests = [contrast("chrf", -23.1, "worse"), contrast("rouge_l", 2.0, "better")]
    found = told(tmp_path, {"chrf": 14.9, "rouge_l": 12.0}, none=[contrast("chrf", 6.0, "better")], classical=tests)
    assert found.verdict == "better"
    assert found.baseline
    assert (found.baseline.verdict, found.baseline.said) == ("worse", "worse than the classical baseline (38.0)")


@pytest.mark.parametrize(
    ("own", "test", "said"),
    [
        (
            {"accuracy": 0.75},
            contrast("accuracy", 0.25, "no difference shown"),
            "no difference shown to the classical baseline (50.0 %)",
        ),
        # The baseline has no margin: what was compared is another metric, and is named.
        (
            {"margin": 1.5, "accuracy": 0.75},
            contrast("accuracy", 0.25, "better"),
            "better than the classical baseline (accuracy 50.0 %)",
        ),
        # On fewer items than were scored, the difference does not give the baseline's score.
        ({"chrf": 30.0}, contrast("chrf", 9.0, "better", n=39), "better than the classical baseline"),
    ],
)
def test_the_baseline_is_told_with_its_score_where_that_is_known(
    tmp_path: Path, own: dict[str, float], test: dict[str, Any], said: str
) -> None:
    found = told(tmp_path, own, classical=[test])
    assert found.baseline
    assert found.baseline.said == said


def test_nothing_is_said_of_a_baseline_with_which_a_run_was_not_compared(tmp_path: Path) -> None:
    assert told(tmp_path, {"chrf": 14.9}, none=[contrast("chrf", 6.0, "better")]).baseline is None
    assert told(tmp_path, {"loss": 2.0}, classical=[]).baseline is None
