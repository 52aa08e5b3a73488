"""Two finished runs, and whose open answers a model or people prefer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metier.comparison.pair import common_answers
from metier.errors import RunError
from metier.evaluation.blinded import read_verdicts, tickets
from metier.evaluation.judging import Judge, judge
from metier.evaluation.preferred import (
    Agreement,
    Contest,
    Key,
    Side,
    Verdict,
    Wins,
    agreement,
    count_wins,
    position,
)
from metier.events import Listener
from metier.figures import chance, decimal, interval, sample, with_unit
from metier.files import digest, read_json, write_atomic, write_json
from metier.inference.journal import Journal
from metier.report import blind
from metier.run import Run
from metier.tables import Part, Table


@dataclass(frozen=True)
class Preference:
    """Whose answers `by` prefers; `unread` counts contests without a verdict, `settled` those that needed no judge."""

    first: Run
    second: Run
    by: Mapping[str, str]
    verdicts: Sequence[Verdict]
    unread: int
    agreement: Agreement | None = None

    def to_json(self) -> dict[str, Any]:
        place = position(self.verdicts)
        return {
            "format": 1,
            "first": str(self.first.directory),
            "second": str(self.second.directory),
            "by": dict(self.by),
            "unread": self.unread,
            "domains": [asdict(each) | {"verdict": each.difference.verdict} for each in count_wins(self.verdicts)],
            "position": asdict(place) if place else None,
            "agreement": asdict(self.agreement) if self.agreement else None,
            "items": [_item(each) for each in self.verdicts],
        }

    def parts(self) -> Iterator[Part]:
        who = self.by.get("model", "people")
        yield f"{self.second.directory} against {self.first.directory}, judged by {who}"
        wins = count_wins(self.verdicts)
        head = ("domain", "items", "won", "tied", "lost", "win rate, 95 % interval", "p", "verdict")
        yield Table(head, [_row(each) for each in wins])
        yield "a tie is half a win; p: exact sign test over groups, Holm over the domains"
        yield from (_lengths(each) for each in wins)
        if self.unread:
            yield f"{self.unread:,} pairs are left out: the judge failed, or said neither A nor B nor tie"
        yield from self._position()
        if self.agreement:
            yield _agreed(self.agreement)

    def _position(self) -> Iterator[str]:
        if not (found := position(self.verdicts)):
            return
        decided = found.first_place + found.second_place
        first = (
            f"{100 * found.first_place / decided:.0f} % of {decided:,} wins went to" if decided else "no win went to"
        )
        yield (
            f"order: {100 * found.changed / found.n:.0f} % of {found.n:,} verdicts changed with the order, which makes "
            f"them ties; {first} the answer shown first (50 % is no bias)"
        )


def ask_judge(first: Run, second: Run, path: Path, listen: Listener, *, offline: bool) -> Preference:
    """Every common open item, in both orders; the journal and the verdicts stay with the second run."""
    by = Judge.load(path)
    journal = Journal(second.directory / "judge.jsonl")
    found = judge(contests(first, second), by, journal, listen, offline=offline)
    who = {"url": by.url, "model": by.model, "prompt": digest(by.prompt)}
    result = Preference(first, second, who, found.verdicts, found.unread)
    write_json(_kept(first, second, "judged"), result.to_json())
    return result


def read_people(first: Run, second: Run, path: Path) -> Preference:
    """What people said on the page, beside the judge's verdicts where there are any."""
    verdicts = read_verdicts(path, contests(first, second))
    result = Preference(first, second, {"people": path.name}, verdicts, 0, agreement(verdicts, _judged(first, second)))
    write_json(_kept(first, second, "people"), result.to_json())
    return result


def write_page(first: Run, second: Run) -> Path:
    """A page on which people judge; it stays with the second run."""
    shown = tickets(contests(first, second))
    if not shown:
        problem = f"{first.directory} and {second.directory} give the same answers, as far as they give any"
        raise RunError(problem, "there is nothing to judge")
    path = second.directory / f"blind.{first.name}.html"
    write_atomic(path, blind.render(shown))
    return path


def contests(first: Run, second: Run) -> list[Contest]:
    """The open items of both. Raises `RunError` where there are none."""
    found = [Contest(*pair) for pair in common_answers(first, second).pairs if pair[0].kind == "open"]
    if not found:
        problem = f"{first.directory} and {second.directory} have no open answers in common"
        raise RunError(problem, "labels and choices need no judge: compare them without --judge")
    return found


def _judged(first: Run, second: Run) -> dict[Key, Side]:
    """What a model said of the same pair before, where it was shown both orders."""
    path = _kept(first, second, "judged")
    items = read_json(path)["items"] if path.exists() else []
    return {(each["domain"], each["id"]): each["winner"] for each in items if each["orders"]}


def _kept(first: Run, second: Run, name: str) -> Path:
    return second.directory / f"{name}.{first.name}.json"


def _item(verdict: Verdict) -> dict[str, Any]:
    domain, own = verdict.contest.key
    return {"domain": domain, "id": own, "winner": verdict.winner, "orders": list(verdict.orders)}


def _row(wins: Wins) -> tuple[str, ...]:
    rate = wins.rate
    told = f"{with_unit('win_rate', rate.value)} {interval('win_rate', rate.low, rate.high)}"
    counts = (str(wins.won), str(wins.tied), str(wins.lost))
    p = chance(wins.difference.p_adjusted).removeprefix("p").strip().removeprefix("=").strip()
    return wins.domain, sample(rate.n, rate.groups), *counts, told, p, wins.difference.verdict


def _lengths(wins: Wins) -> str:
    first, second = (decimal(each, 1) for each in wins.words)
    line = f"{wins.domain}: its answers have {second} words, the other's {first}"
    return f"{line}; the longer one won {wins.longer:,} of {wins.decided:,}" if wins.decided else line


def _agreed(found: Agreement) -> str:
    raw, beyond = found.raw, found.kappa
    share = f"{with_unit('agreement', raw.value)} {interval('agreement', raw.low, raw.high)}"
    ends = f"[{decimal(beyond.low, 2)}, {decimal(beyond.high, 2)}]"
    told = f"Cohen's kappa {decimal(beyond.value, 2)} {ends} (0 is chance, 1 is always)"
    return f"people and the judge agree on {share} of {sample(raw.n, raw.groups)}; {told}"
