"""The lines of a comparison as its page shows them: by score, each with its colour, its marks and its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from metier.evaluation.answers import Answer
from metier.evaluation.lines import Line, Runs
from metier.run import Run

MARKS = ("recommended", "best")


@dataclass(frozen=True, eq=False)
class Entrant:
    """A line; `rank` is its place by score from 1, `marks` are those of `MARKS` that it bears."""

    rank: int
    marks: tuple[str, ...]
    line: Mapping[str, Any]
    kept: Runs

    @property
    def name(self) -> str:
        return str(self.line["name"])

    @property
    def look(self) -> str:
        """Its colour in every picture and table."""
        return next(iter(self.marks), "untuned" if self.is_base else "other")

    @property
    def is_base(self) -> bool:
        return bool(self.line["kind"] == "base")

    @property
    def overall(self) -> Mapping[str, Any] | None:
        overall: Mapping[str, Any] | None = self.line["overall"]
        return overall

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run that it rests on."""
        names = dict.fromkeys(name for source in self._line.sources for name in source.runs)
        return tuple(self.kept.run(name) for name in names)

    @property
    def guarded(self) -> bool:
        """Whether any guard was set."""
        return bool(self.line["guard"])

    @property
    def alone(self) -> bool:
        """Whether one run answered for each seed."""
        return len(self._line.sources[0].runs) == 1

    def answers(self) -> list[Answer]:
        """Of its first seed."""
        return self.kept.of_line(self._line)[0]

    @property
    def _line(self) -> Line:
        return Line.of_json({each.name: self.line[each.name] for each in fields(Line)})


def find_entrants(table: Mapping[str, Any], kept: Runs) -> tuple[Entrant, ...]:
    """By overall score, the highest first; what nothing ranks comes last."""
    ordered = sorted(table["lines"], key=_score, reverse=True)
    return tuple(
        Entrant(rank, tuple(mark for mark in MARKS if table[mark] == line["name"]), line, kept)
        for rank, line in enumerate(ordered, start=1)
    )


def speakers(entrants: Sequence[Entrant], most: int) -> tuple[Entrant, ...]:
    """Whose answers are worth reading side by side: what is to be taken first, its base, the best, those after it."""
    chosen = _first(each for each in entrants if each.marks)
    model = chosen[0].line["model"] if chosen else ""
    bases = sorted((each for each in entrants if each.is_base), key=lambda each: each.line["model"] != model)
    best = [each for each in entrants if "best" in each.marks]
    alike = [each for each in entrants if each.line.get("same_as")]
    others = [each for each in entrants if each not in alike]
    return tuple(dict.fromkeys([*chosen, *bases[:1], *best, *others]))[:most]


def _first(marked: Iterator[Entrant]) -> list[Entrant]:
    """The recommended one, or where no guard allows any the best."""
    return sorted(marked, key=lambda each: "recommended" not in each.marks)[:1]


def _score(line: Mapping[str, Any]) -> float:
    return float(line["overall"]["value"]) if line["overall"] else -1.0
