"""When to hand a conversation to a person: somebody is upset, asks for one, or stays unhelped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from metier.assistant.phrases import Lexicon, Phrases
from metier.assistant.rules import Listed, Signs, Strings, Text, read_rules
from metier.files import digest

_FEWEST = 3  # words that carry meaning; two questions of fewer are alike by chance

Share = Annotated[float, Field(gt=0, le=1)]


class Asked(Signs):
    """Also whole messages that are one."""

    alone: Listed = ()


class Repeats(Signs):
    """Also how alike two questions are that are one."""

    again: Share
    third: Share
    empty: Text


class MoodRules(Strings):
    """mood.toml."""

    upset: Signs
    person: Asked
    unhelped: Repeats


@dataclass(frozen=True)
class Mood:
    """What the last turn shows, and by which words."""

    kind: Literal["person", "upset", "unhelped"]
    why: str


@dataclass(frozen=True)
class Moods:
    """The rules of mood.toml, ready to be asked."""

    rules: MoodRules
    lexicon: Lexicon

    @classmethod
    def open(cls, path: Path | None = None) -> Self:
        """The rules that ship, with a file of one's own laid over them. Raises `DataError` with every fault."""
        rules = read_rules(MoodRules, "mood.toml", path)
        return cls(rules, rules.lexicon)

    @property
    def digest(self) -> str:
        return digest(self.rules.model_dump(mode="json"))

    def of(self, turns: Sequence[str]) -> Mood | None:
        """The mood of the last of what somebody said, oldest first; None where it calls for nobody."""
        if not turns:
            return None
        normal = self.lexicon.normal(turns[-1])
        for kind, signs in self._signs.items():
            if why := signs.why(normal):
                return Mood(kind, f'said "{why}"')
        return self._repeated(turns)

    def _repeated(self, turns: Sequence[str]) -> Mood | None:
        """Whether the last turn asks what one before asked, in nearly the same words, or two before in like ones."""
        *before, last = map(self._meaning, turns)
        if len(last) < _FEWEST:
            return None
        alike = [len(last & each) / len(last | each) for each in before]
        if any(share >= self.rules.unhelped.again for share in alike):
            return Mood("unhelped", "asked the same again")
        times = sum(share >= self.rules.unhelped.third for share in alike)
        return Mood("unhelped", f"asked much the same {times + 1} times") if times > 1 else None

    def _meaning(self, turn: str) -> frozenset[str]:
        return frozenset(self.lexicon.normal(turn).replace("|", "").split()) - self._empty

    @cached_property
    def _empty(self) -> frozenset[str]:
        return frozenset(self.lexicon.normal(self.rules.unhelped.empty).split())

    @cached_property
    def _signs(self) -> dict[Literal["person", "upset", "unhelped"], _Signs]:
        rules = self.rules
        return {
            "person": _Signs.of(rules.person, self.lexicon, rules.person.alone),
            "upset": _Signs.of(rules.upset, self.lexicon),
            "unhelped": _Signs.of(rules.unhelped, self.lexicon),
        }


@dataclass(frozen=True)
class _Signs:
    says: Phrases
    alone: frozenset[str]
    unless: Sequence[Phrases]

    @classmethod
    def of(cls, signs: Signs, lexicon: Lexicon, alone: Listed = ()) -> Self:
        whole = frozenset(map(lexicon.normal, alone))
        return cls(lexicon.phrases(signs.says), whole, [lexicon.group(name) for name in signs.unless])

    def why(self, normal: str) -> str:
        """The phrase that speaks, or ""."""
        if normal.replace("| ", "") in self.alone:
            return normal.replace("| ", "").strip()
        spoken = self.says.within(normal)
        return "" if any(each.within(normal) for each in self.unless) else spoken
