"""When a message was sent: numbers, ISO dates, and local spellings that leave no doubt."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime


def moments(texts: Sequence[str]) -> Sequence[float] | Sequence[str] | None:
    """Values that sort as the texts mean: numbers, dates, other text; None where they tell no order.

    Dates are ISO's, or all of one local spelling that leaves no doubt: 31.1.2026 9:58, 31/01/2026 09:58:00,
    1/31/2026 9:58 pm. Where no day is above 12, slashes do not tell which number is the month.
    """
    kinds = {kind_of(text) for text in texts}
    if kinds == {"a number"}:
        return [float(text) for text in texts]
    if kinds == {"an ISO date"}:
        return [_timestamp(text) for text in texts]
    return texts if kinds == {"text"} else _local_moments(texts)


def kind_of(text: str) -> str:
    """What a value seems to be, for people."""
    for kind, read in (("a number", float), ("an ISO date", _timestamp)):
        try:
            if math.isfinite(read(text)):
                return kind
        except ValueError:
            continue
    return "no ISO date" if not text or _OTHER_DATE.search(text) else "text"


# 31/1/2026, 31.1.2026, Jan 31, 31 January, 9:58: none of them is in order as text.
_OTHER_DATE = re.compile(r"\d[/.]\d|[A-Za-z]{3}\.? \d|\d [A-Za-z]{3}|^\d:")
_LOCAL_DATE = re.compile(
    r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})(?P=mark)(?P<year>\d{4})"
    r"(?:,?[ T]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<rest>\d\d))?(?: ?(?P<half>[ap])\.?m\.?)?)?",
    re.IGNORECASE,
)


def _local_moments(texts: Sequence[str]) -> list[float] | None:
    """Local dates, the day in front unless the values say otherwise; None for others, and in doubt."""
    found = [match for text in texts if (match := _LOCAL_DATE.fullmatch(text))]
    if len(found) < len(texts) or len({match["mark"] for match in found}) != 1:
        return None
    day_first = any(int(match["first"]) > 12 for match in found) or all(match["mark"] == "." for match in found)
    if not day_first and all(int(match["second"]) <= 12 for match in found):
        return None
    try:
        return [_local_timestamp(match, day_first) for match in found]
    except ValueError:
        return None


def _local_timestamp(match: re.Match[str], day_first: bool) -> float:
    day, month = (match["first"], match["second"]) if day_first else (match["second"], match["first"])
    hour = int(match["hour"] or 0)
    if half := (match["half"] or "").lower():
        hour = hour % 12 + 12 * (half == "p")
    clock = (hour, int(match["minute"] or 0), int(match["rest"] or 0))
    return datetime(int(match["year"]), int(month), int(day), *clock, tzinfo=UTC).timestamp()


def _timestamp(text: str) -> float:
    moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
