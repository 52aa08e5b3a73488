"""One adapter or experts: what their differences say, and where routers sent what, as the page takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metier.evaluation.standings import OVERALL
from metier.figures import count, decimal, figure
from metier.report.confusions import Cell, read_cells
from metier.report.scoring import Contrast, read_contrast

_MEANING = {
    "interference": "what experts gain on the one adapter, were each question sent to the right one",
    "routing loss": "what the classifier in front of the experts loses on that",
    "routing loss of the base": "the same, where the untuned base itself chooses the domain",
}


@dataclass(frozen=True)
class Sent:
    """What became of some texts: shares of 100, of all; `right` and `wrong` among them that were sent anywhere."""

    name: str
    texts: str
    right: str
    wrong: str
    abstained: str


@dataclass(frozen=True)
class Matrix:
    """A row a true domain, a column a domain sent to, then nowhere."""

    texts: str
    domains: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Router:
    """One router; `abstains` says when it does."""

    name: str
    abstains: str
    rows: tuple[Sent, ...]
    matrices: tuple[Matrix, ...]


@dataclass(frozen=True)
class Crossed:
    """What each expert scores in each domain, of 100; `cost` is what a wrong route loses, over all pairs alike."""

    name: str
    domains: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    cost: str


@dataclass(frozen=True)
class Experts:
    """`contrasts` are (what, its meaning, the difference) for every strategy that was laid out in several ways."""

    contrasts: tuple[tuple[str, str, Contrast], ...]
    crossed: tuple[Crossed, ...]
    routers: tuple[Router, ...]


def read_experts(table: Mapping[str, Any]) -> Experts | None:
    """None where no strategy had experts."""
    if not table.get("layouts"):
        return None
    several = len(table["layouts"]) > 1
    named = [
        (f"{each['arm']}: {says}" if several else says, says, found)
        for each in table["layouts"]
        for says, found in each["contrasts"].items()
    ]
    contrasts = [
        (name, _MEANING.get(says, ""), read_contrast({**found, "metric": OVERALL})) for name, says, found in named
    ]
    first = min((each["seed"] for each in table["routers"]), default=0)
    crossed = tuple(_crossed(each["oracle"], each["matrix"]) for each in table["layouts"])
    return Experts(
        tuple(contrasts), crossed, tuple(_router(each) for each in table["routers"] if each["seed"] == first)
    )


def _crossed(name: str, matrix: Mapping[str, Mapping[str, float]]) -> Crossed:
    domains = tuple(next(iter(matrix.values())))
    rows = tuple((expert, tuple(figure(OVERALL, own[domain]) for domain in domains)) for expert, own in matrix.items())
    lost = [matrix[expert][each] - matrix[each][each] for each in matrix for expert in matrix if expert != each]
    return Crossed(name, domains, rows, figure(OVERALL, sum(lost) / len(lost), signed=True) if lost else "")


def _router(found: Mapping[str, Any]) -> Router:
    rows = [("held-out questions", found["heldout"]), *found["hard"].items()]
    drawn = [(name, each) for name, each in rows if name in ("held-out questions", "all hard prompts")]
    return Router(
        name=found["line"],
        abstains=_abstains(found["threshold"]),
        rows=tuple(_sent(name, each) for name, each in rows),
        matrices=tuple(_matrix(name, each) for name, each in drawn),
    )


def _abstains(threshold: float) -> str:
    if not threshold:
        return ""
    if threshold > 1:
        return "On validation no share was large enough to be trusted: it sends nothing."
    return f"Below a share of {decimal(threshold, 2)}, chosen on validation, it abstains."


def _matrix(texts: str, found: Mapping[str, Any]) -> Matrix:
    rows = tuple(read_cells(row, place) for place, row in enumerate(found["counts"]))
    return Matrix(texts, (*found["domains"], "nowhere"), rows)


def _sent(name: str, found: Mapping[str, Any]) -> Sent:
    total = found["right"] + found["wrong"] + found["abstained"]
    shares = (decimal(100 * found[each] / total, 1) if total else "–" for each in ("right", "wrong", "abstained"))
    return Sent(name, count(total), *shares)
