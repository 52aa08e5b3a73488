"""A run opened to talk with: the tuned model and, on demand, the untuned base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from metier.data.items import Message
from metier.data.shots import Shots
from metier.data.templates import shared_system
from metier.errors import MetierError
from metier.events import Listener, silent
from metier.inference.engine import Request
from metier.inference.loaded import open_run
from metier.model.adapters import disabled
from metier.run import Run


class Conversation:
    """The engine that measured a run, ready for turns."""

    def __init__(self, run: Run, *, offline: bool = False, on_event: Listener = silent) -> None:
        """Load base and adapter as they were measured. Raises `ModelError` where either has changed."""
        recipe, loaded = run.finished().recipe(), open_run(run, offline=offline, listen=on_event)
        self.renderer = loaded.renderer
        self._forward = loaded.forward
        self._engine = loaded.engine(sequences=1)
        self._room, self._max_new_tokens = loaded.context, recipe.eval.max_new_tokens
        self._shots = {domain: Shots.of_json(value) for domain, value in run.shots().items()}
        self.systems = {domain.name: shared_system(domain) for domain in recipe.domain}

    def reply(self, messages: Sequence[Message], *, base: bool = False, domain: str | None = None) -> Iterator[str]:
        """The answer piece by piece; with `base` the untuned model's.

        The examples of `domain`, or of the only one, stand in front as they did when the run was measured.
        Raises `MetierError` where the conversation fills the model's context.
        """
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

    def prompt_ids(self, messages: Sequence[Message], domain: str | None = None) -> list[int]:
        """The ids behind which the answer is generated: those on which the run was measured."""
        only = next(iter(self._shots)) if len(self._shots) == 1 else ""
        shots = self._shots.get(domain or only)
        return self.renderer.prompt_ids(shots.asked(messages, self.renderer) if shots else messages)
