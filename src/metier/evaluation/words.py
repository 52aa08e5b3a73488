"""Labels by lists of words: what a check costs that knows no context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from metier.data.dataset import Dataset
from metier.data.items import Item
from metier.domain import Strict
from metier.errors import DataError, Fault, nearest
from metier.evaluation.answering import blank, transcript
from metier.evaluation.answers import Answer
from metier.files import digest
from metier.keys import read_toml, tuples
from metier.recipe import Recipe
from metier.strategies import WordList

_SHIPPED = Path(__file__).parents[1] / "assets" / "words"


class Rule(Strict):
    """Entries that speak for a label where at least `least` different ones occur."""

    name: str = ""
    label: str
    least: Annotated[int, Field(gt=0)] = 1
    words: Annotated[tuple[Annotated[str, Field(pattern=r"^\s*[^\s*][^*]*\*?\s*$")], ...], Field(min_length=1)]

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_pattern, dict.fromkeys(self.words)))

    def speak(self, text: str) -> bool:
        return sum(bool(pattern.search(text)) for pattern in self._patterns) >= self.least


class WordLists(Strict):
    """Rules in the order in which they are asked, and the label where none of them speaks."""

    otherwise: str
    rule: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @classmethod
    def open(cls, name: str, directory: Path) -> WordLists:
        """Those that ship under this name, or a TOML file, relative to `directory`. Raises `FaultsError`."""
        shipped = sorted(path.stem for path in _SHIPPED.glob("*.toml"))
        path = _SHIPPED / f"{name}.toml" if name in shipped else directory / name
        try:
            return cls.model_validate(tuples(read_toml(path)))
        except OSError:
            fix = f"{', '.join(shipped)} ships; a list of your own is a TOML file with otherwise and [[rule]]"
            fault = Fault("strategy.words", f"there is no {name}{nearest(name, shipped)}", fix)
            raise DataError(str(path), [fault]) from None
        except ValidationError as error:
            raise DataError(str(path), [*_faults(path, error)]) from None

    @classmethod
    def of(cls, recipe: Recipe) -> WordLists:
        """Those that the recipe's strategy names."""
        assert isinstance(recipe.strategy, WordList)
        return cls.open(recipe.strategy.words, recipe.directory)

    @property
    def labels(self) -> set[str]:
        return {self.otherwise, *(each.label for each in self.rule)}

    @property
    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))

    def check(self, heldout: Sequence[Item]) -> None:
        """Raises `DataError` where an item's labels are not those that the lists give."""
        strange = {item.domain: item for item in heldout if not self.labels <= {*_labels(item)}}
        if strange:
            problem = f"does not have the labels {', '.join(sorted(self.labels))} among which the word list chooses"
            faults = [
                Fault(f"domain {name}", problem, "give it these labels, or choose another list") for name in strange
            ]
            raise DataError("strategy.words", faults)

    def answers(self, heldout: Sequence[Item]) -> list[Answer]:
        """By the first rule that speaks; the question is read whole, with whatever instruction stands around it."""
        return [replace(blank(item), output=self._label(transcript(item))) for item in heldout]

    def _label(self, text: str) -> str:
        return next((each.label for each in self.rule if each.speak(text)), self.otherwise)


def checked(recipe: Recipe, data: Dataset) -> Dataset:
    """The data as they are; raises `DataError` where the recipe names a word list that chooses among other labels."""
    if isinstance(recipe.strategy, WordList):
        WordLists.of(recipe).check([item for each in data.domains for item in each.heldout])
    return data


def _labels(item: Item) -> tuple[str, ...]:
    return item.replies if item.kind == "label" else ()


def _pattern(entry: str) -> re.Pattern[str]:
    """Whole words, white space being any, and any ending where a star stands."""
    ending = r"\w*" if entry.rstrip().endswith("*") else ""
    words = r"\s+".join(map(re.escape, entry.strip().removesuffix("*").split()))
    return re.compile(rf"(?<!\w){words}{ending}(?!\w)", re.IGNORECASE)


def _faults(path: Path, error: ValidationError) -> Iterator[Fault]:
    for detail in error.errors():
        key = ".".join(map(str, detail["loc"]))
        fix = "a rule has label, words, and least and name if need be; a * stands at the end of an entry only"
        yield Fault(f"{path}: {key}", detail["msg"].lower(), fix)
