"""One engine answers for evaluation and chat: closed sets are scored, open answers decoded greedily."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from metier.inference.cache import decoder
from metier.model.forward import Forward
from metier.trees import Example, pack


@dataclass(frozen=True)
class Request:
    """Continue `prompt` until one of `stop` or `max_new_tokens`."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop: frozenset[int]


@dataclass(frozen=True)
class Delta:
    """A token of one request's answer; `finish` is "stop" or "length" with the last one, else "".

    The stop token itself is no part of the answer: `token` is then None.
    """

    handle: int
    token: int | None
    finish: str


@dataclass
class _Active:
    handle: int
    request: Request
    tokens: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.tokens)


class Engine:
    """`score` rows, or `submit` requests and `step` until they finish.

    At most `sequences` requests decode together; rows and prompts are read in trees of at most
    `tokens_per_batch` nodes.
    """

    def __init__(self, forward: Forward, *, boundary: int | None, tokens_per_batch: int, sequences: int) -> None:
        self._forward = forward
        self._boundary = boundary
        self._tokens_per_batch = tokens_per_batch
        self._sequences = sequences
        self._decoder = decoder(forward, boundary)
        self._waiting: deque[_Active] = deque()
        self._active: list[_Active] = []
        self._handles = 0

    @torch.no_grad()
    def score(self, rows: Sequence[Example]) -> list[float]:
        """The weighted log-probability of each row, in nats."""
        scores = [0.0] * len(rows)
        trees = pack(rows, self._tokens_per_batch, fork=self._forward.forks, boundary=self._boundary)
        for tree in trees:
            sums = tree.row_sums(self._forward.logprobs(tree).cpu().double().numpy())
            for row, value in zip(tree.rows.tolist(), sums.tolist(), strict=True):
                scores[row] = value
        return scores

    def submit(self, request: Request) -> int:
        """Queue a request; its handle marks its tokens in what `step` returns."""
        self._handles += 1
        self._waiting.append(_Active(self._handles, request))
        return self._handles

    def cancel(self, handle: int) -> None:
        """Drop a request wherever it is; an unknown or finished one is no error."""
        self._waiting = deque(each for each in self._waiting if each.handle != handle)
        for slot, each in enumerate(self._active):
            if each.handle == handle:
                self._release(slot)
                return

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._active)

    @torch.no_grad()
    def step(self) -> list[Delta]:
        """Read waiting prompts into free places, or else give every active request its next token."""
        fresh = list(self._admissible())
        if fresh:
            logits = self._decoder.admit([(*each.request.prompt, *each.tokens) for each in fresh])
            self._active += fresh
            slots = list(range(len(self._active) - len(fresh), len(self._active)))
        elif self._active:
            slots = self._one_side()
            logits = self._decoder.advance(slots, [self._active[slot].tokens[-1] for slot in slots])
        else:
            return []
        deltas = [
            self._take(self._active[slot], token) for slot, token in zip(slots, logits.argmax(-1).tolist(), strict=True)
        ]
        for slot, delta in sorted(zip(slots, deltas, strict=True), key=lambda pair: pair[0], reverse=True):
            if delta.finish:
                self._release(slot)
        self._requeue_crossers()
        return deltas

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[int], str]]:
        """Decode all requests; yields (index, tokens, finish) as each one finishes."""
        places = {self.submit(request): index for index, request in enumerate(requests)}
        tokens: dict[int, list[int]] = {handle: [] for handle in places}
        while self.busy:
            for delta in self.step():
                if delta.token is not None:
                    tokens[delta.handle].append(delta.token)
                if delta.finish:
                    yield places[delta.handle], tokens[delta.handle], delta.finish

    def _admissible(self) -> Iterator[_Active]:
        """Waiting requests for which there are places, as many as one forward reads."""
        places, room = self._sequences - len(self._active), self._tokens_per_batch
        while self._waiting and places > 0:
            length = self._waiting[0].length
            if length > room and room < self._tokens_per_batch:
                return
            places, room = places - 1, room - length
            yield self._waiting.popleft()

    def _one_side(self) -> list[int]:
        """The slots that may step together: LongRoPE picks its factors by the longest position of all."""
        sides = [self._side(each.length) for each in self._active]
        return [slot for slot, side in enumerate(sides) if side == sides[0]]

    def _side(self, length: int) -> bool:
        return self._boundary is not None and length > self._boundary

    def _requeue_crossers(self) -> None:
        """A sequence that has just grown across LongRoPE's boundary is read again with the other factors."""
        for slot in range(len(self._active) - 1, -1, -1):
            each = self._active[slot]
            if self._side(each.length) and not self._side(each.length - 1) and each.tokens:
                self._waiting.appendleft(each)
                self._release(slot)

    def _take(self, active: _Active, token: int) -> Delta:
        if token in active.request.stop:
            return Delta(active.handle, None, "stop")
        active.tokens.append(token)
        full = len(active.tokens) >= active.request.max_new_tokens
        return Delta(active.handle, token, "length" if full else "")

    def _release(self, slot: int) -> None:
        self._decoder.release(slot)
        self._active[slot] = self._active[-1]
        self._active.pop()
