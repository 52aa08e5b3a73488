"""`metier serve`: runs as an assistant that OpenAI's clients can ask."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import Offline, PlanSet, Progress, overrides, say
from metier.errors import MetierError
from metier.hardware import spin

if TYPE_CHECKING:
    from metier.assistant.mood import Moods
    from metier.assistant.safety import Safety
    from metier.inference.voices import Elsewhere, Voices
    from metier.run import Run
    from metier.web.care import Care
    from metier.web.desk import Desk
    from metier.web.jobs import Jobs

_ENGINES = "native, llamacpp or vllm"
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
    if new_key is not None:
        _make_key(keys, new_key)
        return
    spin(20_000)  # longer than it takes to begin the next product; the engine yields to others
    opened, elsewhere = _answering(runs or []), _elsewhere(plan)
    from metier.assistant.mood import Moods
    from metier.assistant.safety import Safety
    from metier.inference.voices import Voices
    from metier.web.keys import Keys
    from metier.web.serve import Address, assert_free, assert_safe, run_server

    address, known = Address(host, port, tuple(origin or ())), Keys.open(keys)
    assert_free(address)
    assert_safe(address, known)
    say("reading what emergencies and moods sound like; the first time it is learned, in most of a minute")
    rules, moods, voices = Safety.open(safety), Moods.open(safety), Voices(offline=offline, listen=Progress())
    _add(voices, opened, elsewhere)
    routers = opened[0].directory.parent / "routers"
    desk, jobs = _opened(voices, rules, moods, routers, offline=offline)
    _introduce(desk, rules)
    say(f"answers at {address.url}/v1{'' if known.known else ', without a key, to this machine alone'}")
    say(f"the page: {address.url}/{'' if address.local else '; elsewhere by the names that --origin gives it alone'}")
    run_server(desk, jobs, address, known, Path.cwd())
    say("ended")


def _make_key(keys: Path, wanted: str) -> None:
    from metier.web.keys import new_key

    name, _, role = wanted.partition("=")
    if not name:
        raise MetierError("--new-key: a key has a name", "metier serve --new-key team")
    if role not in ("", "admin"):
        raise MetierError(f"--new-key: {role!r} is no role", f"write {name}, or {name}=admin")
    print(new_key(keys, name, "admin" if role else "user"))
    say(f"keep it: {keys} has its hash alone")


def _answering(runs: Sequence[Path]) -> list[Run]:
    """Whatever is named. Raises `MetierError` where nothing is, or it does not answer."""
    from metier.run import Run, list_runs

    if runs:
        return [Run.open(each).answering() for each in runs]
    known, _ = list_runs(Path("runs"))
    tuned = [run.directory for run in known if run.status == "finished" and run.adapter.exists()]
    raise MetierError("nothing is served", f"name one or more runs: metier serve {tuned[0] if tuned else 'runs/…'}")


def _elsewhere(plan: list[str] | None) -> Elsewhere | None:
    """What opens runs on the engine that is named; None of metier's own. Raises `MetierError` for what is no choice."""
    chosen = overrides(plan)
    engine = chosen.pop("engine", "native")
    if chosen:
        raise MetierError(f"--plan {next(iter(chosen))}: is no choice of serving", f"the one is engine = {_ENGINES}")
    match engine:
        case "native":
            return None
        case "llamacpp":
            if find_spec("gguf") is None:
                raise MetierError("engine = llamacpp needs gguf", "pip install 'metier[gguf]'")
            from metier.inference.llamacpp import open_llamacpp

            return open_llamacpp
        case "vllm":
            from metier.inference.vllm import open_vllm

            return open_vllm
    raise MetierError(f"--plan engine={engine}: there is no such engine", f"choose {_ENGINES}")


def _add(voices: Voices, runs: Sequence[Run], elsewhere: Elsewhere | None) -> None:
    """Have runs answered by metier's own engine, or by another one."""
    if elsewhere is None:
        for run in runs:
            voices.add(run)
        return
    # What ends metier while the other engine starts ends that too; later the server sees to it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    voices.add_elsewhere({run.name: run for run in runs}, elsewhere)
    engines = {ground.engine for ground in voices.grounds}
    say(f"note  {' and '.join(engines)} answers: what is served is near what was measured, not equal to it")


def _opened(voices: Voices, safety: Safety, moods: Moods, routers: Path, *, offline: bool) -> tuple[Desk, Jobs]:
    """What answers, and what tunes, once it is learned what those know who are served."""
    from metier.web.desk import Desk
    from metier.web.jobs import Jobs
    from metier.web.lessons import Course, Lessons

    course = partial(Course.of, voices, safety, routers, offline=offline)
    lessons = Lessons(learn=lambda: course().learned_apart(), tell=say)
    desk = Desk(voices, lessons, _care(safety, moods))
    jobs = Jobs(Path.cwd() / "jobs", desk.add, offline=offline)
    lessons.begin(lambda: course().learned(Progress()))  # in this process, for nobody is answered yet
    return desk, jobs


def _care(safety: Safety, moods: Moods) -> Care:
    """Safety, mood and the database of tickets and feedback, beside where the server is started."""
    from metier.assistant.feedback import Feedback
    from metier.assistant.tickets import Tickets
    from metier.web.care import Care
    from metier.web.webhook import Webhook

    database = Path("assistant.db")
    webhook = Webhook(safety.rules.webhook) if safety.rules.webhook else None
    if webhook:
        say(f"new tickets are posted to {webhook.host}")
    tickets, feedback = Tickets(database, safety.masked), Feedback(database, safety.masked)
    return Care(safety, moods, tickets, feedback, webhook)


def _introduce(desk: Desk, safety: Safety) -> None:
    """Say what safety covers, and who is served."""
    domains = dict.fromkeys(domain for voice in desk.voices.all.values() for domain in voice.learned)
    medical, banking = (", ".join(filter(each, domains)) or "none" for each in (safety.is_medical, safety.is_banking))
    say(f"safety knows {', '.join(safety.languages)} alone: emergencies in other languages are not recognised")
    say(f"taken for medical: {medical}; for banking: {banking}; a --safety file tells others under [domains]")
    if strange := [name for name in safety.rules.domains if name not in domains]:
        say(f"warning: [domains] of your safety file names {', '.join(strange)}: no served run learned that")
    say(f"models: {', '.join(desk.names)}")
