"""How well a served run did on its held-out questions, as people read it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from metier.errors import RunError
from metier.figures import habit, interval, with_unit
from metier.run import Run


def standings(run: Run, domains: Collection[str]) -> list[dict[str, Any]]:
    """Of each domain the primary metric with its 95 % interval, and whether that is better than the untuned base's.

    `verdict` is the paired test's and `difference` what it rests on, None where the run was compared with no base.
    `baseline` is the same test's word on the classical baseline: to beat the base is little where that answers better.
    """
    try:
        scores = run.scores()
    except RunError:  # there are none yet, or none that can be read
        return []
    tests = {
        (each["domain"], test["metric"]): test for each in _against(scores, "none") for test in each["differences"]
    }
    return [
        {
            **score,
            **_beside(tests.get((score["domain"], score["metric"]))),
            "baseline": _beside_baseline(scores, score["domain"], score["metric"]),
        }
        for score in _primary(scores, domains)
    ]


def _against(scores: Mapping[str, Any], role: str) -> list[Any]:
    found: list[Any] = scores["against"].get(role, {"domains": []})["domains"]
    return found


def _primary(scores: Mapping[str, Any], domains: Collection[str]) -> Iterator[dict[str, Any]]:
    for each in scores["domains"]:
        if each["domain"] in domains and each["scores"]:
            first = each["scores"][0]  # the primary one stands first
            yield {"domain": each["domain"], **{key: first[key] for key in ("metric", "value", "low", "high", "n")}} | {
                "said": _said(first)
            }


def _beside(test: Mapping[str, Any] | None) -> dict[str, str | None]:
    if test is None:
        return {"verdict": None, "difference": None}
    metric, ends = test["metric"], (test["low"], test["high"])
    value = with_unit(metric, test["value"], signed=True)
    return {"verdict": test["verdict"], "difference": f"{value} {interval(metric, *ends, signed=True)}"}


def _beside_baseline(scores: Mapping[str, Any], domain: str, primary: str) -> dict[str, str] | None:
    """By the metric that decides in the verdict, too; its name is said where that is not the primary one."""
    compared = (each for each in _against(scores, "classical") if each["domain"] == domain)
    test = next((test for each in compared for test in each["differences"]), None)
    if test is None:
        return None
    metric, verdict = test["metric"], test["verdict"]
    own = next(known["scores"] for known in scores["domains"] if known["domain"] == domain)
    n, value = next((each["n"], each["value"]) for each in own if each["metric"] == metric)
    told = [habit(metric).label] if metric != primary else []
    if n == test["n"]:  # else they were compared on fewer items, and value minus difference is no score of either
        told.append(with_unit(metric, value - test["value"]))
    how = f"{verdict} than" if verdict in ("better", "worse") else "no difference shown to"
    return {"verdict": verdict, "said": f"{how} the classical baseline" + (f" ({' '.join(told)})" if told else "")}


def _said(score: Mapping[str, Any]) -> str:
    its = habit(score["metric"])
    unit = f" {its.unit}" if its.unit == "of 100" else ""
    value = with_unit(score["metric"], score["value"])
    return f"{its.label} {value}{unit} {interval(score['metric'], score['low'], score['high'])}"
