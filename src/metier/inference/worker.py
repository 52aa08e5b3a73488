"""An engine on a thread of its own: whoever asks hears of every token as it comes, in a queue fair between tenants."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from traceback import format_tb
from typing import Any, Protocol

import numpy as np

from metier.errors import MetierError
from metier.inference.engine import Delta, Request
from metier.inference.fair import Fair
from metier.inference.logprobs import Read
from metier.inference.rows import Reading, Result, Scoring, fail, fulfil, together
from metier.trees import Example, Ints

_AHEAD = 16  # requests that an engine is given before it has room: the others wait where tenants take turns
_SOON, _MOMENT = 0.002, 0.008  # seconds within which the next one comes of those sent at the same moment, and all do
_LAST = 10.0  # seconds that a step may take which is not waited for any more
_BROKEN = 8  # steps in a row that fail: nobody is going to be answered any more

_log = logging.getLogger("metier")

Heard = Callable[[Delta | Exception], None]
"""Called with every token, or with what became of the request instead, on any thread; must not wait."""


class FullError(MetierError):
    """As many wait as may."""


class StoppedError(MetierError):
    """Nothing is answered any more."""


@dataclass(frozen=True)
class Failed:
    """What became of one request where an engine could not answer it."""

    handle: int
    error: Exception


class Answering(Protocol):
    """What a worker drives: metier's own engine, or another's that answers elsewhere."""

    def submit(self, request: Request) -> int: ...
    def cancel(self, handle: int) -> None: ...
    def clear(self) -> None: ...
    def forget(self, adapter: str) -> None: ...
    def step(self) -> Sequence[Delta | Failed]: ...
    @property
    def queued(self) -> int:
        """How many were submitted and are not begun."""
        ...

    def score(self, rows: Sequence[Example], adapter: str = "") -> list[float]: ...
    def read(self, rows: Sequence[Sequence[int]], top: int, adapter: str = "", begin: int = 0) -> list[list[Read]]: ...


@dataclass
class Ticket:
    """A request's place; `handle` is the engine's, 0 as long as it waits."""

    request: Request
    heard: Heard
    handle: int = 0

    def fail(self, error: Exception) -> None:
        self.heard(error)


class Worker:
    """At most `capacity` requests wait; they are admitted in turn, one of each tenant's.

    Where as many wait, the newest of whoever has the most gives way to a tenant that has at least two fewer.
    Between two steps rows of one tenant are scored or read, and other work is done.
    """

    def __init__(
        self, engine: Answering, *, sequences: int, capacity: int, before: Callable[[], None] = lambda: None
    ) -> None:
        """`before` is called on its thread before each piece of the engine's work."""
        self._engine = engine
        self._before = before
        self._sequences = sequences
        self.capacity = capacity
        self._waiting = Fair[Ticket]()
        self._rows = Fair[Scoring | Reading]()
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._speaking: dict[int, Ticket] = {}
        self._news = threading.Condition()
        self._done = np.zeros(3, dtype=int)
        self._broken = 0
        self._draining = self._ended = self._cut = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ask(self, request: Request, heard: Heard) -> Ticket:
        """Queue a request. Raises `FullError` where as many wait as may, `StoppedError` once it drains.

        It may hear `FullError` later, where it gives way to another tenant's.
        """
        ticket = Ticket(request, heard)
        self._queue(self._waiting, request.tenant, ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody listens any more: its place is free at the next token. Harmless where it has ended."""
        with self._news:
            queue = self._waiting.get(ticket.request.tenant, deque())
            if ticket in queue:
                queue.remove(ticket)
            self._work.append((lambda: self._drop(ticket), Future()))
            self._news.notify()

    def score(self, rows: Sequence[Example], adapter: str = "", tenant: str = "") -> Future[list[float]]:
        """The weighted log-probability of each row. Raises as `ask`."""
        asked = Scoring(rows, adapter)
        self._queue(self._rows, tenant, asked)
        return asked.result

    def read(
        self, rows: Sequence[Sequence[int]], top: int, adapter: str = "", tenant: str = "", begin: int = 0
    ) -> Future[list[list[Read]]]:
        """Each row's tokens from `begin` on with their log-probabilities, and those of the `top` likeliest there.

        Raises as `ask`.
        """
        asked = Reading(rows, top, adapter, begin, tenant)
        self._queue(self._rows, tenant, asked)
        return asked.result

    def do(self, work: Callable[[], Result]) -> Future[Result]:
        """Something on the engine's thread, between two steps. Raises `StoppedError` once that has ended."""
        done: Future[Result] = Future()
        with self._news:
            if self._ended:
                raise self._stopped()
            self._work.append((work, done))
            self._news.notify()
        return done

    def without(self, adapter: str, work: Callable[[], Result]) -> Future[Result]:
        """`work` that takes an adapter away: whoever still goes through it hears so first."""

        def gone() -> Result:
            for ticket in self._leaving(adapter):
                self._drop(ticket)
                ticket.heard(StoppedError(f"{adapter}: was unloaded", "choose another model"))
            self._engine.forget(adapter)
            return work()

        return self.do(gone)

    @property
    def load(self) -> tuple[int, int]:
        """How many requests decode, and how many wait."""
        waiting = sum(map(len, self._waiting.values())) + sum(map(len, self._rows.values()))
        return len(self._speaking), waiting

    @property
    def alive(self) -> bool:
        """Whether somebody answers, the latest steps not all in vain, or has been told to stop."""
        return (self._thread.is_alive() and self._broken < _BROKEN) or self._draining

    @property
    def done(self) -> Ints:
        """How many steps said something since it began, to how many requests each, and how many tokens, summed up."""
        return self._done.copy()

    def stop(self, timeout: float) -> None:
        """Take nothing new, and end once all is answered; after so many seconds with the step that is being made.

        A thread that still computes when Python ends aborts the process.
        """
        with self._news:
            self._draining = True
            self._news.notify()
        self._thread.join(timeout)
        self._cut = True
        self._thread.join(_LAST)

    def _queue(self, queue: Fair[Any], tenant: str, asked: Ticket | Scoring | Reading) -> None:
        with self._news:
            self._make_room(tenant)
            queue.put(tenant, asked)
            self._news.notify()

    def _make_room(self, tenant: str) -> None:
        """For one more of a tenant's."""
        if self._draining or self._ended:
            raise self._stopped()
        if self.load[1] < self.capacity:
            return
        full = FullError(f"{self.capacity} requests wait already", "ask again in a moment")
        queues: tuple[Fair[Any], ...] = (self._waiting, self._rows)
        waiting = Counter[str]()
        for each in queues:
            waiting.update({name: len(queue) for name, queue in each.items()})
        greediest, most = waiting.most_common(1)[0]
        if waiting[tenant] + 1 >= most:
            raise full
        max((each.get(greediest, deque()) for each in queues), key=len).pop().fail(full)

    def _stopped(self) -> StoppedError:
        if self._draining:
            return StoppedError("the server is being stopped", "ask again in a moment")
        return StoppedError("the engine has ended", "restart the server; its log says more")

    def _run(self) -> None:
        try:
            while not (self._ended or self._cut):
                self._turn()
            self._give_up(self._stopped())
        except Exception as error:  # nobody may wait for a thread that is no more
            where = "".join(format_tb(error.__traceback__))  # not its text, in which may stand what somebody asked
            _log.error("the engine has ended: %s\n%s", type(error).__name__, where)
            self._give_up(error)

    def _turn(self) -> None:
        with self._news:
            if not self._called:
                self._news.wait_for(lambda: self._called)
                self._gather()
            self._ended = self._draining and not (self._work or self._pending)
            work = [*self._work]
            self._work.clear()
        if self._ended:
            return
        for each, done in work:
            fulfil(done, each)
        self._before()
        self._look()
        self._step()

    def _gather(self) -> None:
        """Those who come at the same moment as the first one: one by one they take half as long again."""
        end, before = time.monotonic() + _MOMENT, 0
        while before < (waiting := self.load[1]) < min(_AHEAD, self._sequences) and time.monotonic() < end:
            self._news.wait(_SOON)
            before = waiting

    def _give_up(self, error: Exception) -> None:
        """Tell all who wait and all who are being answered."""
        with self._news:
            self._ended = True
            told: list[Ticket | Scoring | Reading] = [*self._speaking.values()]
            told += [*chain(*self._waiting.values()), *chain(*self._rows.values())]
            work = [done for _, done in self._work]
            for each in (self._speaking, self._waiting, self._rows, self._work):
                each.clear()
        for done in work:
            fail(done, error)
        for asked in told:
            with suppress(Exception):  # who hears it may be what broke
                asked.fail(error)

    @property
    def _called(self) -> bool:
        """Whether there is something to do, or to end."""
        return bool(self._draining or self._work) or self._pending

    @property
    def _pending(self) -> bool:
        return bool(self._speaking) or any(self._waiting.values()) or any(self._rows.values())

    def _look(self) -> None:
        """Score or read the rows whose turn it is."""
        with self._news:
            asked = self._rows.take(together)
        for each in asked:
            if isinstance(each, Reading):
                self._read(each)
        if scored := [each for each in asked if isinstance(each, Scoring)]:
            self._score(scored)

    def _read(self, asked: Reading) -> None:
        """As many rows as may be between two steps; the others are the next of their tenant's."""
        if asked.result.cancelled():
            return
        try:
            asked.found += self._engine.read(asked.next_rows, asked.top, asked.adapter, asked.begin)
        except Exception as error:  # whoever waits must hear of it, and the thread serves the others
            asked.fail(error)
            return
        if len(asked.found) == len(asked.rows):
            fulfil(asked.result, lambda: asked.found)
            return
        with self._news:
            self._rows.put_back(asked.tenant, asked)

    def _score(self, asked: Sequence[Scoring]) -> None:
        rows = [row for each in asked for row in each.rows]
        found: Future[list[float]] = Future()
        fulfil(found, lambda: self._engine.score(rows, asked[0].adapter))
        begun = 0
        for each in asked:
            end = begun + len(each.rows)
            fulfil(each.result, lambda begun=begun, end=end: found.result()[begun:end])  # type: ignore[misc]
            begun = end

    def _step(self) -> None:
        """One step of the engine; what breaks it is told to all who are in it, and it goes on with those who wait."""
        with self._news:
            for ticket in self._admitted():
                self._submit(ticket)
        try:
            deltas = self._engine.step()
        except Exception as error:  # whoever waits must hear of it, and the thread serves the others
            self._engine.clear()
            told, self._speaking = [*self._speaking.values()], {}
            self._broken += 1
            for ticket in told:
                ticket.heard(error)
            return
        if deltas:
            self._broken = 0
        said = [delta.handle for delta in deltas if isinstance(delta, Delta) and delta.token is not None]
        self._done += bool(said), len({*said}), len(said)
        for delta in deltas:
            listening = self._speaking.get(delta.handle)
            if isinstance(delta, Failed) or delta.finish:
                self._speaking.pop(delta.handle, None)
            if listening:  # whoever has left hears nothing more
                listening.heard(delta.error if isinstance(delta, Failed) else delta)

    def _submit(self, ticket: Ticket) -> None:
        try:
            ticket.handle = self._engine.submit(ticket.request)
        except Exception as error:  # as where its adapter was unloaded while it waited: the others go on
            ticket.heard(error)
        else:
            self._speaking[ticket.handle] = ticket

    def _admitted(self) -> list[Ticket]:
        """Those for whom there are places: one of each tenant's in turn, whoever was served last coming last."""
        admitted: list[Ticket] = []
        places = min(self._sequences - len(self._speaking), _AHEAD - self._engine.queued)
        while len(admitted) < places and (taken := self._waiting.take()):
            admitted += taken
        return admitted

    def _leaving(self, adapter: str) -> list[Ticket]:
        with self._news:
            speaking = [each for each in self._speaking.values() if each.request.adapter == adapter]
            waiting = [each for queue in self._waiting.values() for each in queue if each.request.adapter == adapter]
            for each in waiting:
                self._waiting[each.request.tenant].remove(each)
        return [*speaking, *waiting]

    def _drop(self, ticket: Ticket) -> None:
        self._engine.cancel(ticket.handle)
        self._speaking.pop(ticket.handle, None)
