"""When to hand a conversation to a person: somebody is upset, asks for one, or stays unhelped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field

from metier.assistant.likeness import Learned, is_short, lines
from metier.assistant.phrases import Lexicon, Phrases, latest
from metier.assistant.rules import ASSETS, Listed, Signs, Strings, Text, read_rules
from metier.domain import Strict
from metier.files import digest

_LEARNED = "mood"  # folder of the texts that the second layer learns from
_SOME = 2  # words; of one alone nobody knows what is meant, but the rules
_FEWEST = 3  # words that carry meaning; two questions of fewer are alike by chance

Kind = Literal["person", "upset", "unhelped"]
Moody = Literal[Kind, "calm"]
Share = Annotated[float, Field(gt=0, le=1)]
_LIKE: Mapping[Kind, str] = {
    "person": "who ask for a person",
    "upset": "who are upset",
    "unhelped": "whom nobody has helped",
}


class Asked(Signs):
    """Also whole messages that are one."""

    alone: Listed = ()


class Repeats(Signs):
    """Also how alike two questions are that are one."""

    again: Share
    third: Share
    empty: Text


class Alike(Strict):
    """The second layer: from which margin on a message is like those that show a mood, and how much more a `short` one
    of up to five words; more lines to learn from.
    """

    person: float
    upset: float
    unhelped: float
    short: float
    lines: Mapping[Moody, Listed] = Field(default_factory=dict)


class MoodRules(Strings):
    """mood.toml."""

    off: tuple[Kind, ...] = ()
    upset: Signs
    person: Asked
    unhelped: Repeats
    likeness: Alike


@dataclass(frozen=True)
class Mood:
    """What the last turn shows, and by which words."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class Moods:
    """The rules of mood.toml, ready to be asked."""

    rules: MoodRules
    lexicon: Lexicon
    learned: Mapping[Kind, Learned]
    digest: str

    @classmethod
    def open(cls, path: Path | None = None) -> Self:
        """The rules that ship, with what a file of one's own has under `mood` laid over them.

        Raises `DataError` with every fault.
        """
        rules = read_rules(MoodRules, "mood.toml", path, "mood")
        lexicon, more = rules.lexicon, rules.likeness.lines
        listed = {name: [*lines(ASSETS / _LEARNED / f"{name}.txt"), *more.get(name, ())] for name in get_args(Moody)}
        # The calm are also calm about their health; every third line teaches that in less time.
        calm = [*listed["calm"], *lines(ASSETS / "safety" / "harmless.txt")[::3]]
        moody: dict[Kind, list[str]] = {name: listed[name] for name in get_args(Kind)}
        learned = Learned.fit_each(moody, calm, lexicon)
        return cls(rules, lexicon, learned, digest([rules.model_dump(mode="json"), listed, calm]))

    def of(self, turns: Sequence[str]) -> Mood | None:
        """The mood of the last of what somebody said, oldest first; None where it calls for nobody."""
        if not turns:
            return None
        turns = latest(turns)
        normal = self.lexicon.normal(turns[-1])
        for kind, signs in self._signs.items():
            if why := signs.why(normal):
                return Mood(kind, f'said "{why}"')
        return self._repeated(turns) or self._like(turns)

    def _like(self, turns: Sequence[str]) -> Mood | None:
        """The mood by whose threshold the margin is the furthest beyond; whoever has just come cannot stay unhelped."""
        *before, said = turns
        if len(said.split()) < _SOME:
            return None
        normal, like = self.lexicon.normal(said), self.rules.likeness
        more = like.short if is_short(said) else 0.0
        beyond = {
            kind: each.margin(said) - getattr(like, kind) - more
            for kind, each in self.learned.items()
            if kind in self._signs and not self._signs[kind].denied(normal) and (before or kind != "unhelped")
        }
        kind = max(beyond, key=lambda name: beyond[name], default=None)
        if kind is None or beyond[kind] <= 0 or not (loudest := self.learned[kind].loudest(said)):
            return None
        words = ", ".join(f'"{each}"' for each in loudest)
        return Mood(kind, f"sounds like people {_LIKE[kind]}, by the words {words}")

    def _repeated(self, turns: Sequence[str]) -> Mood | None:
        """Whether the last turn asks what one before asked, in nearly the same words, or two before in like ones."""
        *before, last = map(self._meaning, turns)
        if len(last) < _FEWEST or "unhelped" not in self._signs:
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
    def _signs(self) -> dict[Kind, _Signs]:
        """Of the moods that are not off."""
        rules = self.rules
        every: dict[Kind, _Signs] = {
            "person": _Signs.of(rules.person, self.lexicon, rules.person.alone),
            "upset": _Signs.of(rules.upset, self.lexicon),
            "unhelped": _Signs.of(rules.unhelped, self.lexicon),
        }
        return {kind: signs for kind, signs in every.items() if kind not in rules.off}


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
        """The words that speak, or ""."""
        if normal.replace("| ", "") in self.alone:
            return normal.replace("| ", "").strip()
        return "" if self.denied(normal) else self.says.said(normal)

    def denied(self, normal: str) -> bool:
        """Whether one of the lists speaks against it."""
        return any(each.within(normal) for each in self.unless)
