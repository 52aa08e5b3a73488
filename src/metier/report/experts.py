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
class Router:
    """One router; `matrix` has a row a true domain, a column a domain sent to, then nowhere."""

    name: str
    threshold: str
    rows: tuple[Sent, ...]
    domains: tuple[str, ...]
    matrix: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Crossed:
    """What each expert scores in each domain, of 100; `cost` is what a wrong route loses, the mean over all of them."""

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
    held = found["heldout"]
    rows = [("held-out questions", held), *found["hard"].items()]
    return Router(
        name=found["line"],
        threshold=decimal(found["threshold"], 2) if found["threshold"] else "",
        rows=tuple(_sent(name, each) for name, each in rows),
        domains=(*held["domains"], "nowhere"),
        matrix=tuple(read_cells(row, place) for place, row in enumerate(held["counts"])),
    )


def _sent(name: str, found: Mapping[str, Any]) -> Sent:
    total = found["right"] + found["wrong"] + found["abstained"]
    shares = (decimal(100 * found[each] / total, 1) if total else "–" for each in ("right", "wrong", "abstained"))
    return Sent(name, count(total), *shares)
