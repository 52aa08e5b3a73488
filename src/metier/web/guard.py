"""What stands in front of every request: its host, its size, its time, its key, how many a key may have at once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metier.web.failures import error_object
from metier.web.keys import Caller, Keys, bearer

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_log = logging.getLogger("metier")
_METHODS, _ASKED = "GET, POST, DELETE, OPTIONS", "Authorization, Content-Type"
_READING = ("GET", "HEAD", "OPTIONS")
_NO_KEY = "a key is needed: send Authorization: Bearer KEY"
_STRANGE_KEY = "this key is not known; metier serve --new-key NAME makes one, known once the server starts anew"


@dataclass(frozen=True)
class Rules:
    """`hosts` are those by which the server may be called; `origins` the other pages that may ask it.

    Bytes of a head and of a body, seconds in which a request has to be sent, requests at once a key.
    """

    hosts: Collection[str]
    origins: Collection[str] = ()
    head: int = 16 * 2**10
    body: int = 16 * 2**20
    seconds: float = 30.0
    at_once: int = 128


class Guard:
    """ASGI in front of an app. Public are the page's files and /health; all else wants a key where keys are known."""

    def __init__(self, app: ASGIApp, rules: Rules, keys: Keys) -> None:
        self._app, self._rules, self._keys = app, rules, keys
        self._asking: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        send = self._dressed(send, headers.get("origin"))
        if refused := self._refused(scope, headers):
            await _answer(send, *refused)
            return
        key = bearer(scope["headers"])
        caller = self._keys.caller(key)
        if caller is None and not _public(scope):
            told, code = (_STRANGE_KEY, "invalid_api_key") if key else (_NO_KEY, None)
            await _answer(send, 401, told, {"WWW-Authenticate": "Bearer"}, code)
            return
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _headed(send)
        await self._limited(caller or Caller("", "user"), scope, receive, send)

    def _refused(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, Mapping[str, str]] | None:
        """Why a request goes no further, before anything of its body is read."""
        size = len(scope["path"]) + len(scope.get("query_string", b""))
        if size + sum(len(name) + len(value) for name, value in scope["headers"]) > self._rules.head:
            return 431, f"the head is longer than {self._rules.head:,} bytes", {}
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if "*" not in self._rules.hosts and name.lower() not in self._rules.hosts:
            problem = f"this server is not called {name!r}; where it is, start it with --origin https://{name}"
            return 400, problem, {}
        origin = headers.get("origin")
        if scope["method"] == "OPTIONS" and origin in self._rules.origins:
            return 204, "", _allowed(headers)
        if scope["method"] not in _READING and self._foreign(scope, headers):
            return 403, f"pages of {origin} may not ask; where they are yours, start it with --origin", {}
        if "content-length" in headers and "transfer-encoding" in headers:  # a proxy may read another end than this
            return 400, "the body's length is told in two ways", {"Connection": "close"}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._rules.body:
            return 413, f"the body is longer than {self._rules.body:,} bytes", {}
        return None

    def _foreign(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Whether a page of elsewhere had a browser ask, which needs no leave to send, only to read."""
        own = f"{scope.get('scheme', 'http')}://{headers.get('host', '').lower()}"
        return headers.get("origin", own) not in (own, *self._rules.origins)

    async def _limited(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        if self._asking[caller.name] >= self._rules.at_once and not _public(scope):
            problem = f"{self._rules.at_once} requests of this key are being answered; wait for one of them"
            await _answer(send, 429, problem, {"Retry-After": "1"})
            return
        scope.setdefault("state", {})["caller"] = caller
        self._asking[caller.name] += 1
        try:
            await self._app(scope, self._timed(receive), send)
        except _TooMuchError as error:
            await _answer(send, error.status_code, error.detail, error.headers or {})
        except Exception as error:  # it is answered; uvicorn would write all of it, texts of requests too, into the log
            _log.error("a request failed: %s", type(error).__name__)
        finally:
            self._asking[caller.name] -= 1

    def _timed(self, receive: Receive) -> Receive:
        """A body has to come in time, and not to be longer than it may."""
        until = asyncio.get_running_loop().time() + self._rules.seconds
        read, whole = 0, False

        async def taken() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            left = until - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, left))
            except TimeoutError:
                raise _TooMuchError(408, f"the request took longer than {self._rules.seconds:g} s to be sent") from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self._rules.body:
                raise _TooMuchError(413, f"the body is longer than {self._rules.body:,} bytes")
            return message

        return taken

    def _dressed(self, send: Send, origin: str | None) -> Send:
        more = dict(HEADERS)
        if origin is not None and origin in self._rules.origins:
            more |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
            more["Cross-Origin-Resource-Policy"] = "cross-origin"

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}  # a report brings a policy of its own
                told = [(k.encode(), v.encode()) for k, v in more.items() if k.lower().encode() not in own]
                message["headers"] = [*message["headers"], *told]
            await send(message)

        return dressed


class _TooMuchError(HTTPException):
    """A body that is not read any further; FastAPI lets no other exception through that comes of its reading."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem, {"Connection": "close"} if status == 408 else None)


def _headed(send: Send) -> Send:
    """What GET would be answered, without its body."""

    async def headed(message: Message) -> None:
        bare = {"body": b""} if message["type"] == "http.response.body" else {}
        await send({**message, **bare})

    return headed


def _allowed(headers: Mapping[str, str]) -> Mapping[str, str]:
    """What a page that may ask is told beforehand: clients have headers of their own, such as x-stainless-os."""
    asked = headers.get("access-control-request-headers", _ASKED)
    vary = "Origin, Access-Control-Request-Headers"
    return {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Allow-Headers": asked, "Vary": vary}


def _public(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in ("/", "/health") or path.startswith("/page/")


async def _answer(send: Send, status: int, problem: str, headers: Mapping[str, str], code: str | None = None) -> None:
    body: Any = b"" if status == 204 else json.dumps(error_object(status, problem, code=code)).encode()
    kind = [] if status == 204 else [(b"content-type", b"application/json")]
    told = [*kind, (b"content-length", str(len(body)).encode())]
    told += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})
