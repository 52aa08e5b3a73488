"""A language model as judge: pairs of answers in both orders, every verdict kept as it came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from metier.domain import faults_of
from metier.errors import Fault, RecipeError
from metier.evaluation.preferred import Contest, Side, Verdict
from metier.events import Event, Listener
from metier.inference.endpoint import Endpoint
from metier.inference.journal import Journal, Reply, Request
from metier.keys import read_toml
from metier.strategies import Remote

_PLACES = ("{question}", "{first}", "{second}")
_VERDICT = re.compile(r"\[\[\s*(A|B|tie)\s*\]\]", re.IGNORECASE)
_ROOM = 1024  # tokens of a verdict with its reasons
_PROMPT = """\
Two assistants, A and B, answered the same question. Judge which answer serves whoever asked better: is it right, \
does it answer what was asked, is it clear? Neither the order of the answers nor their length is a reason.

[Question]
{question}

[Answer of A]
{first}

[Answer of B]
{second}

Give your reason in one or two sentences. Then end with [[A]] if A's answer is better, [[B]] if B's is, or [[tie]]."""


class Judge(Remote):
    """Who judges, by the keys of an endpoint; `prompt` has {question}, {first} and {second}, {reference} if wanted."""

    prompt: str = Field(_PROMPT, description="ends in [[A]], [[B]] or [[tie]]")

    @model_validator(mode="after")
    def _everything_has_a_place(self) -> Self:
        if missing := [place for place in _PLACES if place not in self.prompt]:
            raise ValueError(f"prompt: says nowhere {missing[0]}; it needs {', '.join(_PLACES)}")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `RecipeError` with every fault of the file."""
        try:
            return cls.model_validate(read_toml(path))
        except FileNotFoundError:
            fix = 'write url = "http://localhost:8000/v1" and model = "…" into it'
            raise RecipeError(str(path), [Fault(str(path), "does not exist", fix)]) from None
        except ValidationError as error:
            raise RecipeError(str(path), [*faults_of(error, "judge", cls.model_fields)]) from None


@dataclass(frozen=True)
class Judged:
    """The verdicts, and how many contests have none: a reply failed, or says neither A nor B nor tie."""

    verdicts: Sequence[Verdict]
    unread: int


def judge(contests: Sequence[Contest], by: Judge, journal: Journal, listen: Listener, *, offline: bool) -> Judged:
    """Every contest in both orders, out of the journal, for which what it lacks is asked before.

    Whoever wins in one order alone has tied. Raises `RunError` where the judge does not answer or, offline, a verdict
    is missing.
    """
    endpoint = Endpoint(by.url, by.model, by.api_key_env, by.concurrency)
    asked = {each.key: _both(endpoint, by.prompt, each) for each in contests if each.settled is None}
    requests = [request for both in asked.values() for request in both]
    if wanted := journal.missing(requests, offline=offline):
        endpoint.ask(wanted, journal, lambda done: listen(Event("judge", done, len(wanted))))
    found = [_verdict(each, [journal.reply(request) for request in asked.get(each.key, ())]) for each in contests]
    read = [each for each in found if each]
    return Judged(read, len(found) - len(read))


def says(text: str) -> Side | None:
    """Which place a judge's text gives the better answer to, by its last verdict; None where there is none."""
    found = _VERDICT.findall(text)
    sides: dict[str, Side] = {"a": "first", "b": "second", "tie": "tie"}
    return sides[found[-1].lower()] if found else None


def _both(endpoint: Endpoint, prompt: str, contest: Contest) -> list[Request]:
    """With the first run's answer in front, then with the second's."""
    texts = [text or "" for text in contest.texts]
    orders = pairwise([*texts, texts[0]])
    return [endpoint.request([{"role": "user", "content": _fill(prompt, contest, *each)}], _ROOM) for each in orders]


def _fill(prompt: str, contest: Contest, first: str, second: str) -> str:
    """At once, so that braces within an answer stay what they are."""
    asked = contest.first
    values = {"question": asked.prompt, "reference": asked.reference, "first": first, "second": second}
    return re.sub(r"\{(question|reference|first|second)\}", lambda match: values[match.group(1)], prompt)


def _verdict(contest: Contest, replies: Sequence[Reply]) -> Verdict | None:
    if contest.settled:
        return Verdict(contest, contest.settled)
    before, behind = (None if reply.failed else says(reply.text) for reply in replies)
    if before is None or behind is None:
        return None
    turned: dict[Side, Side] = {"first": "second", "second": "first", "tie": "tie"}
    orders = (before, turned[behind])
    return Verdict(contest, orders[0] if orders[0] == orders[1] else "tie", orders)
