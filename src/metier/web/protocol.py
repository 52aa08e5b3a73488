"""One connection: whoever is slow to say what is wanted does not keep it."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0  # in which a request's head has to come


class Protocol(H11Protocol):
    """uvicorn's limits the time between two requests alone, and any byte puts that off."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: Java's own client offers HTTP/2 with every request, and is answered without."""

    def _watch(self) -> None:
        """Until there is a request to be answered; its body is the guard's concern."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _rest(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
