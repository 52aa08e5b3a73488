"""Two finished runs, paired over the items that both held out: last month's and this month's data, or two recipes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.errors import RunError
from metier.evaluation.answers import Answer, read_answers
from metier.evaluation.metrics import DomainDifferences, compare, to_dict
from metier.figures import habit, with_unit
from metier.run import Run
from metier.tables import Part, Table


@dataclass(frozen=True)
class Pair:
    """The second run minus the first, by domain; `left_out` counts by domain what only one of them held out."""

    first: Run
    second: Run
    records: Sequence[DomainDifferences]
    left_out: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        names = {"first": str(self.first.directory), "second": str(self.second.directory)}
        return {**names, "domains": [to_dict(each) for each in self.records], "left_out": dict(self.left_out)}

    def parts(self) -> Iterator[Part]:
        yield f"{self.second.directory} against {self.first.directory} (paired, Holm over the domains)"
        head = ("domain", "metric", "items", "difference", "95 % interval", "p", "verdict")
        yield Table(head, [*self._rows()])
        for domain, count in self.left_out.items():
            yield f"{domain}: {count:,} items that only one of them held out, or that changed, are left out"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for record in self.records:
            for each in record.differences:
                ends = (each.value, each.low, each.high)
                value, low, high = (with_unit(each.metric, end, signed=True) for end in ends)
                told = (value, f"{low} … {high}", f"{each.p_adjusted:.2g}", each.verdict)
                yield record.domain, habit(each.metric).label, str(each.n), *told


def compare_runs(first: Run, second: Run) -> Pair:
    """Over the items, by domain and id, that both were asked and whose right answer is the same.

    Raises `RunError` where there is none.
    """
    common = common_answers(first, second)
    theirs, ours = ([pair[side] for pair in common.pairs] for side in (0, 1))
    return Pair(first, second, compare(ours, theirs), common.left_out)


@dataclass(frozen=True)
class Common:
    """The answers of the first and of the second run to each item of both; `left_out` as `Pair` has it."""

    pairs: Sequence[tuple[Answer, Answer]]
    left_out: Mapping[str, int]


def common_answers(first: Run, second: Run) -> Common:
    """As `compare_runs` pairs them. Raises `RunError` where there is no item in common."""
    tables = [_asked(first), _asked(second)]
    common = [key for key in tables[1] if key in tables[0] and _same(tables[0][key], tables[1][key])]
    if not common:
        problem = f"{first.directory} and {second.directory} have no held-out item in common"
        raise RunError(problem, "an item is known by its domain's name, its id or prompt, and its right answer")
    everything = Counter(domain for domain, _ in {*tables[0], *tables[1]})
    left_out = everything - Counter(domain for domain, _ in common)
    return Common([(tables[0][key], tables[1][key]) for key in common], dict(left_out))


def _asked(run: Run) -> dict[tuple[str, str], Answer]:
    answers = read_answers(run.directory / "answers.jsonl")
    return {(each.domain, each.id): each for each in answers if each.of_domain}


def _same(one: Answer, other: Answer) -> bool:
    asked = ("kind", "group", "reference", "labels", "liked", "task", "tests")
    return all(getattr(one, name) == getattr(other, name) for name in asked)
