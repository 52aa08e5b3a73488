"""A run opened to talk with: the tuned model and, on demand, the untuned base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

from metier.data.classes import HeadRenderer
from metier.data.items import Item, Message
from metier.data.shots import Shots
from metier.data.templates import shared_system
from metier.errors import MetierError
from metier.events import Listener, silent
from metier.inference.engine import Request
from metier.inference.loaded import open_run
from metier.model.adapters import disabled
from metier.run import Run


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Shares of 1: the domain's labels among themselves."""
    highest = max(logprobs)
    sizes = [math.exp(each - highest) for each in logprobs]
    return [each / sum(sizes) for each in sizes]


class Conversation:
    """The engine that measured a run, ready for turns."""

    def __init__(self, run: Run, *, offline: bool = False, on_event: Listener = silent) -> None:
        """Load base and adapter as they were measured. Raises `ModelError` where either has changed."""
        if run.facts["method"] == "classical":
            raise MetierError(f"{run.directory}: the classical baseline cannot chat", "choose a run from `metier runs`")
        recipe, loaded = run.finished().recipe(), open_run(run, offline=offline, listen=on_event)
        self.renderer = loaded.renderer
        self._forward = loaded.forward
        self._engine = loaded.engine(sequences=1)
        self._room, self._max_new_tokens = loaded.context, recipe.eval.max_new_tokens
        self._shots = {domain: Shots.of_json(value) for domain, value in run.shots().items()}
        self.systems = {domain.name: shared_system(domain) for domain in recipe.domain}

    def beginning(self, domain: str | None = None) -> list[Message]:
        """The system prompt of `domain`, or that of all domains if they share one; else nothing.

        Raises `MetierError` for a domain that the run does not have.
        """
        if domain is not None and domain not in self.systems:
            raise MetierError(f"domain {domain}: the run has no such one", f"choose from {', '.join(self.systems)}")
        shared = set(self.systems.values())
        system = self.systems[domain] if domain is not None else shared.pop() if len(shared) == 1 else None
        return [Message("system", system)] if system else []

    def reply(self, messages: Sequence[Message], *, base: bool = False, domain: str | None = None) -> Iterator[str]:
        """The answer piece by piece; with `base` the untuned model's.

        The examples of `domain`, or of the only one, stand in front as they did when the run was measured.
        Raises `MetierError` where the conversation fills the model's context.
        """
        if isinstance(self.renderer, HeadRenderer):
            yield self._classified(self.renderer, messages, base, domain)
            return
        prompt = tuple(self.prompt_ids(messages, domain))
        if (room := self._room - len(prompt)) < 1:
            problem = f"the conversation has {len(prompt)} tokens; the model reads {self._room}"
            raise MetierError(problem, "begin a new conversation with /reset, or ask more shortly")
        request = Request(prompt, min(self._max_new_tokens, room), self.renderer.stop_ids)
        handle, tokens, said = self._engine.submit(request), list[int](), ""
        try:
            finish = ""
            while not finish:
                with disabled(self._forward.network) if base else nullcontext():
                    deltas = self._engine.step()
                for delta in deltas:
                    finish = delta.finish
                    if delta.token is not None:
                        tokens.append(delta.token)
                text = self.renderer.decode(tokens)
                # A character of several tokens is held back until it is whole.
                if text.startswith(said) and not text.endswith("\ufffd"):
                    yield text[len(said) :]
                    said = text
        finally:
            self._engine.cancel(handle)

    def _classified(self, renderer: HeadRenderer, messages: Sequence[Message], base: bool, domain: str | None) -> str:
        """The labels of what was said last, likeliest first, with their probabilities."""
        labels = renderer.head.labels
        name = domain or next(iter(labels))
        if base:
            raise MetierError("the untuned base has no head", "ask a run of another objective")
        if domain is None and len(labels) > 1:
            raise MetierError("the head has outputs for several domains", f"choose one: --domain {' | '.join(labels)}")
        asked = (*(each for each in messages[:-1] if each.role == "system"), messages[-1])
        rows = renderer.label_rows(Item("", name, "", "", 0, asked, labels[name], kind="label"))
        if (length := len(rows[0].tokens) - 1) > self._room:
            raise MetierError(f"that has {length} tokens; the model reads {self._room}", "ask more shortly")
        values = softmax(self._engine.score(rows))
        ranked = sorted(zip(values, labels[name], strict=True), reverse=True)
        return ", ".join(f"{label} {value:.2f}" for value, label in ranked)

    def prompt_ids(self, messages: Sequence[Message], domain: str | None = None) -> list[int]:
        """The ids behind which the answer is generated: those on which the run was measured."""
        only = next(iter(self._shots)) if len(self._shots) == 1 else ""
        shots = self._shots.get(domain or only)
        return self.renderer.prompt_ids(shots.asked(messages, self.renderer) if shots else messages)


def chat(run: Run, text: str, *, domain: str | None = None, base: bool = False, offline: bool = False) -> str:
    """The answer of a run, or with `base` of its untuned base, to a conversation's first turn.

    `domain` names whose system prompt and examples stand in front. The model that answered last stays in memory.
    Raises `MetierError` where the run cannot chat or has no such domain, `ModelError` where its base has changed.
    """
    conversation = _opened(run.directory.resolve(), offline)
    asked = [*conversation.beginning(domain), Message("user", text)]
    return "".join(conversation.reply(asked, base=base, domain=domain))


@lru_cache(maxsize=1)
def _opened(directory: Path, offline: bool) -> Conversation:
    return Conversation(Run(directory), offline=offline)
