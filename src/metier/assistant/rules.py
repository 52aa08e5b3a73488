"""safety.toml: what its keys are, how a file of one's own is laid over it, and every fault that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from metier.assistant.phrases import Lexicon
from metier.domain import Strict, faults_of
from metier.errors import DataError, Fault, nearest
from metier.keys import read_toml, tuples

ASSETS = Path(__file__).parents[1] / "assets"

Text = Annotated[str, Field(min_length=1)]
Listed = tuple[Text, ...]
Some = Annotated[Listed, Field(min_length=1)]
Kind = Literal["medical", "banking"]
Urgent = Literal["emergency", "crisis", "poison", "danger"]
"""Which text answers a red flag."""


class Signs(Strict):
    """Phrases of which one is enough, unless one of the lists speaks against it."""

    says: Some
    unless: Listed = ()


class Strings(Strict):
    """A file of phrases: lists that others mention as `<name>`, other spellings, and tables of signs."""

    lists: Mapping[str, Some] = Field(default_factory=dict)
    spelling: Mapping[str, str] = Field(default_factory=dict)

    @cached_property
    def lexicon(self) -> Lexicon:
        return Lexicon(self.lists, self.spelling)

    def signs(self) -> Iterator[tuple[str, Signs]]:
        """Each table of signs with the place where it stands."""
        for key, value in self:
            if isinstance(value, Signs):
                yield key, value


class RedFlag(Signs):
    """What calls for an emergency response, and the text that gives it."""

    name: Text
    answer: Urgent = "emergency"


class Likeness(Strict):
    """The second layer: from which margin on a message is too like known emergencies, and a `short` one of up to five
    words; more lines to learn from.

    A passage `buried` in a longer message has a margin of its own. A message of which no part has a margin above
    `mood`, between emergencies and moods, is left to these. The red flags that it `overrules` do not count where the
    margin of the whole is below `veto`.
    """

    threshold: float
    short: float
    mood: float
    buried: float
    veto: float
    overrules: Listed = ()
    lines: Mapping[Urgent | Literal["harmless"], Listed] = Field(default_factory=dict)


class Secret(Strict):
    """What nobody should send: one of these cues with the value beside it."""

    name: Text
    cues: Some
    value: Literal["digits", "word"]
    digits: Annotated[tuple[int, ...], Field(min_length=2, max_length=2)] = (4, 8)
    not_values: Listed = ()


class Answers(Strict):
    """What is said instead of a model's answer, or with it."""

    emergency: Text
    crisis: Text
    poison: Text
    danger: Text
    notice: Text
    dosage: Text
    secret: Text
    numbers: Text
    language: Text
    declined: Text
    unsure: Text


class Rules(Strings):
    """safety.toml; what a file of one's own says under `mood` is laid over mood.toml."""

    languages: Some
    negations: Some
    off: Listed = ()
    webhook: str = ""
    unsure: Literal["base", "ask"] = "base"
    mood: Mapping[str, Any] = Field(default_factory=dict)
    kinds: Mapping[Kind, Listed]
    domains: Mapping[str, tuple[Kind, ...]] = Field(default_factory=dict)
    answers: Answers
    red_flag: Annotated[tuple[RedFlag, ...], Field(min_length=1)]
    alone: Mapping[Urgent, Listed] = Field(default_factory=dict)
    likeness: Likeness
    secret: tuple[Secret, ...] = ()
    doses: Signs
    other_languages: Mapping[str, Text] = Field(default_factory=dict)

    @field_validator("webhook")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        parts = urlsplit(url)
        local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if url and not (parts.hostname and (parts.scheme == "https" or local)):
            raise ValueError(f"webhook: {url!r} is no address that is safe to post to; write https://…")
        return url

    def signs(self) -> Iterator[tuple[str, Signs]]:
        yield from super().signs()
        yield from ((f"red_flag {each.name!r}", each) for each in self.red_flag)


R = TypeVar("R", bound=Strings)
ALONE = "alone"
"""The rule of messages that are nothing but a listed one."""


def read_rules(kind: type[R], name: str, path: Path | None, under: str = "") -> R:
    """What ships as assets/`name`, with the file at `path` laid over it, or its table `under`.

    Raises `DataError` with every fault, `RecipeError` with the line where it is not TOML.
    """
    values = laid_over(read_toml(ASSETS / "spelling.toml"), read_toml(ASSETS / name))
    if path is not None:
        try:
            own = read_toml(path)
            values = laid_over(values, own.get(under, {}) if under else own)
        except FileNotFoundError:
            raise DataError(str(path), [Fault(str(path), "does not exist", "check the name")]) from None
    try:
        rules = kind.model_validate(tuples(values))
        faults = [*_faults(rules)]
    except ValidationError as error:
        faults = [*faults_of(error, "safety file", kind.model_fields)]
    if faults:
        inside = f"{under}." if under else ""
        raise DataError(str(path or name), [replace(each, place=inside + each.place) for each in faults])
    return rules


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables key by key, lists one behind the other, anything else as it stands above."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = laid_over(under, value)
        elif isinstance(value, list) and isinstance(under, list):
            merged[key] = [*under, *value]
        else:
            merged[key] = value
    return merged


def _faults(rules: Strings) -> Iterator[Fault]:
    """Phrases that cannot be read, lists and rules that there are not."""
    lexicon, signs = rules.lexicon, dict(rules.signs())
    listed = {f"lists.{name}": phrases for name, phrases in rules.lists.items()}
    for place, phrases in {**listed, **{f"{place}: says": each.says for place, each in signs.items()}}.items():
        for number, phrase in enumerate(phrases, 1):
            try:
                lexicon.compiled(phrase)
            except ValueError as error:
                problem, _, fix = str(error).partition("; ")
                yield Fault(f"{place} {number}", problem, fix)
    for place, each in signs.items():
        yield from _unknown(f"{place}: unless", each.unless, rules.lists, "list", "add it under [lists]")
    if isinstance(rules, Rules):
        names = [each.name for each in rules.red_flag]
        yield from _unknown("off", rules.off, [*names, ALONE], "red_flag", "remove it")
        yield from _unknown("likeness.overrules", rules.likeness.overrules, names, "red_flag", "remove it")


def _unknown(place: str, named: Iterable[str], known: Iterable[str], what: str, fix: str) -> Iterator[Fault]:
    names = list(known)
    for name in named:
        if name not in names:
            yield Fault(place, f"there is no {what} {name!r}{nearest(name, names)}", fix)
