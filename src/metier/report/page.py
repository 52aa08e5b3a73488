"""A run's report: one HTML file that needs nothing else, not even a script."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metier.files import write_atomic
from metier.report.view import look_at
from metier.run import Run


def write_report(run: Run) -> Path:
    """Write `report.html` into a scored run's directory; the same run gives the same bytes."""
    write_atomic(run.report, environment().get_template("page.html.jinja").render(view=look_at(run)))
    return run.report


@cache
def environment() -> Environment:
    """What renders pages: the templates beside this file."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # answers are anything that a model or a customer wrote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
