"""A server from its settings: what is bound where, and who may ask."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp

from metier.errors import MetierError
from metier.inference.voices import Voices
from metier.web.app import DRAIN, make_app
from metier.web.desk import Desk
from metier.web.guard import Rules
from metier.web.jobs import Jobs
from metier.web.keys import Keys
from metier.web.protocol import Protocol

_log = logging.getLogger("metier")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HEADER = 16 * 2**10  # bytes of a request's head


@dataclass(frozen=True)
class Address:
    """Where it listens, and the pages elsewhere, as exact origins, that may ask it."""

    host: str = "127.0.0.1"
    port: int = 8000
    origins: Sequence[str] = ()

    @property
    def local(self) -> bool:
        """Whether nobody outside of this machine reaches it, nor a page of elsewhere through a proxy."""
        return all(_loops(each) for each in (self.host, *(str(urlsplit(each).hostname) for each in self.origins)))

    @property
    def url(self) -> str:
        """Where this machine's own programs find it."""
        address = _ip(self.host)
        host = "localhost" if not self.host or (address and address.is_unspecified) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def names(self) -> frozenset[str]:
        """What it may be called in a request, so that no page elsewhere reaches it by a name of its own."""
        own = {str(urlsplit(each).hostname) for each in self.origins}
        return frozenset({*_LOCAL, self.host.lower(), *own})


def _loops(host: str) -> bool:
    address = _ip(host)
    return host == "localhost" or bool(address and address.is_loopback)


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """None of a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def assert_safe(address: Address, keys: Keys) -> None:
    """Raises `MetierError` where strangers could ask without a key."""
    for origin in address.origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
            raise MetierError(f"--origin {origin}: is no origin", "write for example https://help.example.com")
    if not address.local and not keys.known:
        problem = f"{', '.join([address.host, *address.origins])}: others reach it, and no key is known"
        raise MetierError(problem, "make one: metier serve --new-key NAME")


def assert_free(address: Address) -> None:
    """Raises `MetierError` where nothing can be served there, before anything heavy loads."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address.host, address.port))
        except (OSError, UnicodeError, TypeError) as error:  # the latter two of names that are none
            told, number = getattr(error, "strerror", None) or str(error), getattr(error, "errno", None)
            other = "port" if number in (errno.EADDRINUSE, errno.EACCES) else "host"
            raise MetierError(f"{address.host}:{address.port}: {told}", f"choose another --{other}") from None


class Server(uvicorn.Server):
    """Told to stop, it takes nothing new, has tunings write their checkpoints, and lets answers end; told twice, it
    ends at once."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs, voices: Voices) -> None:
        super().__init__(config)
        self._jobs = jobs
        self._voices = voices

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            try:
                for ground in self._voices.grounds:  # tunings end with this process, other engines do not
                    ground.close(0)
            finally:
                os._exit(128 + sig)
        if speaking := sum(ground.worker.load[0] for ground in self._voices.grounds):
            _log.warning("ending; what is being answered (%d) has %d seconds. Again ends it at once", speaking, DRAIN)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever is cut off then is counted; a traceback of that says nothing more.
        logging.getLogger("uvicorn.error").addFilter(lambda record: not record.exc_info)
        self._jobs.halt()
        await super().shutdown(sockets)


def configured(app: ASGIApp, address: Address) -> uvicorn.Config:
    """How an app is served: nothing of requests in the log, no head too long, nobody too slow."""
    return uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN,
    )


def run_server(desk: Desk, jobs: Jobs, address: Address, keys: Keys, home: Path) -> None:
    """Answer until it is told to stop; then what is being said may end."""
    app = make_app(desk, jobs, Rules(hosts=address.names, origins=tuple(address.origins)), keys, home=home)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the server raises its signal again once it has stopped, as it should
    Server(configured(app, address), jobs, desk.voices).run()
