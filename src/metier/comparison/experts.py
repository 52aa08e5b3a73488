"""One adapter or experts: what their differences say, and where routers sent what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metier.comparison.layouts import Routing
from metier.evaluation.lines import Line
from metier.evaluation.metrics import to_dict
from metier.evaluation.standings import Contrast, Field, adjust
from metier.routing import Route, confusion

_Key = tuple[str, str, float]  # arm, model, rows
_SAYS = {  # of ours minus theirs, by their kinds
    "interference": ("oracle", "shared"),
    "routing loss": ("router", "oracle"),
    "routing loss of the base": ("base-router", "oracle"),
}


def compare_layouts(lines: Sequence[Line], keys: Mapping[str, Sequence[str]], field: Field) -> list[dict[str, Any]]:
    """For every strategy with experts what they gain on one adapter, what routing and merging lose; one Holm family."""
    alike: dict[_Key, list[Line]] = {}
    for line in lines:
        alike.setdefault((line.arm, line.model, line.rows), []).append(line)
    laid_out = {key: each for key, each in alike.items() if "oracle" in _kinds(each)}
    asked = {(key, says): pair for key, each in laid_out.items() for says, pair in _pairs(each).items()}
    found = {
        " ".join(map(str, (*key, says))): field.contrast(keys[ours.name], keys[theirs.name], 1.0)
        for (key, says), (ours, theirs) in asked.items()
    }
    adjusted = dict(zip(asked, adjust(found).values(), strict=True))
    return [_told(key, each, adjusted, keys, field) for key, each in laid_out.items()]


def _told(
    key: _Key,
    lines: Sequence[Line],
    adjusted: Mapping[tuple[_Key, str], Contrast],
    keys: Mapping[str, Sequence[str]],
    field: Field,
) -> dict[str, Any]:
    oracle = _kinds(lines)["oracle"]
    own = {says: each.overall for (whose, says), each in adjusted.items() if whose == key}
    return {
        "arm": key[0],
        "oracle": oracle.name,
        "contrasts": {says: to_dict(each) for says, each in own.items() if each},
        "matrix": _matrix(oracle, keys[oracle.name], field),
    }


def _pairs(lines: Sequence[Line]) -> dict[str, tuple[Line, Line]]:
    """What is compared of one strategy's layouts, by what the difference says."""
    kinds = _kinds(lines)
    asked = {says: pair for says, pair in _SAYS.items() if kinds.keys() >= {*pair}}
    merges = {f"{line.name} − oracle": (line, kinds["oracle"]) for line in lines if line.kind == "merge"}
    return {says: (kinds[ours], kinds[theirs]) for says, (ours, theirs) in asked.items()} | merges


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
