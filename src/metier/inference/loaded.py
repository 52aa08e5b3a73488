"""A base, with its adapter where a run trained one, in memory as it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.data.classes import open_renderer
from metier.data.rendering import Renderer
from metier.errors import ModelError
from metier.events import Event, Listener, silent
from metier.hardware import padding, probe, settle
from metier.hub import Source
from metier.inference.engine import Capacity, Engine
from metier.model.adapters import Identity, foreign_why_rows, read_head
from metier.model.adapters import load as load_adapter
from metier.model.bank import Bank
from metier.model.forward import Forward
from metier.model.heads import open_base as with_head
from metier.model.heads import put
from metier.model.loading import Config, NumberFormat, context, load, read_config
from metier.model.outline import cache_width
from metier.model.packing import pack_weights
from metier.model.trials import why_rows
from metier.run import Run
from metier.stages import find_base

_TOKENS, _SEQUENCES = 2048, 64  # read and decoded at once, where no plan says otherwise


@dataclass(frozen=True)
class Loaded:
    """Whatever answers: the network, its tokens, and how much of them it reads at once.

    `context` is the longest row in tokens; `boundary` is where LongRoPE changes its factors.
    """

    forward: Forward
    renderer: Renderer
    boundary: int | None
    context: int
    tokens_per_batch: int
    sequences: int

    @property
    def vocabulary(self) -> int:
        """How many tokens it chooses among."""
        return int(self.forward.network.config.vocab_size)  # type: ignore[union-attr, arg-type]

    @property
    def position_bytes(self) -> int:
        """What the keys and values of one position take in all layers."""
        config: Config = self.forward.network.config  # type: ignore[assignment]
        return int(config.num_hidden_layers) * cache_width(config) * self.forward.network.dtype.itemsize  # type: ignore[operator, return-value]

    @property
    def free(self) -> int:
        """Memory that is free where it computes, in bytes."""
        return probe().room(self.forward.device.type)

    def engine(self, capacity: Capacity | None = None, bank: Bank | None = None) -> Engine:
        """With what the plan allows, or another capacity."""
        capacity = capacity or Capacity(self.tokens_per_batch, self.sequences)
        return Engine(self.forward, capacity, boundary=self.boundary, bank=bank)


def open_run(run: Run, *, offline: bool = False, listen: Listener = silent, tuned: bool = True) -> Loaded:
    """Base and adapter as they were measured, or the base alone; `listen` hears of a fetch.

    Raises `ModelError` where either has changed.
    """
    recipe, plan = run.finished().recipe(), run.plan()
    source = find_base(recipe.model, recipe.directory, offline=offline, listen=listen)
    trained = run.facts["method"] != "none"
    adapted = tuned and trained  # whose adapter names its base itself
    if not adapted and run.facts["hashes"]["base"] != source.weights_digest:
        again = "train again: metier train recipe.toml" if trained else "measure it again: metier eval recipe.toml"
        problem = f"{recipe.model}: is not the base any more that {run.directory} measured"
        raise ModelError(problem, f"restore it, or {again}")
    template = run.adapter / "chat_template.jinja"
    head = read_head(run.adapter)
    renderer = open_renderer(
        source.directory, template.read_text(encoding="utf-8") if template.exists() else None, head
    )
    settle(plan["threads"])
    number_format = NumberFormat(plan["storage"], plan["compute"])
    how: dict[str, Any] = {"multiple": plan["pad_to"], "reference": plan["kernels"] == "reference"}
    config = read_config(source.directory)
    if not (head and head.encoder):
        alone = why_rows(config, recipe.strategy, head)
        if run.facts["method"] == "adapter":
            alone = alone or foreign_why_rows(run.adapter)
        how["why_rows"] = alone
    devices = probe().devices
    device = plan["device"] if plan["device"] in devices else devices[0]
    base = with_head(source.directory, number_format, device, head, **how)
    network = put(base.network, head) if head else base.network
    if adapted:
        network = load_adapter(network, run.adapter, identity(recipe.model, source, renderer))
    if network is base.network and base.forward.forks:
        pack_weights(network)
    return Loaded(
        forward=base.forward.over(network),
        renderer=renderer,
        boundary=base.boundary,
        context=context(config),
        tokens_per_batch=plan["tokens_per_batch"],
        sequences=plan["sequences"],
    )


def warn_forgeable(model: str, renderer: Renderer, listen: Listener) -> None:
    """Say so where whoever asks can type what marks a turn; `listen` hears a note."""
    if marks := renderer.forgeable:
        told = " and ".join(map(repr, marks))
        text = f"warning: {model} marks turns by plain text ({told}): whoever types that can forge one"
        listen(Event("note", values={"text": text}))


def open_base(name: str, number_format: NumberFormat, device: str, *, offline: bool = False) -> Loaded:
    """A base by itself: embedded, a directory, or a hub name. Raises `ModelError` where it cannot be loaded."""
    source = find_base(name, Path.cwd(), offline=offline)
    base = load(source.directory, number_format, device, multiple=padding(device, number_format.compute)[0])
    return Loaded(
        forward=base.forward,
        renderer=Renderer.load(source.directory),
        boundary=base.boundary,
        context=context(read_config(source.directory)),
        tokens_per_batch=_TOKENS,
        sequences=_SEQUENCES,
    )


def identity(name: str, source: Source, renderer: Renderer) -> Identity:
    """What an adapter on this base has to have been made for."""
    return Identity(name, source.weights_digest, renderer.tokenizer_digest, renderer.template_digest)
