"""One adapter or experts: what their differences say, and where routers sent what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metier.comparison.layouts import Routing
from metier.evaluation.lines import Line
from metier.evaluation.metrics import to_dict
from metier.evaluation.standings import Field, adjust
from metier.routing import Route, confusion

_SAYS = {  # of ours minus theirs, by their kinds
    "interference": ("oracle", "shared"),
    "routing loss": ("router", "oracle"),
    "routing loss of the base": ("base-router", "oracle"),
}


def compare_layouts(lines: Sequence[Line], keys: Mapping[str, Sequence[str]], field: Field) -> list[dict[str, Any]]:
    """For every strategy with experts what they gain on one adapter, what routing and merging lose; one Holm family."""
    alike: dict[tuple[str, str, float], list[Line]] = {}
    for line in lines:
        alike.setdefault((line.arm, line.model, line.rows), []).append(line)
    return [_compared(arm, each, keys, field) for (arm, *_), each in alike.items() if _kinds(each).keys() >= {"oracle"}]


def _compared(arm: str, lines: Sequence[Line], keys: Mapping[str, Sequence[str]], field: Field) -> dict[str, Any]:
    kinds = _kinds(lines)
    asked = {says: pair for says, pair in _SAYS.items() if {*pair} <= kinds.keys()}
    asked |= {f"{line.name} − oracle": (line.name, "oracle") for line in lines if line.kind == "merge"}
    named = {**kinds, **{line.name: line for line in lines}}
    found = {
        says: field.contrast(keys[named[ours].name], keys[named[theirs].name], 1.0)
        for says, (ours, theirs) in asked.items()
    }
    contrasts = {says: each.overall for says, each in adjust(found).items()}
    return {
        "arm": arm,
        "oracle": kinds["oracle"].name,
        "contrasts": {says: to_dict(each) for says, each in contrasts.items() if each},
        "matrix": _matrix(kinds["oracle"], keys[kinds["oracle"].name], field),
    }


def _kinds(lines: Sequence[Line]) -> dict[str, Line]:
    """The line of each kind; "shared" is the one adapter for all domains."""
    return {line.kind or line.layout: line for line in lines if line.kind != "merge"}


def _matrix(oracle: Line, keys: Sequence[str], field: Field) -> dict[str, dict[str, float]]:
    """What each expert scores in each domain, out of 1: off the diagonal the cost of a wrong route."""
    return {
        expert: {
            domain: sum(field.drawn[domain][of_expert(key, expert)].value for key in keys) / len(keys)
            for domain in field.domains
        }
        for expert in oracle.sources[0].domains
    }


def of_expert(key: str, expert: str) -> str:
    """The name under which one expert of a line's run is drawn."""
    return f"{key} {expert}"


def describe(routing: Routing, domains: Sequence[str]) -> dict[str, Any]:
    """Where a router sent the held-out items, and the hard prompts by kind."""
    held: list[tuple[str, Route]] = [(name, sent) for name, each in routing.items.items() for sent in each.values()]
    groups: dict[str, list[Mapping[str, Any]]] = {"all hard prompts": [*routing.prompts]} if routing.prompts else {}
    for each in routing.prompts:
        groups.setdefault(str(each["kind"]), []).append(each)
    hard = {kind: _of_prompts(prompts, domains) for kind, prompts in groups.items()}
    return {
        "line": routing.line,
        "kind": routing.kind,
        "seed": routing.seed,
        "threshold": routing.threshold,
        "heldout": _confusion([sent for _, sent in held], [[name] for name, _ in held], domains),
        "hard": hard,
    }


def _of_prompts(prompts: Sequence[Mapping[str, Any]], domains: Sequence[str]) -> dict[str, Any]:
    routes: list[Route] = [(each["sent"], each["share"]) for each in prompts]
    return _confusion(routes, [each["allowed"] for each in prompts], domains)


def _confusion(routes: Sequence[Route], allowed: Sequence[Sequence[str]], domains: Sequence[str]) -> dict[str, Any]:
    found = confusion(routes, allowed, domains)
    return {
        "domains": list(found.domains),
        "counts": [list(row) for row in found.counts],
        "right": found.right,
        "wrong": found.wrong,
        "abstained": found.abstained,
    }
