"""Another engine's server in a process of its own, driven as metier's own engine is: submit, step, cancel, score."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from metier.errors import MetierError
from metier.inference.engine import Delta, Request
from metier.inference.logprobs import Read
from metier.inference.worker import Failed, StoppedError
from metier.trees import Example

_STARTS = 1800.0  # seconds in which a server has to have its model
_ENDS = 10.0  # seconds in which it has to end when it is asked to
_GLANCE = 0.02  # seconds that a step waits for news
_SHOWN = 20  # lines of its log that are shown
_HOST = "127.0.0.1"

Json = dict[str, Any]
Ask = Callable[[Json], Json]
"""A question → its whole answer."""


@dataclass(frozen=True)
class Said:
    """A token of an answer, or with none how it ended: "stop" or "length"."""

    token: int | None
    finish: str = ""
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Dialect(Protocol):
    """How a server is asked, and what it says; a fault of a question is a `MetierError`."""

    path: str

    def body(self, request: Request) -> Json:
        """The question whose answer comes event by event."""
        ...

    def told(self, event: Json, said: int) -> Iterator[Said]:
        """What an event says, behind so many tokens of the same answer."""
        ...

    def weigh(self, row: Example, adapter: str, ask: Ask) -> float:
        """The weighted log-probability of a row, in nats."""
        ...

    def read(self, row: Sequence[int], top: int, adapter: str, ask: Ask, begin: int) -> list[Read]:
        """A row's tokens from `begin` on with their log-probabilities, and the likeliest ones with theirs."""
        ...


class Child:
    """A server that this machine alone reaches, by a secret of its own; it ends with this process."""

    def __init__(self, command: Callable[[int], Sequence[str]], secret_in: str, environment: Mapping[str, str]) -> None:
        """Start `command`, given a free port. Raises `MetierError`, with the end of its log, where it fails."""
        self.port, self._secret = _free_port(), secrets.token_urlsafe(32)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the child lives)
        line = command(self.port)
        self.name = os.path.basename(line[0])
        self._process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, secret_in: self._secret},
            start_new_session=True,  # or Ctrl-C would end it before what is being said has ended
        )
        atexit.register(self.stop)
        self._wait()

    @contextmanager
    def asked(self, path: str, body: Json) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        """The answer, and the line that it comes by; leaving early closes that, by which the server knows.

        Raises `StoppedError` where it does not answer, `MetierError` where it refuses.
        """
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._secret}"}
        with closing(http.client.HTTPConnection(_HOST, self.port)) as connection:
            try:
                connection.request("POST", path, json.dumps(body), headers)
                line, answer = connection.sock, connection.getresponse()
                refused = "" if answer.status == 200 else _reason(answer.read()) or f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                raise self.gone(error) from None
            if refused:
                raise MetierError(f"{self.name} refuses: {refused}", "its own rules are narrower here")
            with closing(answer):
                yield line, answer

    def gone(self, error: Exception) -> StoppedError:
        """What to say where it broke off."""
        ended = self._process.poll()
        why = f"has ended with {ended}" if ended is not None else f"does not answer: {error}"
        return StoppedError(f"{self.name} {why}", "start metier again")

    def stop(self, patience: float = _ENDS) -> None:
        """Ask it to end, and end it after so many seconds. Harmless where it has ended."""
        if self._log.closed:
            return  # its number may be another's by now
        atexit.unregister(self.stop)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        if os.name == "posix":
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # and whatever it has started
        else:
            self._process.kill()
        self._process.wait()
        self._log.close()

    def _wait(self) -> None:
        begun = time.monotonic()
        while (alive := self._process.poll() is None) and time.monotonic() - begun < _STARTS:
            if self._healthy():
                return
            time.sleep(0.1)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()[-_SHOWN:]
        self.stop()
        why = f"did not answer within {_STARTS:g} seconds" if alive else "ended before it answered"
        raise MetierError("\n  ".join([f"{self.name} {why}; the end of its log:", *lines]))

    def _healthy(self) -> bool:
        with closing(http.client.HTTPConnection(_HOST, self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


class Elsewhere:
    """A child's answers in the form of metier's own engine's; `step` waits a moment for them."""

    def __init__(self, child: Child, dialect: Dialect, sequences: int) -> None:
        self._child = child
        self._dialect = dialect
        self._sequences = sequences
        self._handles = 0
        self._open: dict[int, socket.socket | None] = {}
        self._lock = threading.Lock()  # of what is open, which several threads change
        self._news: SimpleQueue[Delta | Failed] = SimpleQueue()

    def submit(self, request: Request) -> int:
        self._handles += 1
        self._open[self._handles] = None
        threading.Thread(target=self._listen, args=(self._handles, request), daemon=True).start()
        return self._handles

    def cancel(self, handle: int) -> None:
        """The server sees that nobody listens; an unknown or finished one is no error."""
        with self._lock:
            line = self._open.pop(handle, None)
        if line:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def clear(self) -> None:
        for handle in [*self._open]:
            self.cancel(handle)

    @property
    def queued(self) -> int:
        """It has a queue of its own."""
        return 0

    def forget(self, adapter: str) -> None:
        """It keeps its adapters as long as it lives."""

    def step(self) -> list[Delta | Failed]:
        """What has been said meanwhile, to those who still listen."""
        news: list[Delta | Failed] = []
        with suppress(Empty):
            news.append(self._news.get(timeout=_GLANCE))
            while True:
                news.append(self._news.get_nowait())
        heard = [each for each in news if each.handle in self._open]
        for each in heard:
            if isinstance(each, Failed) or each.finish:
                self._open.pop(each.handle, None)
        return heard

    def score(self, rows: Sequence[Example], adapter: str = "") -> list[float]:
        with ThreadPoolExecutor(self._sequences) as pool:
            return [*pool.map(lambda row: self._dialect.weigh(row, adapter, self._ask), rows)]

    def read(self, rows: Sequence[Sequence[int]], top: int, adapter: str = "", begin: int = 0) -> list[list[Read]]:
        with ThreadPoolExecutor(self._sequences) as pool:
            return [*pool.map(lambda row: self._dialect.read(row, top, adapter, self._ask, begin), rows)]

    def _ask(self, body: Json) -> Json:
        with self._child.asked(self._dialect.path, body) as (_, answer):
            whole: Json = json.loads(answer.read())
        return whole

    def _listen(self, handle: int, request: Request) -> None:
        """On a thread of its own, as long as one answer lasts."""
        try:
            with self._child.asked(self._dialect.path, self._dialect.body(request)) as (line, answer):
                with self._lock:
                    if handle not in self._open:
                        return
                    self._open[handle] = line
                self._tell(handle, request, answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._news.put(Failed(handle, self._child.gone(error)))
        except Exception as error:  # a refusal, or an event of a form that nobody knows: whoever waits must hear of it
            self._news.put(Failed(handle, error))

    def _tell(self, handle: int, request: Request, answer: http.client.HTTPResponse) -> None:
        said = 0
        for event in _events(answer):
            for each in self._dialect.told(event, said):
                said += each.token is not None
                self._news.put(delta := _delta(handle, request, each, said))
                if delta.finish:
                    return
        raise ConnectionError("its answer broke off")


def _delta(handle: int, request: Request, each: Said, said: int) -> Delta:
    if each.token is None or each.token in request.stop:
        return Delta(handle, None, each.finish or "stop")
    return Delta(handle, each.token, "length" if said >= request.max_new_tokens else "", each.logprob, each.top)


def _events(answer: http.client.HTTPResponse) -> Iterator[Json]:
    """Server-sent events, as far as they are JSON. Raises `MetierError` for one that tells a failure."""
    for line in answer:
        if line.startswith(b"data: {"):
            event: Json = json.loads(line[6:])
            if "error" in event:
                raise MetierError(f"the engine failed: {_reason(line[6:])}", "ask again, or ask for less")
            yield event


def _reason(body: bytes) -> str:
    """What an error object says."""
    try:
        told = json.loads(body)["error"]
        return str(told["message"] if isinstance(told, dict) else told)
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace")[:300]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
