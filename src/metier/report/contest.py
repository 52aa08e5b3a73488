"""A comparison → one HTML page that needs nothing else, not even a script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metier.report.overview import look_over
from metier.report.page import environment


def render(values: Mapping[str, Any], runs: Path) -> str:
    """The page of comparison.json's values, whose runs lie in a folder; the same values give the same text.

    Raises `RunError` where a run is gone or unreadable.
    """
    return environment().get_template("contest.html.jinja").render(view=look_over(values, runs))
