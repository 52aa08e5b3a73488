"""The runs that stand side by side: this one, and those it was compared with, which lie beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.evaluation.answers import Answer, read_answers
from metier.run import OPPONENTS, Run
from metier.strategies import MODELLESS

_SHORTLY = {"examples": "shots"}
_LOOKS = {"none": "untuned", "classical": "classical"}


@dataclass(frozen=True)
class Side:
    """A run with its scores; `look` is its colour in every picture and table."""

    look: str
    name: str
    run: Run
    scores: Mapping[str, Any]

    def answers(self) -> list[Answer]:
        """To held-out items; passages of general text are none."""
        return [each for each in read_answers(self.run.directory / "answers.jsonl") if each.of_domain]


def find_sides(run: Run) -> tuple[Side, ...]:
    """This run first. Raises `RunError` where a run it was compared with is gone."""
    ours = _side(run)
    return ours, *(_side(Run.open(run.directory.parent / each["run"])) for each in ours.scores["against"].values())


def pick(records: Sequence[Any], name: str, value: str) -> Any:
    """The record whose field `name` is `value`, or None."""
    return next((record for record in records if record[name] == value), None)


def _side(run: Run) -> Side:
    method, shown = run.facts["method"], run.shown
    name = (MODELLESS | OPPONENTS).get(method, "the tuned model").removeprefix("the ")
    if method == "endpoint":
        name = run.facts["model"]
    if shown:
        who = {"none": "base", "endpoint": name}.get(method, "tuned")
        name = ", ".join([who, *(f"{count} {_SHORTLY.get(what, what)}" for what, count in shown.items())])
    look = "tuned" if shown else _LOOKS.get(method, "tuned")  # this run's colour: nobody is compared with examples
    return Side(look, name, run, run.scores())
