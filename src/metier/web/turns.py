"""One thread for the work of many, who take turns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from metier.inference.fair import Fair
from metier.inference.rows import fulfil

Result = TypeVar("Result")


class Turns:
    """A piece of each tenant's in turn, whoever was served last coming last; what nobody waits for is left out."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting = Fair[tuple[Future[Any], Callable[[], Any]]]()
        self._lock = Lock()

    def do(self, tenant: str, work: Callable[[], Result]) -> Future[Result]:
        """Queue a piece of work."""
        done: Future[Result] = Future()
        with self._lock:
            self._waiting.put(tenant, (done, work))
        self._thread.submit(self._next)  # as many calls as pieces: whose is done is settled when one begins
        return done

    def _next(self) -> None:
        with self._lock:
            ((done, work),) = self._waiting.take()
        fulfil(done, work)
