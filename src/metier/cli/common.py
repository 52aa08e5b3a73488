"""What the verbs share: their common options, a recipe from the command line, events as lines or bars."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.events import Event
from metier.figures import duration
from metier.keys import parse_override
from metier.recipe import Recipe
from metier.tables import Part

if TYPE_CHECKING:
    from rich.console import Console

Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key of the recipe")]
PlanSet = Annotated[list[str] | None, typer.Option("--plan", metavar="KEY=VALUE", help="force a choice of the plan")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Offline = Annotated[bool, typer.Option("--offline", help="fetch nothing: all has to be on this machine")]

_LINE_EVERY = 5.0  # seconds between lines of progress where there is no terminal


def recipe_from(path: Path, changes: list[str] | None) -> Recipe:
    return Recipe.load(path, overrides(changes))


def overrides(changes: list[str] | None) -> dict[str, Any]:
    return dict(parse_override(change) for change in changes or [])


def console() -> Console:
    """Where messages go: stderr, plain where it is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: Part = "") -> None:
    """A line or a table for people."""
    print(text, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """Data for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


class Progress:
    """Draws events on stderr: one changing line on a terminal or in a notebook, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._begun: dict[tuple[str, int], tuple[float, int]] = {}
        self._done: dict[tuple[str, int], int] = {}
        self._last = 0.0
        self._noted: set[str] = set()

    def __call__(self, event: Event) -> None:
        if event.phase == "note":
            self._note(str(event.values["text"]))
            return
        # Runs side by side speak on threads of their own.
        now, run = time.monotonic(), (event.phase, threading.get_ident())
        if run not in self._begun or event.done < self._done[run]:  # another run begins
            self._begun[run] = now, event.done
        self._done[run] = event.done
        begun, first = self._begun[run]
        finished = event.done == event.total
        if event.phase == "validation" or finished or self._terminal or now - self._last > _LINE_EVERY:
            self._last = now
            seconds = now - begun
            left = seconds / max(1, event.done - first) * (event.total - event.done) if event.done > first else None
            self._write(_line(event, left), lasting=finished or event.phase == "validation")

    def _note(self, text: str) -> None:
        """Once: a comparison reads the same data for every strategy."""
        if text not in self._noted:
            self._noted.add(text)
            self._write(text, lasting=True)

    def _write(self, text: str, *, lasting: bool) -> None:
        if not self._terminal:
            say(text)
            return
        sys.stderr.write(f"\r\x1b[2K{text}" + ("\n" if lasting else ""))
        sys.stderr.flush()


def _line(event: Event, left: float | None) -> str:
    parts = [f"{event.phase:<12} {event.done}/{event.total}"]
    parts += [f"{name} {_short(value)}" for name, value in _shown(event.values).items()]
    if left is not None and event.done < event.total:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def _shown(values: Mapping[str, float | int | str]) -> dict[str, float | int | str]:
    return {name: value for name, value in values.items() if name not in ("seconds", "tokens", "grad_norm")}


def _short(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
