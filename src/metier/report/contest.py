"""A comparison → one HTML page that needs nothing else, not even a script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from metier.report.page import environment


def render(values: Mapping[str, Any], runs: Path) -> str:
    """The page of comparison.json's values, whose runs lie in a folder; the same values give the same text."""
    return _template().render(table=values["table"], name=Path(values["file"]).stem, runs=runs.name)


@cache
def _template() -> Template:
    return environment().get_template("contest.html.jinja")
