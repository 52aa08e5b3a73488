"""`metier serve`: runs as an assistant that OpenAI's clients can ask."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.cli.common import Offline, PlanSet, Progress, overrides, say
from metier.errors import MetierError
from metier.hardware import spin

if TYPE_CHECKING:
    from metier.assistant.safety import Safety
    from metier.assistant.scope import Scope
    from metier.inference.voices import Elsewhere, Voices
    from metier.run import Run
    from metier.web.care import Care
    from metier.web.dispatch import Dispatch, Typed

_ENGINES = "native, llamacpp or vllm"
_FEWEST = 10  # held-out questions, to know what belongs here
_LOST = 0.05  # of them may be declined; else none is
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
    plan: PlanSet = None,
    offline: Offline = False,
) -> None:
    """Serve runs to OpenAI's clients, exactly as they were measured.

    Runs of one base share it. A model is named by its run, by RUN/DOMAIN, or by its domain. With --plan
    engine=llamacpp, or engine=vllm, another engine answers, near what was measured.
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
    spin(20_000)  # longer than it takes to begin the next product; the engine yields to others
    from metier.inference.voices import Voices
    from metier.run import Run
    from metier.web.desk import AUTO, Desk
    from metier.web.jobs import Jobs
    from metier.web.serve import Address, assert_free, assert_safe, run_server

    address, known = Address(host, port, tuple(origin or ())), Keys.open(keys)
    assert_safe(address, known)
    assert_free(address)
    voices, opened = Voices(offline=offline, listen=Progress()), [Run.open(each) for each in runs]
    _add(voices, opened, plan)
    sides = _typed(opened, offline=offline)
    desk = Desk(voices, _dispatch(sides, opened[0].directory.parent), _care(safety, sides))
    home = Path.cwd()
    jobs = Jobs(home / "jobs", voices.add, offline=offline)
    say(f"models: {', '.join([*([AUTO] if desk.dispatch else []), *desk.targets])}")
    say(f"answers at http://{host}:{port}/v1{'' if known.known else ', without a key, to this machine alone'}")
    say(f"the page: http://{host}:{port}/")
    run_server(desk, jobs, address, known, home)


def _add(voices: Voices, runs: Sequence[Run], plan: list[str] | None) -> None:
    """Have runs answered by metier's own engine, or the one that is named."""
    from metier.inference.voices import NATIVE

    chosen = overrides(plan)
    engine = chosen.pop("engine", NATIVE)
    if chosen:
        raise MetierError(f"--plan {next(iter(chosen))}: is no choice of serving", f"the one is engine = {_ENGINES}")
    if engine == NATIVE:
        for run in runs:
            voices.add(run)
        return
    # What ends metier while the other engine starts ends that too; later the server sees to it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    voices.add_elsewhere({run.name: run for run in runs}, _elsewhere(engine))
    say(f"note  {engine} answers: what is served is near what was measured, not equal to it")


def _elsewhere(engine: Any) -> Elsewhere:
    """What opens runs on another engine."""
    match engine:
        case "llamacpp":
            if find_spec("gguf") is None:
                raise MetierError("engine = llamacpp needs gguf", "pip install 'metier[gguf]'")
            from metier.inference.llamacpp import open_llamacpp

            return open_llamacpp
        case "vllm":
            from metier.inference.vllm import open_vllm

            return open_vllm
    raise MetierError(f"--plan engine={engine}: there is no such engine", f"choose {_ENGINES}")


def _care(path: Path | None, sides: Typed) -> Care:
    """Safety, mood and the database of tickets and feedback, beside where the server is started."""
    from metier.assistant.feedback import Feedback
    from metier.assistant.mood import Moods
    from metier.assistant.safety import Safety
    from metier.assistant.tickets import Tickets
    from metier.web.care import Care
    from metier.web.webhook import Webhook

    safety, database = Safety.open(path), Path("assistant.db")
    say(f"safety knows {', '.join(safety.languages)} alone: emergencies in other languages are not recognised")
    medical = ", ".join(filter(safety.is_medical, sides["train"])) or "none"
    say(f"taken for medical by name: {medical}; a --safety file tells others under [domains]")
    webhook = Webhook(safety.rules.webhook) if safety.rules.webhook else None
    if webhook:
        say(f"new tickets are posted to {webhook.host}")
    tickets, feedback = Tickets(database, safety.masked), Feedback(database, safety.masked)
    return Care(safety, Moods.open(), tickets, feedback, _scope(sides, safety), webhook)


def _scope(sides: Typed, safety: Safety) -> Scope | None:
    """What the served runs are there for, where their rows tell it; and how often it is told wrongly."""
    from metier.assistant.scope import Scope, elsewhere

    train, validation, heldout = (
        [text for texts in sides[side].values() for text in texts] for side in ("train", "validation", "heldout")
    )
    if not train:
        return None
    domains, others = [*sides["train"]], elsewhere()[1]
    medical = any(map(safety.is_medical, domains))
    scope = Scope.fit(domains, train, validation, safety.lexicon, medical=medical)
    lost = scope.declined(heldout)
    told = f"{lost} of {len(heldout)} held-out questions"
    if len(heldout) < _FEWEST or lost > _LOST * len(heldout):
        say(f"note  no question is declined: {told} would be; more rows would tell what belongs here")
        return None
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
