"""What a line of a comparison's table took, as its runs measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metier.evaluation.lines import Line, Runs, Source
from metier.planning import ANSWERS, GENERAL
from metier.run import Run


@dataclass(frozen=True)
class Cost:
    """What a line took, the mean over its seeds; None where it was not measured, or beside other work.

    Seconds of training, and of a thousand answers (batched); bytes of memory at its peak and of what is kept;
    what a thousand answers of an endpoint, which is `elsewhere`, cost.
    """

    training: float | None
    answering: float | None
    memory: int
    parameters: int
    size: int
    price: float | None = None
    elsewhere: bool = False


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
            elsewhere=any(cost.elsewhere for cost in each),
        )

    def _source(self, source: Source) -> Cost:
        measured = [_Measured(self.runs.run(name), self.runs) for name in source.runs]
        tuned = [*measured, *(_Measured(self.runs.run(name), self.runs) for name in self._before(source, measured))]
        known = all(each.alone for each in tuned)
        prices = [price for each in measured if (price := each.facts["measured"].get("price_per_1000")) is not None]
        return Cost(
            training=sum(each.training for each in tuned) if known else None,
            answering=_answering(source, measured) if known else None,
            memory=max(each.memory for each in tuned),
            parameters=sum(each.parameters for each in tuned),
            size=sum(each.size for each in measured),
            price=sum(prices) / len(prices) if prices else None,
            elsewhere=any(each.elsewhere for each in measured),
        )

    def _before(self, source: Source, measured: Sequence[_Measured]) -> list[str]:
        """The runs whose tuning was taken over: experts that were merged, an adapter that was scaled."""
        return [*source.learned, *(each.facts["whole"] for each in measured if each.facts.get("whole"))]


def _answering(source: Source, measured: Sequence[_Measured]) -> float | None:
    """Seconds for a thousand answers, each of which is sent to where it is given."""
    answered = sum(each.answered for each in measured)
    return source.routing + 1000 * sum(each.answering for each in measured) / answered if answered else None


@dataclass(frozen=True)
class _Measured:
    """What one run measured of itself."""

    run: Run
    runs: Runs

    _ANSWERING = (ANSWERS, "fitting and answers", "answers")

    @cached_property
    def facts(self) -> dict[str, Any]:
        return self.run.facts

    @property
    def alone(self) -> bool:
        """Whether nothing else of ours ran beside it, so that its seconds say something."""
        return not self.facts.get("beside_others", False)

    @property
    def parameters(self) -> int:
        """None of its own where it takes over what another run trained."""
        return 0 if self.facts.get("whole") else sum(each["parameters"] for each in self.facts.get("trained", []))

    @property
    def memory(self) -> int:
        """0 where the model was elsewhere: this process's own says nothing of it."""
        return 0 if self.elsewhere else int(self.facts["measured"]["peak_memory"])

    @property
    def elsewhere(self) -> bool:
        return bool(self.facts["method"] == "endpoint")

    @property
    def answering(self) -> float:
        return sum(value for name, value in self._seconds.items() if name in self._ANSWERING)

    @property
    def training(self) -> float:
        left_out = (*self._ANSWERING, GENERAL)
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
