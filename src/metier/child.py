"""One recipe in a process of its own, run or looked at: its memory is its own, and what stops it stops nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from metier.errors import DataError, Fault, MetierError
from metier.events import Event, Listener, silent
from metier.hardware import spin
from metier.recipe import Recipe
from metier.run import Run

_running: set[subprocess.Popen[str]] = set()
_STOPS = (signal.SIGINT, signal.SIGTERM)
_CRASHED = "a fault of metier's, not yours; its lines stand above"


class _Stopped(MetierError):
    """A child was asked to end before it was done."""


def train(
    recipe: Recipe,
    overrides: Mapping[str, Any],
    *,
    offline: bool,
    on_event: Listener,
    beside_others: bool = False,
    started: Callable[[Callable[[], None]], None] = lambda _: None,
) -> Run:
    """What `experiment.train` does, in a child that ends with this process. Raises `MetierError` as that does.

    `started` is given what asks the child to write its checkpoint and end.
    A child that was asked to stop stops this process too: `KeyboardInterrupt`.
    """
    how = {"overrides": dict(overrides), "offline": offline, "beside_others": beside_others}
    try:
        return Run(Path(_asked("train", recipe, how, on_event, started)["run"]))
    except _Stopped:
        raise KeyboardInterrupt from None


def read(recipe: Recipe, *, offline: bool) -> None:
    """Its data, to see whether it can be read. Raises `DataError` with every fault, as `dataset.load` does."""
    said = _asked("read", recipe, {"offline": offline}, silent, lambda _: None)
    if said["faults"]:
        raise DataError(str(recipe.path), [Fault(**each) for each in said["faults"]], said["hint"])


def foresee(recipe: Recipe, *, offline: bool) -> dict[str, Any]:
    """What `foresight.foresee` tells, from a child. Raises `MetierError` as that does."""
    foreseen: dict[str, Any] = _asked("foresee", recipe, {"offline": offline}, silent, lambda _: None)["foreseen"]
    return foreseen


def _asked(
    verb: str,
    recipe: Recipe,
    how: Mapping[str, Any],
    on_event: Listener,
    started: Callable[[Callable[[], None]], None],
) -> dict[str, Any]:
    """What the child says at its end."""
    asked = {"verb": verb, "recipe": recipe.values(), "path": str(recipe.path), "how": how}
    command = [sys.executable, "-m", "metier.child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as child:
        _running.add(child)
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(asked) + "\n")
        child.stdin.flush()  # and left open: its end tells the child that this process is gone
        started(child.terminate)  # now, for what is stopped at once reads nothing any more
        result: dict[str, Any] = {}
        try:
            for line in child.stdout:
                said = json.loads(line)
                if "phase" in said:
                    on_event(Event(**said))
                else:
                    result = said
        finally:
            _running.discard(child)
    # A signal ends it by itself until it listens to them, whether this process sent it or, to all at once, the system.
    if "stopped" in result or (not result and -child.returncode in _STOPS):
        raise _Stopped(result.get("stopped") or "was stopped before it was done")
    if result and "error" not in result:
        return result
    raise MetierError(result.get("error") or _why(child.returncode), result.get("hint", ""))


def _why(code: int) -> str:
    """Why a child ended without a word."""
    if code == -getattr(signal, "SIGKILL", 9):
        return "was killed: most likely the machine ran out of memory"
    return f"was ended by signal {-code}" if code < 0 else _CRASHED


def stop_all() -> None:
    """Ask every child to write its checkpoint and end."""
    for each in list(_running):
        each.terminate()


def _main() -> None:
    """The child: events and the result as lines of JSON."""
    spin()  # as at the command line, whoever has started it
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints, in whatever language, must not mix with them
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stopping = threading.Event()
    for number in _STOPS:
        signal.signal(number, lambda *_: stopping.set())
    recipe = Recipe.of(asked["recipe"], Path(asked["path"]))
    try:
        _say(said, _done(asked["verb"], recipe, asked["how"], said, stopping.is_set))
    except MetierError as error:
        if stopping.is_set():
            _say(said, {"stopped": str(error)})
            return
        _say(said, {"error": str(error), "hint": error.hint})
    except MemoryError:
        _say(said, {"error": "out of memory", "hint": "`metier plan` shows what needs how much"})
    except OSError as error:
        traceback.print_exc()
        _say(said, {"error": f"{error.filename or 'the machine'}: {error.strerror}", "hint": ""})


def _done(verb: str, recipe: Recipe, how: Mapping[str, Any], said: IO[str], stop: Callable[[], bool]) -> dict[str, Any]:
    if verb == "read":
        return _unread(recipe, **how)
    from metier import experiment, foresight

    if verb == "foresee":
        return {"foreseen": foresight.foresee(recipe, **how)}
    run = experiment.train(recipe, **how, on_event=lambda event: _say(said, asdict(event)), stop=stop)
    return {"run": str(run.directory)}


def _unread(recipe: Recipe, *, offline: bool) -> dict[str, Any]:
    """Why its data cannot be read. It takes a second, for no model's library is loaded."""
    from metier.data import dataset

    try:
        dataset.load(recipe, offline=offline)
    except DataError as error:
        return {"faults": [asdict(each) for each in error.faults], "hint": error.hint}
    return {"faults": [], "hint": ""}


def _say(to: IO[str], value: Mapping[str, Any]) -> None:
    to.write(json.dumps(value) + "\n")
    to.flush()


def _end_with_parent() -> None:
    sys.stdin.read()  # returns at its end
    os._exit(1)


if __name__ == "__main__":
    _main()
