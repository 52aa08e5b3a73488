"""What was asked of an endpoint and what came back: lines that are written as they come, and replay without it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metier.errors import RunError
from metier.files import append_line, cut_torn_line, digest

Request = Mapping[str, Any]
"""The body of a chat completion, as it is sent, and the address that it is sent to."""


@dataclass(frozen=True)
class Reply:
    """What came back for one request, or why nothing did (`failed`).

    `status` is HTTP's, 0 where no answer came; `seconds` is what the last attempt of `attempts` took; tokens are as
    the endpoint counts them, None where it does not.
    """

    status: int = 0
    text: str = ""
    finish_reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = 0.0
    attempts: int = 1
    failed: str = ""


class Journal:
    """A file of requests and replies, one a line; of two replies to one request the later one counts.

    Several threads may write. Raises `RunError` for a line that is no reply; one that a kill tore is asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._replies = _read(path)

    def find(self, request: Request) -> Reply | None:
        return self._replies.get(digest(request))

    def reply(self, request: Request) -> Reply:
        """That which was found or written before."""
        return self._replies[digest(request)]

    def missing(self, requests: Sequence[Request], *, offline: bool) -> list[Request]:
        """Those that are to be asked: without a reply or, online, with a failure alone; each once.

        Raises `RunError` where offline some have no reply.
        """
        found = {digest(request): (request, self.find(request)) for request in requests}
        unknown = [request for request, reply in found.values() if reply is None]
        if offline and unknown:
            problem = f"{self.path}: {len(unknown)} of {len(found)} answers are missing"
            raise RunError(problem, "call it again without --offline: it asks only for these")
        if offline:
            return []
        return [request for request, reply in found.values() if reply is None or reply.failed]

    def write(self, request: Request, reply: Reply) -> None:
        """Keep a reply; it is on the disk when this returns."""
        line = json.dumps({"key": (key := digest(request)), "request": request, "reply": asdict(reply)})
        with self._lock:
            cut_torn_line(self.path)
            append_line(self.path, line, sync=True)
            self._replies[key] = reply


def _read(path: Path) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else (), start=1):
        try:
            entry = json.loads(line)
            replies[str(entry["key"])] = Reply(**entry["reply"])
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path}:{number}: is no reply", "remove that line: its question is asked again") from None
    return replies
