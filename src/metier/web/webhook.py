"""New tickets posted to one address that is written down beforehand; nobody waits for it."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from queue import Full, Queue
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from metier.assistant.tickets import Ticket

_log = logging.getLogger("metier")
_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_ROOM = 256  # tickets that may wait to be posted; they all stand in the database


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the address is the one that was allowed."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Webhook:
    """One address; `timeout` in seconds for an attempt, of which there are `tries`, `pause` seconds and more apart.

    The address may hold a secret: only its host is told to anybody.
    """

    url: str
    timeout: float = 5.0
    tries: int = 3
    pause: float = 2.0
    _waiting: Queue[Ticket] = field(default_factory=lambda: Queue(_ROOM))

    def __post_init__(self) -> None:
        threading.Thread(target=self._work, name="webhook", daemon=True).start()

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    def post(self, ticket: Ticket) -> None:
        """Have a ticket posted, as it lies in the database; returns at once."""
        try:
            self._waiting.put_nowait(ticket)
        except Full:
            _log.warning("ticket %d was not posted: %d wait already", ticket.id, _ROOM)

    def _work(self) -> None:
        opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))
        while True:
            ticket = self._waiting.get()
            if why := self._posted(opener, ticket):
                _log.warning("ticket %d was not posted: %s", ticket.id, why)

    def _posted(self, opener: urllib.request.OpenerDirector, ticket: Ticket) -> str:
        """Why it was not, or ""; what may be better in a moment is tried again."""
        body = json.dumps({"object": "ticket", **asdict(ticket)}, ensure_ascii=False).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"}, method="POST")
        why = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                with opener.open(request, timeout=self.timeout):
                    return ""
            except HTTPError as error:
                why = f"{self.host} answered {error.code}"
                error.close()
                if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _AGAIN:
                    return why
            except OSError as error:
                why = f"{self.host}: {getattr(error, 'reason', error)}"
            except HTTPException as error:  # by its kind: its text is what was answered
                why = f"{self.host} answered no HTTP: {type(error).__name__}"
        return why
