"""`metier serve`: runs as an assistant that OpenAI's clients can ask."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import Offline, Progress, say
from metier.errors import MetierError

if TYPE_CHECKING:
    from metier.assistant.safety import Safety
    from metier.assistant.scope import Scope
    from metier.run import Run
    from metier.web.care import Care
    from metier.web.dispatch import Dispatch, Typed

_NEEDED = ("fastapi", "uvicorn", "llguidance", "prometheus_client")

Runs = Annotated[list[Path] | None, typer.Argument(metavar="RUN…", help="runs that answer")]
Host = Annotated[str, typer.Option(help="address to listen on; others than this machine's own need a key")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
KeyFile = Annotated[Path, typer.Option("--keys", help="file with the hashes of keys")]
NewKey = Annotated[
    str | None,
    typer.Option(metavar="NAME[=admin]", help="make a key, print it once, and end; an admin may load and tune"),
]
Origin = Annotated[
    list[str] | None, typer.Option(help="a page elsewhere that may ask, such as https://help.example.com")
]

SafetyFile = Annotated[Path | None, typer.Option("--safety", help="rules of your own, laid over those that ship")]


def serve(  # noqa: PLR0913, PLR0917 (a parameter is a flag)
    runs: Runs = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: KeyFile = Path("keys.json"),
    new_key: NewKey = None,
    origin: Origin = None,
    safety: SafetyFile = None,
    offline: Offline = False,
) -> None:
    """Serve runs to OpenAI's clients, exactly as they were measured.

    Runs of one base share it. A model is named by its run, by RUN/DOMAIN, or by its domain.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise MetierError(f"serving needs {', '.join(missing)}", "pip install 'metier[serve]'")
    from metier.web.keys import Keys
    from metier.web.keys import new_key as make_key

    if new_key:
        name, _, role = new_key.partition("=")
        if role not in ("", "admin"):
            raise MetierError(f"--new-key: {role!r} is no role", f"write {name}, or {name}=admin")
        print(make_key(keys, name, "admin" if role else "user"))
        say(f"keep it: {keys} has its hash alone")
        return
    if not runs:
        raise MetierError("nothing is served", "name one or more runs: metier serve runs/…")
    from metier.inference.voices import Voices
    from metier.run import Run
    from metier.web.desk import AUTO, Desk
    from metier.web.serve import Address, assert_safe, run_server

    address, known = Address(host, port, tuple(origin or ())), Keys.open(keys)
    assert_safe(address, known)
    voices, opened = Voices(offline=offline, listen=Progress()), [Run.open(each) for each in runs]
    for run in opened:
        voices.add(run)
    sides = _typed(opened, offline=offline)
    desk = Desk(voices, _dispatch(sides, opened[0].directory.parent), _care(safety, sides))
    say(f"models: {', '.join([*([AUTO] if desk.dispatch else []), *desk.targets])}")
    say(f"answers at http://{host}:{port}/v1{'' if known.known else ', without a key, to this machine alone'}")
    run_server(desk, address, known, Path.cwd(), offline=offline)


def _care(path: Path | None, sides: Typed) -> Care:
    """Safety, mood and the database of tickets and feedback, beside where the server is started."""
    from metier.assistant.feedback import Feedback
    from metier.assistant.mood import Moods
    from metier.assistant.safety import Safety
    from metier.assistant.tickets import Tickets
    from metier.web.care import Care

    safety, database = Safety.open(path), Path("assistant.db")
    say(f"safety knows {', '.join(safety.languages)} alone: emergencies in other languages are not recognised")
    tickets, feedback = Tickets(database, safety.masked), Feedback(database, safety.masked)
    return Care(safety, Moods.open(), tickets, feedback, _scope(sides, safety))


def _scope(sides: Typed, safety: Safety) -> Scope | None:
    """What the served runs are there for, and how often that is told wrongly."""
    from metier.assistant.scope import Scope, elsewhere

    train, validation, heldout = (
        [text for texts in sides[side].values() for text in texts] for side in ("train", "validation", "heldout")
    )
    if not train:
        return None
    domains, others = [*sides["train"]], elsewhere()[1]
    medical = any(map(safety.is_medical, domains))
    scope = Scope.fit(domains, train, validation, safety.lexicon.normal, medical=medical)
    told = f"{scope.declined(heldout)} of {len(heldout)} held-out questions"
    say(f"what belongs to no domain is declined: {told}, {scope.declined(others)} of {len(others)} of no trade at all")
    return scope


def _typed(runs: Sequence[Run], *, offline: bool) -> Typed:
    """What users typed in the data of the served runs; nothing, and why, where it is not there any more."""
    from metier.web.dispatch import typed

    try:
        return typed(runs, offline=offline, listen=Progress())
    except MetierError as error:
        say(f"note  neither is a domain chosen by itself nor a question declined: {error}")
        return {side: {} for side in ("train", "validation", "heldout")}


def _dispatch(sides: Typed, runs: Path) -> Dispatch | None:
    """The router in front of all, kept below `runs`, or None, and why, where there cannot be one."""
    from metier.web.dispatch import open_dispatch

    try:
        return open_dispatch(sides, runs / "routers")
    except MetierError as error:
        say(f"note  no domain is chosen by itself: {error}")
        return None
