"""The lines of a comparison's table: which runs each rests on, and what these answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from metier.evaluation.answers import Answer, read_answers
from metier.grid import Layout
from metier.run import Run


@dataclass(frozen=True)
class Source:
    """Whose answers count for one seed: of `run`, but of another run where `domains` or `items` say so.

    `items` is by domain and id; "" names nobody.
    """

    seed: int
    run: str = ""
    domains: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

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

    `kind` tells a line of runs ("") from what is put together of several: "oracle", "router", "base-router".
    """

    name: str
    arm: str
    model: str
    layout: Layout
    rows: int | float
    sources: tuple[Source, ...]
    kind: str = ""
    failed: str = ""

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
        if name not in self._answers:
            self._answers[name] = read_answers(self.folder / name / "answers.jsonl")
        return self._answers[name]

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


@dataclass(frozen=True)
class Cost:
    """What a line took, the mean over its seeds; None where it was not measured, or beside other work.

    Seconds of training, and of a thousand answers (batched); bytes of memory at its peak and of what is kept;
    what a thousand answers of an endpoint cost.
    """

    training: float | None
    answering: float | None
    memory: int
    parameters: int
    size: int
    price: float | None = None


@dataclass(frozen=True)
class Costs:
    """Reads off the runs what a line cost."""

    runs: Runs

    def of(self, line: Line) -> Cost:
        each = [self._source(source) for source in line.sources]
        prices = [cost.price for cost in each if cost.price is not None]
        return Cost(
            training=_mean([cost.training for cost in each]),
            answering=_mean([cost.answering for cost in each]),
            memory=max(cost.memory for cost in each),
            parameters=each[0].parameters,
            size=each[0].size,
            price=sum(prices) / len(prices) if prices else None,
        )

    def _source(self, source: Source) -> Cost:
        measured = [_Measured(self.runs.run(name), self.runs) for name in source.runs]
        known = all(each.alone for each in measured)
        answered = sum(each.answered for each in measured)
        prices = [price for each in measured if (price := each.facts["measured"].get("price_per_1000")) is not None]
        return Cost(
            training=sum(each.training for each in measured) if known else None,
            answering=1000 * sum(each.answering for each in measured) / answered if known and answered else None,
            memory=max(int(each.facts["measured"]["peak_memory"]) for each in measured),
            parameters=sum(each["parameters"] for one in measured for each in one.facts.get("trained", [])),
            size=sum(each.size for each in measured),
            price=sum(prices) / len(prices) if prices else None,
        )


@dataclass(frozen=True)
class _Measured:
    """What one run measured of itself."""

    run: Run
    runs: Runs

    _ANSWERING = ("held-out answers", "fitting and answers")
    _MEASURING = ("general text",)

    @cached_property
    def facts(self) -> dict[str, Any]:
        return self.run.facts

    @property
    def alone(self) -> bool:
        """Whether nothing else of ours ran beside it, so that its seconds say something."""
        return not self.facts.get("beside_others", False)

    @property
    def answering(self) -> float:
        return sum(value for name, value in self._seconds.items() if name in self._ANSWERING)

    @property
    def training(self) -> float:
        left_out = (*self._ANSWERING, *self._MEASURING)
        return sum(value for name, value in self._seconds.items() if name not in left_out)

    @property
    def answered(self) -> int:
        return sum(each.of_domain for each in self.runs.answers(self.run.name))

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.run.adapter.glob("*") if path.is_file())

    @property
    def _seconds(self) -> Mapping[str, float]:
        seconds: Mapping[str, float] = self.facts["measured"]["seconds"]
        return seconds


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
