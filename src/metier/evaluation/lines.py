"""The lines of a comparison's table: which runs each rests on, and what these answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from metier.errors import RunError
from metier.evaluation.answers import Answer, read_answers
from metier.grid import Layout
from metier.run import Run


@dataclass(frozen=True)
class Source:
    """Whose answers count for one seed: of `run`, but of another run where `domains` or `items` say so.

    `items` is by domain and id; "" names nobody. `learned` are runs that answer nothing here, but whose tuning it
    rests on. Sending a thousand prompts to where they are answered took `routing` seconds.
    """

    seed: int
    run: str = ""
    domains: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    learned: Sequence[str] = ()
    routing: float = 0.0

    def of(self, answer: Answer) -> str:
        """The run whose answer counts for an item."""
        return self.items.get(answer.domain, {}).get(answer.id) or self.domains.get(answer.domain) or self.run

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run that it names."""
        routed = (name for each in self.items.values() for name in each.values())
        return tuple(dict.fromkeys(filter(None, (self.run, *self.domains.values(), *routed))))


@dataclass(frozen=True)
class Line:
    """One strategy with one model, layout and number of rows; `failed` says why it has no runs.

    `kind` is "base" for the bare untuned one, and tells what is put together of experts: "oracle", "router",
    "base-router", "merge". `guard` is what its recipe allows to be forgotten.
    """

    name: str
    arm: str
    model: str
    layout: Layout
    rows: int | float
    sources: tuple[Source, ...]
    kind: str = ""
    failed: str = ""
    guard: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**{**value, "sources": tuple(Source(**each) for each in value["sources"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Runs:
    """The runs of a folder, each read once."""

    folder: Path
    _answers: dict[str, list[Answer]] = field(default_factory=dict, compare=False)

    def has(self, name: str) -> bool:
        return (self.folder / name / "answers.jsonl").exists()

    def run(self, name: str) -> Run:
        return Run(self.folder / name)

    def answers(self, name: str) -> list[Answer]:
        if not self.has(name):
            raise RunError(f"{self.folder / name}: is gone", "run the comparison again")
        if name not in self._answers:
            self._answers[name] = read_answers(self.folder / name / "answers.jsonl")
        return self._answers[name]

    def first(self, line: Line) -> Run:
        """A run of the line that stands for what all of its runs share."""
        return self.run(line.sources[0].runs[0])

    def asked(self, name: str) -> list[Answer]:
        """Its answers to the domains' items."""
        return [each for each in self.answers(name) if each.of_domain]

    def of_line(self, line: Line) -> list[list[Answer]]:
        """What a line answered to the items that were asked, a list a seed."""
        return [self._of_source(source) for source in line.sources]

    def _of_source(self, source: Source) -> list[Answer]:
        names = source.runs
        asked = self.asked(names[0])
        if len(names) == 1:
            return asked
        tables = {name: {(each.domain, each.id): each for each in self.answers(name)} for name in names}
        return [tables[source.of(each)][each.domain, each.id] for each in asked]
