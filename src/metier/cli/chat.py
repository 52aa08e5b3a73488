"""`metier chat`: talk to a run in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import Offline, Progress, say
from metier.errors import MetierError
from metier.run import Run

if TYPE_CHECKING:
    from metier.data.items import Message
    from metier.inference.conversation import Conversation

_HELP = "/base: the untuned model answers the same   /reset: a new conversation   /quit: end"


def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run")],
    domain: Annotated[str | None, typer.Option(help="whose system prompt to use")] = None,
    offline: Offline = False,
) -> None:
    """Talk to a tuned model; /base asks the untuned one the same."""
    from metier.inference.conversation import Conversation

    opened = Run.open(run)
    conversation = Conversation(opened, offline=offline, on_event=Progress())
    say(_introduced(opened, conversation, domain))
    _talk(conversation, domain)


def _introduced(run: Run, conversation: Conversation, domain: str | None) -> str:
    """Who answers, what it was made for, and how its data asks."""
    from metier.data.mappings import short

    asked = (each for each in run.answers() if each["kind"] != "text" and domain in (None, each["domain"]))
    example = next((f"; its data asks, for example: {short(each['prompt'])}" for each in asked if each["prompt"]), "")
    return f"{run.name} on {run.facts['model']}, for {domain or ', '.join(conversation.systems)}{example}"


def _talk(conversation: Conversation, domain: str | None) -> None:
    from metier.data.items import Message

    begin = conversation.beginning(domain)
    history: list[Message] = list(begin)
    say(_HELP)
    while (line := _read()) is not None:
        match line.strip():
            case "":
                continue
            case "/quit" | "/exit":
                return
            case "/reset":
                history = list(begin)
                say("a new conversation")
            case "/base":
                _base(conversation, history, domain)
            case text if text.startswith("/"):
                say(f"{text}: is no command\n{_HELP}")
            case text:
                asked = [*history, Message("user", text)]
                if said := _stream(conversation, asked, domain, base=False):
                    history = [*asked, Message("assistant", said)]


def _base(conversation: Conversation, history: list[Message], domain: str | None) -> None:
    """Ask the untuned model what was asked last; its answer stays out of the conversation."""
    if not history or history[-1].role != "assistant":
        say("ask something first")
        return
    say("untuned base:")
    _stream(conversation, history[:-1], domain, base=True)


def _stream(conversation: Conversation, messages: list[Message], domain: str | None, *, base: bool) -> str:
    said = ""
    try:
        for piece in conversation.reply(messages, base=base, domain=domain):
            said += piece
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        say(" (cut)")
    except MetierError as error:
        say(f"{error}; {error.hint}")
    print("\n", flush=True)
    return said


def _read() -> str | None:
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
    # Bytes that are no UTF-8 come as lone surrogates, which no tokenizer takes.
    return line.encode(errors="surrogateescape").decode(errors="replace")
