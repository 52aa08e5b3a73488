"""A run opened to talk with: the tuned model and, on demand, the untuned base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from metier import hub
from metier.data.items import Message
from metier.data.rendering import Renderer
from metier.errors import RunError
from metier.inference.engine import Engine, Request
from metier.model.adapters import Identity, disabled
from metier.model.adapters import load as load_adapter
from metier.model.loading import NumberFormat, load
from metier.run import Run


class Conversation:
    """The engine that measured a run, ready for turns."""

    def __init__(self, run: Run, *, offline: bool = False) -> None:
        """Load base and adapter as they were measured. Raises `ModelError` where either has changed."""
        recipe, plan = run.recipe(), run.plan()
        source = hub.find(recipe.model, recipe.directory, offline=offline)
        template = run.adapter / "chat_template.jinja"
        self.renderer = Renderer.load(source.directory, template.read_text() if template.exists() else None)
        torch.set_num_threads(plan["threads"])
        number_format = NumberFormat(plan["storage"], plan["compute"])
        base = load(source.directory, number_format, plan["device"], multiple=plan["pad_to"])
        network = base.network
        if run.facts["method"] != "none":
            network = load_adapter(network, _adapter(run), _identity(recipe.model, source, self.renderer))
        self._forward = base.forward.over(network)
        self._engine = Engine(
            self._forward, boundary=base.boundary, tokens_per_batch=plan["tokens_per_batch"], sequences=1
        )
        self._context = recipe.train.max_length, recipe.eval.max_new_tokens
        self.systems = {domain.name: domain.system for domain in recipe.domain}

    def reply(self, messages: Sequence[Message], *, base: bool = False) -> Iterator[str]:
        """The answer piece by piece; with `base` the untuned model's."""
        request = Request(tuple(self.renderer.prompt_ids(messages)), self._context[1], self.renderer.stop_ids)
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


def _adapter(run: Run) -> Path:
    if not (run.adapter / "adapter_config.json").exists():
        raise RunError(f"{run.directory}: has no adapter ({run.status}); finish it with `metier train --resume`")
    return run.adapter


def _identity(name: str, source: hub.Source, renderer: Renderer) -> Identity:
    return Identity(name, source.weights_digest(), renderer.tokenizer_digest, renderer.template_digest)
