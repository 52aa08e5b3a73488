from __future__ import annotations

from typing import Any

import pytest

from metier.tables import cost_line, hardly_differs, score_parts


def scores(kl: float = 0.0004, gain: float = 0.0, metric: str = "accuracy") -> dict[str, Any]:
    """Of a run beside its base, as scores.json holds them."""
    one = {"low": 0.4, "high": 0.6, "n": 40}
    ends = {"low": -0.1, "high": 0.1, "p_adjusted": 1.0, "verdict": "no difference shown"}
    domains = [
        {"domain": "bank", "kind": "label", "failed": 0, "scores": [{"metric": "macro_f1", "value": 0.5, **one}]},
        {"domain": "general_text", "kind": "text", "failed": 0, "scores": [{"metric": "kl", "value": kl, **one}]},
    ]
    differences = [{"metric": metric, "value": gain, **ends}]
    return {
        "domains": domains,
        "against": {"none": {"run": "none-1", "domains": [{"domain": "bank", "differences": differences}]}},
        "forgetting": {"value": 0.0, "verdict": "negligible"},
        "guard": {},
    }


def told(found: dict[str, Any]) -> str:
    return "\n".join(map(str, score_parts(found, {"none": "the untuned base"})))


def test_metrics_are_named_as_people_read_them() -> None:
    text = told(scores())
    assert "macro F1" in text
    assert "KL to the base" in text
    assert "macro_f1" not in text


@pytest.mark.parametrize(
    ("found", "warned"),
    [
        (scores(), True),
        (scores(kl=0.0006), False),
        (scores(gain=0.01), False),
        (scores(gain=0.0004, metric="loss"), True),  # as far as a difference is shown
        (scores(gain=-0.006, metric="loss"), False),
        ({**scores(), "forgetting": None}, False),
        ({**scores(), "against": {}}, False),
    ],
)
def test_who_learned_nothing_is_told_so(found: dict[str, Any], warned: bool) -> None:
    assert hardly_differs(found) == warned
    assert ("it hardly differs from its base" in told(found)) == warned


def test_what_the_cost_leaves_out_is_said() -> None:
    measured = {"seconds": {"a": 2.0, "b": 1.5}, "peak_memory": 1 << 30}
    plan = {"seconds": {"a": 4.0}, "memory": {"weights": 1 << 31}}
    assert cost_line(measured, plan, ["the untuned base", "the classical baseline"]) == (
        "cost: 3.5 s, peak memory 1.00 GiB (forecast 4.0 s, 2.00 GiB); "
        "without the untuned base and the classical baseline"
    )
    assert cost_line(measured, None, []) == "cost: 3.5 s, peak memory 1.00 GiB"
