"""`metier chat`: talk to a run in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.common import Offline, Progress, say
from metier.errors import MetierError
from metier.evaluation.answers import GENERAL
from metier.run import Run

if TYPE_CHECKING:
    from metier.data.items import Item, Message
    from metier.inference.conversation import Conversation
    from metier.inference.questions import Questions, Said

_HELP = "/base: the untuned model answers the same   /reset: a new conversation   /quit: end"


def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run")],
    domain: Annotated[str | None, typer.Option(help="in whose way to ask")] = None,
    offline: Offline = False,
) -> None:
    """Talk to a tuned model; /base asks the untuned one the same.

    What is typed fills the domain's template, as a row of its data did. Labels are told with their probabilities.
    """
    from metier.inference.conversation import Conversation
    from metier.inference.questions import Questions

    opened = Run.open(run).finished()
    questions = Questions.of(opened)
    chosen = questions.chosen(domain)
    conversation = Conversation(opened, offline=offline, on_event=Progress())
    say(_introduced(opened, questions, chosen))
    _Talk(conversation, chosen).go_on()


def _introduced(run: Run, questions: Questions, domain: str) -> str:
    """Who answers, what it was made for, and what is typed, for example."""
    asked = (each for each in run.answers() if each["kind"] not in GENERAL and domain in ("", each["domain"]))
    examples = (questions.example(each["domain"], each["prompt"]) for each in asked if each["prompt"])
    example = next((f"; its data asks, for example: {each}" for each in examples), "")
    return f"{run.name} on {run.facts['model']}, for {domain or ', '.join(questions.domains)}{example}"


@dataclass
class _Talk:
    """What was asked last, and what was said before the next question."""

    conversation: Conversation
    domain: str
    last: Item | None = None
    history: list[Message] = field(default_factory=list)

    def go_on(self) -> None:
        """Until the end of input or /quit."""
        say(_HELP)
        while (line := _read(f"{self._columns[0]}: " if self._columns else "> ")) is not None:
            match line.strip():
                case "" if not self._columns:
                    continue
                case "/quit" | "/exit":
                    return
                case "/reset":
                    self.last, self.history = None, []
                    say("a new conversation")
                case "/base":
                    self._ask_base()
                case text if text.startswith("/"):
                    say(f"{text}: is no command\n{_HELP}")
                case text if said := self._said(text):
                    self._ask(said)

    @property
    def _columns(self) -> tuple[str, ...]:
        """Those to ask for, one after the other, where the next question is made of several."""
        columns = tuple(self.conversation.questions.columns.get(self.domain, ()))
        return columns if len(columns) > 1 and not self.history else ()

    def _said(self, first: str) -> Said:
        """What was typed; nothing where somebody leaves between two columns."""
        if not self._columns:
            return first
        cells = {self._columns[0]: first}
        for name in self._columns[1:]:
            if (line := _read(f"{name}: ")) is None:
                return ""
            cells[name] = line
        return cells

    def _ask(self, said: Said) -> None:
        from metier.data.items import Message

        questions = self.conversation.questions
        try:
            item = questions.item(said, self.domain, self.history)
        except MetierError as error:
            say(f"{error}; {error.hint}")
            return
        self.last = item
        answer = self._stream(item, base=False)
        if answer and not questions.closed(self.domain):
            self.history = [*item.messages, Message("assistant", answer)]

    def _ask_base(self) -> None:
        """Ask the untuned model what was asked last; its answer stays out of the conversation."""
        if self.last is None:
            say("ask something first")
            return
        say("untuned base:")
        self._stream(self.last, base=True)

    def _stream(self, item: Item, *, base: bool) -> str:
        said = ""
        try:
            for piece in self.conversation.reply(item, base=base):
                said += piece
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            say(" (cut)")
        except MetierError as error:
            say(f"{error}; {error.hint}")
        print("\n", flush=True)
        return said


def _read(prompt: str) -> str | None:
    try:
        line = input(prompt if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
    # Bytes that are no UTF-8 come as lone surrogates, which no tokenizer takes.
    return line.encode(errors="surrogateescape").decode(errors="replace")
