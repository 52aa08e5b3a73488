"""Pairs of answers as people see them, who must not know whose is whose; and what they say, read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metier.errors import RunError
from metier.evaluation.preferred import Contest, Side, Verdict
from metier.files import digest, read_json

_ID = 16  # hexadecimal digits
SAID = ("one", "two", "tie")


@dataclass(frozen=True)
class Ticket:
    """What people see of a contest: its key tells nothing of the runs."""

    key: str
    question: str
    one: str
    two: str


def tickets(contests: Sequence[Contest]) -> list[Ticket]:
    """In an order that tells nothing and is the same every time, without those that need no judge."""
    made = [_ticket(each) for each in contests if each.settled is None]
    return sorted(made, key=lambda each: digest(["order", each.key]))


def page_of(shown: Sequence[Ticket]) -> str:
    """By which the verdicts on a page are known to belong to it."""
    return digest([asdict(each) for each in shown])[:_ID]


def read_verdicts(path: Path, contests: Sequence[Contest]) -> list[Verdict]:
    """What people said on the page of these contests. Raises `RunError` where the file is of another page, or none."""
    said = _read(path)
    shown = tickets(contests)
    if said["page"] != page_of(shown):
        problem = f"{path}: belongs to a page of other runs, or of other answers"
        raise RunError(problem, "name the runs in the order in which the page was made: --judge blind writes it anew")
    verdicts = said["verdicts"]
    if strange := [each for each in verdicts.values() if each not in SAID]:
        raise RunError(f"{path}: {strange[0]!r} is no verdict", f"they are {', '.join(SAID)}")
    judged = [each for each in contests if each.settled is None and _key(each) in verdicts]
    if not judged:
        raise RunError(f"{path}: holds no verdict", "judge some pairs on the page, then save again")
    return [Verdict(each, _winner(each, verdicts[_key(each)])) for each in judged]


def _read(path: Path) -> dict[str, Any]:
    try:
        said = read_json(path)
    except FileNotFoundError:
        raise RunError(f"{path}: does not exist", "the page of --judge blind saves it") from None
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("verdicts"), dict) or "page" not in said:
        raise RunError(f"{path}: holds no verdicts of people", "give the file that the page of --judge blind saves")
    return said


def _ticket(contest: Contest) -> Ticket:
    texts = [text or "" for text in contest.texts]
    one, two = reversed(texts) if _turned(contest) else texts
    return Ticket(_key(contest), contest.first.prompt, one, two)


def _winner(contest: Contest, said: str) -> Side:
    if said == "tie":
        return "tie"
    return "second" if (said == "one") == _turned(contest) else "first"


def _key(contest: Contest) -> str:
    return digest([*contest.key])[:_ID]


def _turned(contest: Contest) -> bool:
    """Whether the second run's answer stands in front: a fair coin, the same every time."""
    return int(digest(["side", *contest.key, *contest.texts])[0], 16) % 2 == 1
