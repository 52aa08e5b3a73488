"""An adapter's scale λ against what it forgets: the curve on validation, and the point that is recommended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metier.data.general import Passage
from metier.evaluation.forgetting import Beside, read_general_text
from metier.evaluation.verdict import NEGLIGIBLE
from metier.events import Event, Listener, silent
from metier.figures import decimal
from metier.model.scaling import scaled

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
KEPT = 0.8  # of the whole adapter's gain, that a recommended scale must keep


@dataclass(frozen=True)
class Point:
    """One scale: validation score out of 1, and nats a token that are forgotten on validation's general text."""

    scale: float
    score: float
    forgetting: float


def measure_tradeoff(
    beside: Beside, passages: Sequence[Passage], best: float, score: Callable[[], float], listen: Listener
) -> dict[str, Any]:
    """The points, the recommended scale and why, as tradeoff.json has them.

    `best` is the whole adapter's validation score, which `score` gives of the adapter as it is. Where the whole
    forgets next to nothing it is the only point, since every other one costs a validation. Quarters are tried first,
    then the middle between the one to be recommended and the next smaller.
    """

    def add(scale: float) -> None:
        with scaled(beside.forward.network, scale):
            points.append(Point(scale, score(), _forgetting(beside, passages)))
        listen(Event("trade-off", len(points) - 1, len(SCALES), asdict(points[-1])))
        points.sort(key=lambda each: each.scale)

    points = [Point(1.0, best, _forgetting(beside, passages))]
    if points[0].forgetting > NEGLIGIBLE:
        for scale in SCALES[:-1]:
            add(scale)
        chosen, _ = recommend(points)
        add((chosen + max(each.scale for each in points if each.scale < chosen)) / 2)
    recommended, why = recommend(points)
    return {"points": [asdict(each) for each in points], "recommended": recommended, "why": why}


def recommend(points: Sequence[Point]) -> tuple[float, str]:
    """The scale to use and why, from points by rising scale, of which the last is the whole adapter.

    It is the smallest that keeps four fifths of the whole adapter's gain on validation, or of the best one where the
    whole gains nothing.
    """
    base, whole = points[0], points[-1]
    lost = f"{decimal(whole.forgetting, 3, signed=True)} nats a token on validation's general text"
    if len(points) == 1:
        return 1.0, f"the whole adapter forgets next to nothing ({lost})"
    gains = {each.scale: each.score - base.score for each in points[1:]}
    wanted = gains[whole.scale] if gains[whole.scale] > 0 else max(gains.values())
    if wanted <= 0:
        return 1.0, f"no scale scores above the untuned base on validation, so there is no gain to keep ({lost})"
    chosen = next(each for each in points[1:] if gains[each.scale] >= KEPT * wanted)
    share = f"{gains[chosen.scale] / wanted:.0%}"
    kept = f"the smallest of {len(gains)} that keeps {KEPT:.0%} of the gain on validation ({share})"
    if chosen is whole:
        return 1.0, f"{kept}; it forgets {lost}"
    return chosen.scale, f"{kept}; it forgets {decimal(chosen.forgetting, 3, signed=True)} instead of {lost}"


def _forgetting(beside: Beside, passages: Sequence[Passage]) -> float:
    """Nats a token, tuned minus untuned."""
    answers = read_general_text(beside, passages, silent)
    lost = sum((each.base_logprob or 0.0) - (each.logprob or 0.0) for each in answers)
    return lost / sum(each.tokens or 0 for each in answers)
