"""Twenty answers out of many: where a run fell behind, where it came ahead, and some by chance."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from metier.evaluation.answers import Answer
from metier.evaluation.measures import chrf
from metier.figures import figure

BEHIND, AHEAD, DRAWN = 7, 6, 7

Key = tuple[str, str]
"""Domain and id: what names an item in every run."""


class Side(Protocol):
    """Whoever answered: `look` is their colour."""

    @property
    def look(self) -> str: ...
    @property
    def name(self) -> str: ...
    def answers(self) -> list[Answer]: ...


@dataclass(frozen=True)
class Reply:
    """What one side said, None where it failed; `mark` is how near that is to what was wanted.

    `asked` is its question where that was worded otherwise than this run's.
    """

    look: str
    name: str
    text: str | None
    failed: str
    mark: str
    asked: str


@dataclass(frozen=True)
class Shown:
    domain: str
    place: str
    prompt: str
    wanted: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Group:
    title: str
    items: tuple[Shown, ...]


def choose(ours: Sequence[Answer], theirs: Mapping[Key, Answer] | None, seed: int) -> tuple[list[Answer], ...]:
    """Seven in which we fell furthest behind them, six in which we came furthest ahead, seven drawn.

    Without `theirs` by our own merit. Domains take turns, so that each is seen; no item is chosen twice;
    `seed` draws the last seven and decides between equals.
    """
    order = random.Random(seed).sample(ours, len(ours))
    own = {_key(answer): _merit(answer) for answer in order}
    gain = {key: value - _merit(theirs[key]) if theirs else value for key, value in own.items()}
    ranked = sorted(order, key=lambda answer: (gain[_key(answer)], own[_key(answer)]))
    behind = _in_turn(ranked)[:BEHIND]
    ahead = _in_turn(_without(ranked[::-1], behind))[:AHEAD]
    return behind, ahead, _without(order, behind + ahead)[:DRAWN]


def show_answers(sides: Sequence[Side], seed: int) -> tuple[Group, ...]:
    """The chosen items as every side answered them; the base, or what else there is, is the measure.

    Of items alike in question and every answer one stands for all.
    """
    tables = [{_key(answer): answer for answer in side.answers()} for side in sides]
    groups = choose(_distinct(tables), tables[1] if len(tables) > 1 else None, seed)
    if len(sides) > 1:
        ways = [f"with the {way} gain over the {sides[1].name}" for way in ("least", "most")]
    else:
        ways = [f"with the {way} scores" for way in ("lowest", "highest")]
    titles = (*ways, f"drawn at random (seed {seed})")
    return tuple(
        Group(f"{len(group)} {title}", tuple(_shown(answer, sides, tables) for answer in group))
        for title, group in zip(titles, groups, strict=True)
        if group
    )


def _distinct(tables: Sequence[Mapping[Key, Answer]]) -> list[Answer]:
    """Our answers without those that nobody could tell from one before."""
    first: dict[tuple[object, ...], Answer] = {}
    for key, answer in tables[0].items():
        said = tuple((table[key].prompt, _said(table[key]), table[key].failed) for table in tables if key in table)
        first.setdefault((answer.domain, answer.reference, said), answer)
    return list(first.values())


def _shown(answer: Answer, sides: Sequence[Side], tables: Sequence[Mapping[Key, Answer]]) -> Shown:
    key = _key(answer)
    replies = (
        _reply(side, table[key], answer.prompt) for side, table in zip(sides, tables, strict=True) if key in table
    )
    return Shown(answer.domain, answer.place, answer.prompt, answer.reference, tuple(replies))


def _reply(side: Side, answer: Answer, prompt: str) -> Reply:
    asked = answer.prompt if answer.prompt != prompt else ""
    return Reply(side.look, side.name, _said(answer), answer.failed, _mark(answer), asked)


def _mark(answer: Answer) -> str:
    output, merit = _said(answer), _merit(answer)
    if output is None:
        return ""
    if answer.kind == "open":
        return f"chrF {figure('chrf', 100 * merit)}"
    if answer.kind in ("rated", "passage"):
        return {True: "liked", False: "disliked", None: ""}[answer.liked]
    return "no label" if output not in answer.labels else "right" if merit else "wrong"


def _key(answer: Answer) -> Key:
    return answer.domain, answer.id


def _said(answer: Answer) -> str | None:
    if answer.failed or answer.kind not in ("rated", "passage"):
        return None if answer.failed else answer.output
    return f"reads it with a loss of {figure('loss', -_per_token(answer))} nats a token"


def _per_token(answer: Answer) -> float:
    return (answer.logprob or 0.0) / (answer.tokens or 1)


def _merit(answer: Answer) -> float:
    """How near an answer is to the wanted one, 0 … 1: right or wrong for a label, chrF for an open answer.

    Of what is only read, the probability of a token, or where people disliked it what that leaves.
    """
    output = _said(answer)
    if output is None:
        return 0.0
    if answer.kind in ("rated", "passage"):
        likely = math.exp(_per_token(answer))
        return 1 - likely if answer.liked is False else likely
    return chrf(output, answer.reference) / 100 if answer.kind == "open" else float(output == answer.reference)


def _without(answers: Sequence[Answer], taken: Iterable[Answer]) -> list[Answer]:
    keys = {_key(answer) for answer in taken}
    return [answer for answer in answers if _key(answer) not in keys]


def _in_turn(ranked: Sequence[Answer]) -> list[Answer]:
    """The first of every domain, then the second of every domain, and so on."""
    domains: dict[str, list[Answer]] = {}
    for answer in ranked:
        domains.setdefault(answer.domain, []).append(answer)
    return [answer for turn in zip_longest(*domains.values()) for answer in turn if answer]
