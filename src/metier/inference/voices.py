"""Runs opened side by side to be asked by many: those of one base share it, and an engine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from metier.data.items import Item, Message
from metier.data.rendering import Renderer
from metier.data.showing import Front
from metier.errors import MetierError
from metier.events import Listener, silent
from metier.files import MANIFEST, file_digest
from metier.inference.engine import Capacity, Engine
from metier.inference.loaded import Loaded, identity, open_run, warn_forgeable
from metier.inference.questions import Questions, Said, front_of
from metier.inference.worker import Worker
from metier.model.adapters import Identity
from metier.model.bank import BASE, Bank, bankable
from metier.run import Run
from metier.stages import find_base

_CACHE = 0.3  # of the memory that is free once a base is loaded, for keys and values of what is being answered
_PATIENCE = 60.0  # seconds in which a run that is unloaded may finish what it says


@dataclass(frozen=True)
class Limits:
    """Of every engine: how many requests decode together and wait, and bytes of beginnings that are kept."""

    sequences: int = 64
    waiting: int = 256
    remember: int = 256 * 2**20
    tokens_per_batch: int = 512


@dataclass(frozen=True)
class Ground:
    """A base in memory with its engine, by a recipe's name for it, which may be a path from `home`.

    `bank` holds the adapters that share it, None where one run has it alone.
    """

    model: str
    home: Path
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

    @property
    def digest(self) -> str:
        """Of the adapter, by its manifest; "" of a base."""
        manifest = self.run.adapter / MANIFEST if self.run else None
        return file_digest(manifest) if manifest and manifest.exists() else ""

    @property
    def learned(self) -> tuple[str, ...]:
        """The domains that it was tuned on, or is asked in where nothing was tuned."""
        return tuple(name for name, domain in self.questions.domains.items() if domain.trained)

    def shown(self, asked: Item) -> Item:
        """With what its domain, or the only one, had in front when the run was measured."""
        return self.front.of(asked.domain or self.front.only, [asked], self.ground.renderer)[0]

    def item(self, messages: Sequence[Message], domain: str = "") -> Item:
        """A conversation that ends in a question as the item that a held-out row would be, in one of its domains.

        The first turn fills the domain's template, a JSON object where that has several columns; where the
        conversation brings a system prompt of its own, all is taken as it is. Raises `MetierError` where nothing is
        asked or a column is missing.
        """
        *before, last = messages
        if not domain or messages[0].role == "system":
            return self.questions.as_they_are(messages, domain)
        if not before or self.questions.closed(domain):
            return self.questions.item(self._said(last, domain), domain)
        first = self.questions.item(self._said(messages[0], domain), domain)
        return self.questions.item(last.content, domain, [*first.messages, *before[1:]])

    def _said(self, message: Message, domain: str) -> Said:
        if len(self.questions.columns.get(domain, ())) < 2:
            return message.content
        try:
            cells = json.loads(message.content)
        except ValueError:
            return message.content  # and what is asked for is told
        return cells if isinstance(cells, dict) else message.content


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
        """Open a run.

        Raises `MetierError` where a name is taken or the run cannot be talked with, `ModelError` where base or
        adapter have changed.
        """
        name = name or run.name
        if name in self._voices:
            raise MetierError(f"{name}: is served already", "give it another name, or unload that one first")
        if run.finished().why_shut:
            raise MetierError(f"{run.directory}: cannot be served: {run.why_shut}", "choose a run from `metier runs`")
        ground, adapter = self._ground(run), BASE
        if ground.bank and run.facts["method"] != "none":
            adapter = name
            ground.worker.do(partial(ground.bank.add, name, run.adapter, self._identity(run, ground))).result()
        voice = Voice(
            name=name,
            ground=ground,
            run=run,
            adapter=adapter,
            questions=Questions.of(run),
            front=front_of(run),
            max_new_tokens=run.recipe().eval.max_new_tokens,
        )
        self._voices[name] = voice
        return voice

    def remove(self, name: str) -> None:
        """Forget a run; whoever it answers hears the end first. Raises KeyError where there is none."""
        voice = self._voices.pop(name)
        ground = voice.ground
        if ground.bank and voice.adapter != BASE:
            ground.worker.without(voice.adapter, partial(ground.bank.remove, voice.adapter)).result()
        elif ground not in [each.ground for each in self._voices.values()]:
            ground.worker.stop(_PATIENCE)
            self._grounds = {key: each for key, each in self._grounds.items() if each is not ground}

    def stop(self, timeout: float) -> None:
        """Take nothing new, and end once all is answered, or after so many seconds."""
        end = time.monotonic() + timeout
        for ground in self.grounds:
            ground.worker.stop(max(0.0, end - time.monotonic()))

    def _ground(self, run: Run) -> Ground:
        """What it stands on: with others where its base is the same and its adapter adds up with theirs."""
        alone = run.facts["method"] != "none" and not bankable(run.adapter)
        key = (run.directory.resolve(),) if alone else _same_base(run)
        if key not in self._grounds:
            recipe = run.recipe()
            loaded = open_run(run, offline=self._offline, listen=self._listen, tuned=alone)
            warn_forgeable(recipe.model, loaded.renderer, self._listen)
            bank, limits = None if alone else Bank(loaded.forward.network), self._limits
            tokens = min(loaded.tokens_per_batch, limits.tokens_per_batch)
            positions = int(_CACHE * loaded.free) // loaded.position_bytes
            engine = loaded.engine(Capacity(tokens, limits.sequences, limits.remember, positions), bank)
            worker = Worker(engine, sequences=limits.sequences, capacity=limits.waiting)
            self._grounds[key] = Ground(recipe.model, recipe.directory, loaded, engine, worker, bank)
        return self._grounds[key]

    def _identity(self, run: Run, ground: Ground) -> Identity:
        recipe = run.recipe()
        source = find_base(recipe.model, recipe.directory, offline=self._offline, listen=self._listen)
        return identity(recipe.model, source, ground.renderer)


def _same_base(run: Run) -> tuple[Any, ...]:
    """What runs have to share to be answered by one network: its weights, its tokens and its numbers."""
    hashes, plan = run.facts["hashes"], run.plan()
    whose = (hashes[each] for each in ("base", "tokenizer", "template", "format"))
    return *whose, *(plan[each] for each in ("device", "kernels", "pad_to"))
