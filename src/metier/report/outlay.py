"""What every line of a comparison took, and how the whole is done again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from metier.figures import count, disk, duration, money, size
from metier.recipe import as_toml
from metier.report.entrants import Entrant
from metier.run import Run

_UNKNOWN = "–"
_NOTHING = "none"


@dataclass(frozen=True)
class Costs:
    """`rows` are (line, a text a column); `rests_on` says what the cheapest one was chosen by."""

    head: tuple[str, ...]
    rows: tuple[tuple[Entrant, tuple[str, ...]], ...]
    timed: bool
    rests_on: str


@dataclass(frozen=True)
class Again:
    """`facts` are (name, value) of what makes the runs these; `runs` are (line, the runs' names)."""

    commands: tuple[str, ...]
    comparison: str
    identity: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    runs: tuple[tuple[str, str], ...]


def read_costs(values: Mapping[str, Any], entrants: Sequence[Entrant]) -> Costs:
    priced = any(each.line["cost"]["price"] is not None for each in entrants)
    head = ("tuning", "1,000 answers", *(("price of 1,000",) if priced else ()), "peak memory", "trained", "on disk")
    rows = ((each, tuple(_columns(each.line["cost"], priced=priced))) for each in entrants)
    timed = all(each.line["cost"]["answering"] is not None for each in entrants)
    return Costs(head, tuple(rows), timed, _measure(values))


def read_again(values: Mapping[str, Any], runs: Mapping[str, Sequence[Run]]) -> Again:
    """`runs` by line's name."""
    file = values["file"]
    facts = [run.facts for run in {run.name: run for each in runs.values() for run in each}.values()]
    return Again(
        commands=(
            f"metier compare {file}{_flags('--set', values['changes'])}{_flags('--plan', values['plan'])}",
            f"metier compare --check comparisons/{Path(file).stem}",
        ),
        comparison=as_toml(_written(values["comparison"])),
        identity=tuple(_together({"recipe": each["recipe"], **each["hashes"]} for each in facts)),
        versions=tuple(_together(each["versions"] for each in facts)),
        runs=tuple((name, ", ".join(run.name for run in each)) for name, each in runs.items()),
    )


def _flags(flag: str, changes: Mapping[str, Any]) -> str:
    """Keys and their values, quoted for a shell."""
    return "".join(f" {flag} {quote(f'{key}={json.dumps(value)}')}" for key, value in changes.items())


def _measure(values: Mapping[str, Any]) -> str:
    unit = values["table"]["cost_rests_on"]
    if unit == "parameters":
        return "the number of trained parameters"
    return f"the {unit} that tuning and {count(values['comparison']['volume'])} answers take together"


def _columns(cost: Mapping[str, Any], *, priced: bool) -> Iterable[str]:
    yield _seconds(cost["training"])
    yield _seconds(cost["answering"])
    if priced:
        yield _UNKNOWN if cost["price"] is None else money(cost["price"])
    yield size(cost["memory"]) if cost["memory"] else _UNKNOWN
    yield count(cost["parameters"]) if cost["parameters"] else _NOTHING
    yield disk(cost["size"]) if cost["size"] else _NOTHING


def _seconds(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return duration(value) if value else _NOTHING


def _written(value: Any) -> Any:
    """Without the axes that nobody set."""
    if isinstance(value, Mapping):
        return {key: _written(each) for key, each in value.items() if each not in ([], {}, ())}
    return [_written(each) for each in value] if isinstance(value, list | tuple) else value


def _together(facts: Iterable[Mapping[str, str]]) -> Iterable[tuple[str, str]]:
    """Every fact with all its values, in their order of appearance; what takes more than three is counted."""
    found: dict[str, dict[str, None]] = {}
    for each in facts:
        for name, value in each.items():
            found.setdefault(name, {})[value] = None
    return (
        (name, ", ".join(each) if len(each) <= 3 else f"{len(each)} different ones") for name, each in found.items()
    )
