"""Runs opened side by side to be asked by many: those of one base share it, and an engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from metier.data.items import Item, Message
from metier.data.rendering import Renderer
from metier.data.showing import Front
from metier.errors import MetierError
from metier.events import Listener, silent
from metier.files import MANIFEST, file_digest
from metier.hardware import Yielding
from metier.inference.engine import Capacity
from metier.inference.loaded import open_run, warn_forgeable
from metier.inference.questions import Questions, Said, front_of
from metier.inference.worker import Worker
from metier.model.adapters import Identity
from metier.model.bank import BASE, Bank, bankable
from metier.run import Run

NATIVE = "native"

_CACHE = 0.3  # of the memory that is free once a base is loaded, for keys and values of what is being answered
_PATIENCE = 60.0  # seconds in which a run that is unloaded may finish what it says


@dataclass(frozen=True)
class Limits:
    """Of every engine: how many requests decode together and wait, and bytes of beginnings that are kept."""

    sequences: int = 64
    waiting: int = 256
    remember: int = 256 * 2**20
    tokens_per_batch: int = 512


class Closing(Protocol):
    """What ends another engine: it is asked to, and made to after so many seconds."""

    def __call__(self, patience: float = ...) -> None: ...


@dataclass(frozen=True)
class Ground:
    """A base that answers, by a recipe's name for it, which may be a path from `home`.

    `context` is the longest row in tokens. Whoever is answered at a time shares `positions` of keys and values, where
    metier's own engine answers. `bank` holds the adapters that share it; without one, a run has it alone, or another
    `engine` answers, which `close` ends.
    """

    model: str
    home: Path
    renderer: Renderer
    vocabulary: int
    context: int
    worker: Worker
    positions: int | None = None
    bank: Bank | None = None
    engine: str = NATIVE
    close: Closing = lambda patience=0.0: None

    @property
    def shared(self) -> bool:
        """Whether several runs stand on it, and the untuned base can be asked too."""
        return self.bank is not None or self.engine != NATIVE

    @property
    def longest(self) -> int:
        """Tokens to which a conversation may come with its answer: others find room beside it."""
        return self.context if self.positions is None else min(self.context, self.positions // 2)

    def stop(self, timeout: float) -> None:
        """Take nothing new, and end once all is answered, or after so many seconds."""
        self.worker.stop(timeout)
        self.close()


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
        return _digest(self.run) if self.run else ""

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
        conversation begins with another's, a system prompt or a greeting, all is taken as it is. Raises `MetierError`
        where nothing is asked or a column is missing.
        """
        *before, last = messages
        if last.role != "user":
            problem = f"messages: the last one is the {last.role}'s own"
            raise MetierError(problem, "end with a user's, which is what is answered")
        if not domain or messages[0].role != "user":
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


Elsewhere = Callable[[Mapping[str, Run], Limits, bool, Listener], Ground]
"""Runs of one base by name → what answers for them; told whether it may fetch, and who hears of it."""


class Voices:
    """Every run that is served, by name, and the bases that they stand on."""

    def __init__(self, limits: Limits | None = None, *, offline: bool = False, listen: Listener = silent) -> None:
        self._limits = limits or Limits()
        self._offline = offline
        self._listen = listen
        self._grounds: dict[tuple[Any, ...], Ground] = {}
        self._voices: dict[str, Voice] = {}
        self._changing = Lock()  # two runs of a new base open it once

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
        """Open a run; one that is served under this name already, wherever it lies, is what answers on.

        Raises `MetierError` where a name is another's or the run cannot be talked with, `ModelError` where base or
        adapter have changed; nothing of it stays open then.
        """
        name = name or run.name
        with self._changing:
            if (served := self._voices.get(name)) and _is_same(served, run):
                return served
            self._assert_free(run, name)
            stood = self.grounds
            ground, adapter = self._ground(run), BASE
            try:
                if ground.bank and run.facts["method"] != "none":
                    adapter = name
                    ground.worker.do(partial(ground.bank.add, name, run.adapter, _identity(run, ground))).result()
                return self._voice(run, name, ground, adapter)
            except BaseException:
                if ground.bank and adapter in ground.bank.names:
                    ground.worker.do(partial(ground.bank.remove, adapter)).result()
                if ground not in stood:
                    self._leave(ground)
                raise

    def add_elsewhere(self, runs: Mapping[str, Run], open_elsewhere: Elsewhere) -> None:
        """Open runs, by name, to be answered by another engine, which is started once for each base with all of its
        adapters. Raises as `add`, and where that engine cannot be started, or has no form for a run.
        """
        bases: dict[tuple[Any, ...], dict[str, Run]] = {}
        for name, run in runs.items():
            self._assert_free(run, name)
            bases.setdefault(_same_tokens(run), {})[name] = run
        for key, alike in bases.items():
            ground = self._grounds[key] = open_elsewhere(alike, self._limits, self._offline, self._listen)
            for name, run in alike.items():
                self._voice(run, name, ground, name if run.facts["method"] != "none" else BASE)

    def _assert_free(self, run: Run, name: str) -> None:
        if name in self._voices:
            raise MetierError(f"{name}: is served already", "give it another name, or unload that one first")
        run.answering()

    def _voice(self, run: Run, name: str, ground: Ground, adapter: str) -> Voice:
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
        with self._changing:
            self._forget(self._voices.pop(name))

    def _forget(self, voice: Voice) -> None:
        ground = voice.ground
        if ground.shared and voice.adapter != BASE:
            forget = partial(ground.bank.remove, voice.adapter) if ground.bank else lambda: None
            ground.worker.without(voice.adapter, forget).result()
        elif ground not in [each.ground for each in self._voices.values()]:
            self._leave(ground)

    def _leave(self, ground: Ground) -> None:
        """Stop a base on which no voice stands, and forget it."""
        ground.stop(_PATIENCE)
        self._grounds = {key: each for key, each in self._grounds.items() if each is not ground}

    def stop(self, timeout: float) -> None:
        """Take nothing new, and end once all is answered, or after so many seconds."""
        end = time.monotonic() + timeout
        for ground in self.grounds:
            ground.stop(max(0.0, end - time.monotonic()))

    def _ground(self, run: Run) -> Ground:
        """What it stands on: with others where its base is the same and its adapter adds up with theirs."""
        alone = run.facts["method"] != "none" and not bankable(run.adapter)
        key = (run.directory.resolve(),) if alone else _same_base(run)
        if key not in self._grounds:
            recipe = run.recipe()
            # OpenMP's threads spin between two products only where a process has no more of them than cores, so that
            # the engine's thread has to be the only one that keeps some: a thread that loads takes its own with it.
            with ThreadPoolExecutor(1, "loads") as loads:
                loaded = loads.submit(open_run, run, offline=self._offline, listen=self._listen, tuned=alone).result()
            warn_forgeable(recipe.model, loaded.renderer, self._listen)
            bank, limits = None if alone else Bank(loaded.forward.network), self._limits
            tokens = min(loaded.tokens_per_batch, limits.tokens_per_batch)
            positions = int(_CACHE * loaded.free) // loaded.position_bytes
            engine = loaded.engine(Capacity(tokens, limits.sequences, limits.remember, positions), bank)
            yielding = Yielding(run.plan()["threads"])
            worker = Worker(engine, sequences=limits.sequences, capacity=limits.waiting, before=yielding)
            context = min(loaded.context, positions)  # of a longer prompt there would be no room for what is read
            known = (loaded.renderer, loaded.vocabulary, context)
            self._grounds[key] = Ground(recipe.model, recipe.directory, *known, worker, positions, bank)
        return self._grounds[key]


def _identity(run: Run, ground: Ground) -> Identity:
    """Of a base as it was opened: its weights were found to be those that the run names."""
    renderer = ground.renderer
    return Identity(ground.model, run.facts["hashes"]["base"], renderer.tokenizer_digest, renderer.template_digest)


def _is_same(served: Voice, run: Run) -> bool:
    """Whether a run, which may have been trained twice, is the one that is served."""
    return served.run is not None and (served.run.facts["key"], served.digest) == (run.facts["key"], _digest(run))


def _digest(run: Run) -> str:
    manifest = run.adapter / MANIFEST
    return file_digest(manifest) if manifest.exists() else ""


def _same_tokens(run: Run) -> tuple[Any, ...]:
    """What runs have to share on any engine: their base's weights, and what it reads."""
    hashes = run.facts["hashes"]
    return tuple(hashes[each] for each in ("base", "tokenizer", "template"))


def _same_base(run: Run) -> tuple[Any, ...]:
    """What runs have to share to be answered by one network: besides, its numbers."""
    plan = run.plan()
    return *_same_tokens(run), run.facts["hashes"]["format"], *(plan[each] for each in ("device", "kernels", "pad_to"))
