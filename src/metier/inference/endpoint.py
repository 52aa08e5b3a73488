"""A chat model behind an OpenAI-compatible address: asked as often as it takes, every reply kept as it comes."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from metier.errors import RunError
from metier.inference.journal import Journal, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai import OpenAI

ATTEMPTS = 6
WAIT = 0.5  # seconds before the second attempt, doubled before each further one
_LONGEST_WAIT = 60.0  # where the endpoint names none; one that it names is honoured as far as _PATIENCE
_PATIENCE = 900.0
CONNECT, READ = 10.0, 600.0  # seconds: to be let in, and for a whole answer
_STREAK = 8  # failures one after another that are the endpoint's, not the questions'
_REFUSED = (401, 402, 403)  # whoever asks
_PASSING = (408, 409, 425, 429)  # and everything from 500
_GOES_ON = "what was answered is kept: the same command asks only what is missing"


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers; `api_key_env` names the environment variable that holds the key."""

    url: str
    model: str
    api_key_env: str | None = None
    concurrency: int = 4

    def request(self, messages: Sequence[dict[str, str]], max_tokens: int) -> Request:
        """A greedy chat completion."""
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        return {"url": self.url, **body}

    def ask(self, requests: Sequence[Request], journal: Journal, listen: Callable[[int], None]) -> None:
        """Fetch the replies to different requests into the journal; `listen` hears how many of them have come.

        Raises `RunError` where the endpoint refuses whoever asks, is not there, or answers nothing. What came
        before that, and what is on its way then, is kept.
        """
        with _client(self.url, key := read_key(self.api_key_env)) as client:
            asking = _Asking(client, self, key, journal)
            asking.fetch(requests[0])  # alone, so that a wrong address or key is told once
            listen(1)
            with ThreadPoolExecutor(self.concurrency) as pool:
                futures = [pool.submit(asking.fetch, request) for request in requests[1:]]
                try:
                    for done, future in enumerate(as_completed(futures), start=2):
                        future.result()
                        listen(done)
                except BaseException:
                    asking.halt.set()
                    pool.shutdown(cancel_futures=True)
                    raise


def read_key(variable: str | None) -> str:
    """The key that an environment variable holds; "" where none is named. Raises `RunError` where it holds none."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise RunError(f"strategy.api_key_env: {variable} is not set", f"export {variable}=… in the shell that asks")
    return key


@contextmanager
def _client(url: str, key: str) -> Iterator[OpenAI]:
    try:
        from openai import OpenAI, Timeout
    except ImportError:
        problem = "an endpoint needs the openai package, which is not installed"
        raise RunError(problem, "pip install 'metier[endpoint]'") from None
    timeout = Timeout(READ, connect=CONNECT)
    # Without a key it would read OPENAI_API_KEY and send that to whatever address there is.
    with OpenAI(api_key=key or "none", base_url=url, max_retries=0, timeout=timeout) as client:
        yield client


class _Asking:
    """What threads share while they ask: whether to stop, and what has failed one after another."""

    def __init__(self, client: OpenAI, endpoint: Endpoint, key: str, journal: Journal) -> None:
        self.halt = threading.Event()
        self._client, self._endpoint, self._key, self._journal = client, endpoint, key, journal
        self._lock = threading.Lock()
        self._answered, self._streak = 0, 0

    def fetch(self, request: Request) -> None:
        """The reply, on the disk. Raises `RunError` where nobody's question would be answered."""
        for attempt in range(1, ATTEMPTS + 1):
            if self.halt.is_set():
                return
            reply, wait = self._attempt(request)
            reply = replace(reply, attempts=attempt)
            lonely = not self._answered and not reply.status  # nobody is there: say so at once
            if not reply.failed or wait is None or lonely:
                break
            if attempt < ATTEMPTS:
                self.halt.wait(wait or min(_LONGEST_WAIT, WAIT * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
        self._judge(reply)
        self._journal.write(request, reply)

    def _attempt(self, request: Request) -> tuple[Reply, float | None]:
        """One try, and how long to wait for the next: 0 for as long as usual, None where it is of no use."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        begun = time.monotonic()
        body: dict[str, Any] = {name: value for name, value in request.items() if name != "url"}
        try:
            raw = self._client.chat.completions.with_raw_response.create(**body)
        except APITimeoutError:
            return Reply(status=408, failed=f"no answer within {READ:g} seconds"), 0
        except APIConnectionError as error:
            return Reply(failed=f"cannot be reached ({self._told(error.__cause__ or error)})"), 0
        except APIStatusError as error:
            status, passing = error.status_code, error.status_code in _PASSING or error.status_code >= 500
            if error.code == "insufficient_quota":  # a 429 that no waiting ends
                status, passing = 402, False
            reply = Reply(status=status, failed=f"{error.status_code}: {self._told(error)}")
            return reply, _retry_after(error.response.headers.get("retry-after")) if passing else None
        reply = _read_reply(raw.http_response.content, raw.status_code)
        return replace(reply, seconds=round(time.monotonic() - begun, 6)), 0

    def _judge(self, reply: Reply) -> None:
        """Raises `RunError` where the endpoint, not the question, is at fault."""
        with self._lock:
            self._answered += not reply.failed
            self._streak = self._streak + 1 if reply.failed else 0
            first, endless = not self._answered, self._streak >= _STREAK
        gone = reply.status in (0, 404)
        if reply.failed and (reply.status in _REFUSED or (gone and (first or endless)) or (first and endless)):
            known = (
                "name the key's variable with strategy.api_key_env" if reply.status == 401 else "look at url and model"
            )
            self.halt.set()
            problem = f"{self._endpoint.model} at {self._endpoint.url}: {reply.failed}"
            raise RunError(problem, f"{known}; {_GOES_ON}")

    def _told(self, error: BaseException) -> str:
        """On one line, without the key, whatever the endpoint says."""
        body = getattr(error, "body", None)
        said = body.get("message") if isinstance(body, dict) else None
        text = " ".join(str(said or error).split())[:300]
        return text.replace(self._key, "***") if self._key else text


def _read_reply(content: bytes, status: int) -> Reply:
    """What a completion says; a body that is none counts as failed."""
    try:
        body = json.loads(content)
        choice, usage = body["choices"][0], body.get("usage") or {}
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        finish = str(choice.get("finish_reason") or "")
        read, written = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Reply(status=status, failed="what came is no chat completion")
    if not isinstance(text, str):
        return Reply(status=status, failed="what came is no text")
    failed = "its filter let nothing through" if finish == "content_filter" and not text else ""
    return Reply(status, text, finish, tokens_in=read, tokens_out=written, failed=failed)


def _retry_after(value: str | None) -> float:
    """Seconds from a number or a date; 0 where there is neither."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            seconds = 0.0
    return min(max(seconds, 0.0), _PATIENCE)
