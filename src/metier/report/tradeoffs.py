"""What tuning gained beside what it cost: skill forgotten, and what a model of one domain does in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metier.evaluation.standings import OVERALL
from metier.figures import decimal, figure
from metier.report.charts import Chart, Frame, Spot
from metier.report.entrants import MARKS, Entrant
from metier.report.pictures import ALARM, Axis, Tick

_WIDE, _HIGH = 5, 6  # percent of the picture that a number takes


@dataclass(frozen=True)
class Place:
    """A domain's score of a line; `share` is where it stands from the lowest to the highest, `own` what it learned."""

    figure: str
    share: float
    own: bool


@dataclass(frozen=True)
class Crossing:
    """Lines by domains; `rows` are (line, a place a domain, None where it was not asked)."""

    domains: tuple[str, ...]
    rows: tuple[tuple[Entrant, tuple[Place | None, ...]], ...]


def draw_forgetting(entrants: Sequence[Entrant]) -> Chart | None:
    """Gain over the untuned base (up) against what was forgotten (across); None where nobody has both."""
    found = [(each, gain, each.line["forgetting"]) for each in entrants if (gain := _gain(each))]
    found = [(each, gain, lost) for each, gain, lost in found if lost]
    if not found:
        return None
    across = [0.0, ALARM * 1.15, *(lost[end] for *_, lost in found for end in ("low", "high"))]
    up = [0.0, *(100 * gain[end] for _, gain, _ in found for end in ("low", "high"))]
    frame = Frame(Axis.around(across), Axis.around(up))
    # What is marked lies on top, and its number is there in any crowd.
    crowd = [_spot(each, gain, lost, frame) for each, gain, lost in reversed(found)]
    spots = _legible(sorted(crowd, key=lambda spot: spot.look in MARKS))
    return Chart(
        look="",
        name="",
        said=", ".join(
            f"{each.name}: {figure(OVERALL, gain['value'], signed=True)} points, "
            f"{decimal(lost['value'], 3, signed=True)} nats"
            for each, gain, lost in found
        ),
        across=frame.x.ticks(6),
        up=frame.upward(5),
        spots=spots,
        uprights=(Tick(frame.across(0), ""), Tick(frame.across(ALARM), "alarm")),
        levels=(Tick(frame.up(0), ""),),
    )


def read_crossing(table: Mapping[str, Any], entrants: Sequence[Entrant]) -> Crossing | None:
    """Lines tuned on one domain, the experts, and what they are measured by; None without any."""
    apart = [each for each in entrants if each.line["layout"] != "shared"]
    if not apart or len(table["domains"]) < 2:
        return None
    arms = {each.line["arm"] for each in apart}
    shown = [each for each in entrants if each.is_base or each.line["arm"] in arms]
    domains = tuple(table["domains"])
    values = [score["value"] for each in shown for score in each.line["by_domain"].values()]
    shade = Axis(min(values), max(values) + 1e-9)
    return Crossing(domains, tuple((each, tuple(_places(each, domains, shade))) for each in shown))


def _legible(spots: Sequence[Spot]) -> tuple[Spot, ...]:
    """Without the numbers that would lie on one of a later spot; what is marked keeps its own."""
    kept: list[Spot] = []
    for spot in reversed(spots):
        crowded = any(other.label and abs(spot.x - other.x) < _WIDE and abs(spot.y - other.y) < _HIGH for other in kept)
        kept.append(replace(spot, label="") if crowded and spot.look not in MARKS else spot)
    return tuple(reversed(kept))


def _gain(entrant: Entrant) -> Mapping[str, Any] | None:
    against = entrant.line["against_base"]
    gain: Mapping[str, Any] | None = against and against["overall"]
    return gain


def _spot(entrant: Entrant, gain: Mapping[str, Any], lost: Mapping[str, Any], frame: Frame) -> Spot:
    return Spot(
        look=entrant.look,
        x=frame.across(lost["value"]),
        y=frame.up(100 * gain["value"]),
        radius=5,
        label=str(entrant.rank),
        across=(frame.across(lost["low"]), frame.across(lost["high"])),
        up=(frame.up(100 * gain["low"]), frame.up(100 * gain["high"])),
    )


def _places(entrant: Entrant, domains: Sequence[str], shade: Axis) -> list[Place | None]:
    scores = entrant.line["by_domain"]
    counts = [run.facts["data"] for run in entrant.runs] if entrant.line["layout"] != "shared" else []
    learned = {name for each in counts for name, sides in each.items() if sides["train"]}
    return [
        Place(figure(OVERALL, score["value"]), round(shade.percent(score["value"]) / 100, 3), name in learned)
        if (score := scores.get(name))
        else None
        for name in domains
    ]
