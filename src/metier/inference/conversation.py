"""A run opened to talk with: the tuned model and, on demand, the untuned base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch

from metier import hub
from metier.data.items import Message
from metier.data.rendering import Renderer
from metier.data.shots import Shots
from metier.data.templates import shared_system
from metier.errors import MetierError, ModelError
from metier.events import Listener, silent
from metier.inference.engine import Engine, Request
from metier.model.adapters import Identity, disabled
from metier.model.adapters import load as load_adapter
from metier.model.loading import NumberFormat, context, load, read_config
from metier.run import Run


class Conversation:
    """The engine that measured a run, ready for turns."""

    def __init__(self, run: Run, *, offline: bool = False, on_event: Listener = silent) -> None:
        """Load base and adapter as they were measured. Raises `ModelError` where either has changed."""
        recipe, plan = run.finished().recipe(), run.plan()
        source = hub.find(recipe.model, recipe.directory, offline=offline, listen=on_event)
        template = run.adapter / "chat_template.jinja"
        self.renderer = Renderer.load(source.directory, template.read_text() if template.exists() else None)
        torch.set_num_threads(plan["threads"])
        number_format = NumberFormat(plan["storage"], plan["compute"])
        how = {"multiple": plan["pad_to"], "reference": plan["kernels"] == "reference"}
        base = load(source.directory, number_format, plan["device"], **how)
        network = base.network
        if run.facts["method"] == "none" and run.facts["hashes"]["base"] != source.weights_digest:
            hint = "restore it, or measure it again: metier eval recipe.toml"
            raise ModelError(f"{recipe.model}: is not the base any more that {run.directory} measured", hint)
        if run.facts["method"] != "none":
            network = load_adapter(network, run.adapter, _identity(recipe.model, source, self.renderer))
        self._forward = base.forward.over(network)
        self._engine = Engine(
            self._forward, boundary=base.boundary, tokens_per_batch=plan["tokens_per_batch"], sequences=1
        )
        self._room, self._max_new_tokens = context(read_config(source.directory)), recipe.eval.max_new_tokens
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


def _identity(name: str, source: hub.Source, renderer: Renderer) -> Identity:
    return Identity(name, source.weights_digest, renderer.tokenizer_digest, renderer.template_digest)
