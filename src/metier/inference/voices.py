"""Runs opened side by side to be asked by many: those of one base share it, and an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metier.data.items import Item, Message
from metier.data.rendering import Renderer
from metier.data.retrieval import read_shelves
from metier.data.shots import Shots
from metier.data.showing import Front
from metier.errors import MetierError
from metier.events import Event, Listener, silent
from metier.inference.engine import Engine
from metier.inference.loaded import Loaded, identity, open_run
from metier.inference.questions import Questions
from metier.inference.worker import Worker
from metier.model.adapters import HEAD
from metier.model.bank import BASE, Bank, bankable
from metier.run import Run
from metier.stages import find_base


@dataclass(frozen=True)
class Limits:
    """Of every engine: how many requests decode together and wait, and bytes of beginnings that are kept."""

    sequences: int = 64
    waiting: int = 256
    remember: int = 256 * 2**20
    tokens_per_batch: int = 512


@dataclass(frozen=True)
class Ground:
    """A base in memory with its engine; `bank` holds the adapters that share it, None where one run has it alone."""

    model: str
    loaded: Loaded
    engine: Engine
    worker: Worker
    bank: Bank | None

    @property
    def renderer(self) -> Renderer:
        return self.loaded.renderer


@dataclass(frozen=True)
class Voice:
    """What answers under a name: a run as it was measured, or the untuned base, which has no run."""

    name: str
    ground: Ground
    run: Run | None = None
    adapter: str = BASE
    questions: Questions = field(default_factory=lambda: Questions({}, {}))
    front: Front = field(default_factory=Front)
    max_new_tokens: int = 256

    def shown(self, asked: Item) -> Item:
        """With what its domain, or the only one, had in front when the run was measured."""
        return self.front.of(asked.domain or self.front.only, [asked], self.ground.renderer)[0]

    def item(self, messages: Sequence[Message], domain: str) -> Item: ...


class Voices:
    """Every run that is served, by name, and the bases that they stand on."""

    def __init__(self, limits: Limits | None = None, *, offline: bool = False, listen: Listener = silent) -> None:
        self._limits = limits or Limits()
        self._offline = offline
        self._listen = listen
        self._grounds: dict[tuple[Any, ...], Ground] = {}
        self._voices: dict[str, Voice] = {}

    def __getitem__(self, name: str) -> Voice:
        return self._voices[name]

    def __contains__(self, name: str) -> bool:
        return name in self._voices

    @property
    def all(self) -> Mapping[str, Voice]:
        return dict(self._voices)

    @property
    def grounds(self) -> tuple[Ground, ...]:
        return tuple(self._grounds.values())

    def add(self, run: Run, name: str = "") -> Voice:
        """Open a run, and its untuned base with the first one on it.

        Raises `MetierError` where a name is taken or the run cannot be talked with, `ModelError` where base or
        adapter have changed.
        """
        name = name or run.name
        if name in self._voices:
            raise MetierError(f"{name}: is served already", "give it another name, or unload that one first")
        if run.finished().why_shut:
            raise MetierError(f"{run.directory}: cannot be served: {run.why_shut}", "choose a run from `metier runs`")
        shared = self._may_share(run)
        ground = self._ground(run, shared=shared)
        adapter = BASE
        if shared and run.facts["method"] != "none":
            adapter = name
            recipe = run.recipe()
            source = find_base(recipe.model, recipe.directory, offline=self._offline)
            made_for = identity(recipe.model, source, ground.renderer)
            bank = ground.bank
            assert bank
            ground.worker.do(lambda: bank.add(adapter, run.adapter, made_for)).result()
        shots = {domain: Shots.of_json(value) for domain, value in run.shots().items()}
        voice = Voice(
            name=name,
            ground=ground,
            run=run,
            adapter=adapter,
            questions=Questions.of(run),
            front=Front(shots, read_shelves(run.passages()) if run.passages() else {}),
            max_new_tokens=run.recipe().eval.max_new_tokens,
        )
        self._voices[name] = voice
        return voice

    def remove(self, name: str) -> None:
        """Forget a run; whoever is being answered by it hears the end. Raises KeyError where there is none."""
        voice = self._voices.pop(name)
        ground, adapter = voice.ground, voice.adapter
        if ground.bank and adapter != BASE:
            ground.worker.do(lambda: ground.engine.forget(adapter)).result()
            ground.worker.do(lambda: ground.bank.remove(adapter)).result()
