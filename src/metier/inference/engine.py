"""One engine answers for evaluation, chat and server: closed sets are scored, open answers decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby, takewhile
from typing import Any, Protocol

import torch
from torch import Tensor

from metier.inference.beginnings import Beginning, Beginnings, Key
from metier.inference.cache import Next, decoder
from metier.inference.drafts import Draft, Phrases
from metier.inference.logprobs import Read, likelihoods, read
from metier.inference.reading import Prompt
from metier.inference.sampling import Sampler, Sampling
from metier.inference.shelves import held
from metier.model.bank import BASE, Bank
from metier.model.forward import Forward
from metier.trees import Example, pack

_GREEDY = Sampling()
_ROWS = 16  # tokens of a step, with those that are guessed: a CPU reads its weights for fewer, and computes with more
_GENTLE = 4  # so many times less is read at once where somebody decodes, who would wait for it


class Grammar(Protocol):
    """What an answer has to be like, followed token by token."""

    def allowed(self) -> Tensor:
        """Which tokens may come next, [V] of bool."""
        ...

    def accept(self, token: int) -> None: ...

    def assert_followed(self) -> None:
        """Raises `MetierError` where it could not be, and the answer ended for that."""
        ...


@dataclass(frozen=True)
class Request:
    """Continue `prompt` until one of `stop` or `max_new_tokens`.

    It goes through `adapter`; beginnings that were read before are shared within a `tenant` alone. With `logprobs`
    every token comes with its own log-probability and those of so many likeliest ones. A `grammar` is used up.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop: frozenset[int]
    adapter: str = BASE
    tenant: str = ""
    sampling: Sampling = _GREEDY
    logprobs: int | None = None
    grammar: Grammar | None = None

    @property
    def key(self) -> Key:
        return self.tenant, self.adapter


@dataclass(frozen=True)
class Delta:
    """A token of one request's answer; `finish` is "stop" or "length" with the last one, else "".

    The stop token itself is no part of the answer: `token` is then None. `logprob` is the model's own, before any
    rule of sampling, and `top` the likeliest tokens with theirs, where they were asked for.
    """

    handle: int
    token: int | None
    finish: str
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Capacity:
    """What an engine may take: rows and prompts are read in trees of at most `tokens_per_batch` nodes.

    At most `sequences` requests decode together, fewer where their keys and values would need more than `positions`
    places. Beginnings that were read are kept in `remember` bytes.
    """

    tokens_per_batch: int
    sequences: int
    remember: int = 0
    positions: int | None = None


@dataclass(eq=False)
class _Active:
    handle: int
    request: Request
    sampler: Sampler
    draft: Draft
    tokens: list[int] = field(default_factory=list)
    guess: tuple[int, ...] = ()  # what stands behind the latest token in the step that is being made
    passed: int = 0  # how many have begun that had come later
    whole: bool = True  # whether the forward that reads it reads all of it
    begun: Beginning | None = None  # what the forwards before have read of it

    @property
    def read(self) -> tuple[int, ...]:
        return (*self.request.prompt, *self.tokens)

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.tokens)

    @property
    def most(self) -> int:
        """Positions that it may come to."""
        return len(self.request.prompt) + self.request.max_new_tokens


class Engine:
    """`score` rows, or `submit` requests and `step` until they finish.

    Requests decode together whatever adapters of `bank` they go through.
    """

    def __init__(
        self,
        forward: Forward,
        capacity: Capacity,
        *,
        boundary: int | None,
        bank: Bank | None = None,
    ) -> None:
        self._forward = forward
        self._boundary = boundary
        self._capacity = capacity
        self._bank = bank
        self._decoder = decoder(forward, bank)
        # A fifth less of every small operator's time than without gradients alone; but what a network that is tuned
        # sets in its forward would be of no more use to autograd.
        tuned = any(each.requires_grad for each in forward.network.parameters())
        self._apart: Callable[[], AbstractContextManager[Any]] = torch.no_grad if tuned else torch.inference_mode
        self._phrases = Phrases()
        self._beginnings = Beginnings(capacity.remember) if capacity.remember and forward.forks else None
        self._waiting: deque[_Active] = deque()
        self._active: list[_Active] = []
        self._handles = 0
        self._last = False  # the side that stepped last

    @torch.no_grad()
    def score(self, rows: Sequence[Example], adapter: str = BASE) -> list[float]:
        """The weighted log-probability of each row, in nats."""
        scores = [0.0] * len(rows)
        trees = pack(rows, self._capacity.tokens_per_batch, fork=self._forward.forks, boundary=self._boundary)
        for tree in trees:
            with self._passing(adapter):
                logprobs = self._forward.logprobs(tree)
            sums = tree.row_sums(logprobs.cpu().double().numpy())
            for row, value in zip(tree.rows.tolist(), sums.tolist(), strict=True):
                scores[row] = value
        return scores

    @torch.no_grad()
    def read(self, rows: Sequence[Sequence[int]], top: int, adapter: str = BASE, begin: int = 0) -> list[list[Read]]:
        """Each row's tokens from `begin` on with their log-probabilities, and those of the `top` likeliest there."""
        found: dict[int, list[Read]] = {}
        examples = [Example(tuple(row), (0.0,) * len(row)) for row in rows]
        for tree in pack(examples, self._capacity.tokens_per_batch, fork=self._forward.forks, boundary=self._boundary):
            behind = [torch.as_tensor(tree.path(number))[max(begin - 1, 0) : -1] for number in range(len(tree.rows))]
            asked = torch.unique(torch.cat([torch.zeros(1, dtype=torch.long), *behind]))  # the first, for one at least
            with self._passing(adapter):
                logits_UV = self._forward.logits(tree, asked)
            for nodes, row in zip(behind, tree.rows.tolist(), strict=True):
                places = torch.searchsorted(asked, nodes).to(logits_UV.device)
                found[row] = read(rows[row], logits_UV[places], top, begin)
        return [found[row] for row in range(len(rows))]

    def submit(self, request: Request) -> int:
        """Queue a request; its handle marks its tokens in what `step` returns.

        Raises `ModelError` where its adapter is not there.
        """
        if self._bank:
            self._bank.assert_known(request.adapter)
        self._handles += 1
        draft = Draft(request.key, request.prompt, self._phrases)
        self._waiting.append(_Active(self._handles, request, Sampler(request.sampling), draft))
        return self._handles

    def cancel(self, handle: int) -> None:
        """Drop a request wherever it is; an unknown or finished one is no error."""
        self._waiting = deque(each for each in self._waiting if each.handle != handle)
        for slot, each in enumerate(self._active):
            if each.handle == handle:
                with self._apart():  # what was made so is changed so
                    self._release(slot)
                return

    def clear(self) -> None:
        """Drop every request, and whatever a step that broke has left behind."""
        self._waiting.clear()
        self._active.clear()
        self._decoder = decoder(self._forward, self._bank)

    @property
    def queued(self) -> int:
        """How many were submitted and are not begun."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._active)

    def forget(self, adapter: str) -> None:
        """Drop what was kept of an adapter, which is about to go."""
        self._phrases.forget(adapter)
        if self._beginnings:
            self._beginnings.forget(adapter)

    def step(self) -> list[Delta]:
        """One forward: it reads waiting prompts into free places, and gives whoever decodes the next token, or several
        where it was guessed well."""
        with self._apart():
            return self._step()

    def _step(self) -> list[Delta]:
        side = self._turn()
        tokens = self._latest(side)
        fresh, prompts = self._admissible(side)
        if not (fresh or tokens):
            return []
        self._active += fresh
        slots, logits = self._decoder.step(prompts, tokens)
        if fresh and not fresh[0].whole:  # it came alone, and in front of those who decode
            slots, logits = slots[1:], logits[1:]
        deltas = self._chosen(slots, logits)
        for slot in sorted((slot for slot, own in deltas.items() if own[-1].finish), reverse=True):
            self._keep(slot)
            self._release(slot)
        self._requeue()
        return [delta for own in deltas.values() for delta in own]

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

    def _admissible(self, side: bool) -> tuple[list[_Active], list[Prompt]]:
        """Waiting requests for which there are places, as many as one forward reads; fewer where others decode.

        Of a prompt that is longer a part is read, and the rest behind it the next time.
        """
        admitted, prompts = list[_Active](), list[Prompt]()
        most = room = self._capacity.tokens_per_batch // (_GENTLE if self._active else 1)
        while (first := self._first(admitted)) and self._side(first.length) == side:
            prompt = self._prompt(first)
            if prompt.new > room and room < most:
                break
            if self._forward.forks and not side:  # a part that ends before the boundary would have other factors
                prompt = replace(prompt, tokens=prompt.tokens[: prompt.known + room])
            first.whole, first.begun = len(prompt.tokens) == first.length, None
            room -= prompt.new
            self._begin(first)
            admitted.append(first)
            prompts.append(prompt)
        return admitted, prompts

    def _first(self, admitted: Sequence[_Active] = ()) -> _Active | None:
        """Who begins next: whoever waits first and fits. One that does not is passed as often as there are places."""
        others = [*self._active, *admitted]
        for each in self._waiting if len(others) < self._capacity.sequences else ():
            if self._fits(others, each):
                return each
            if each.passed >= self._capacity.sequences:
                break  # nobody else begins until there is room for it
        return None

    def _begin(self, first: _Active) -> None:
        for each in takewhile(lambda each: each is not first, self._waiting):
            each.passed += 1
        self._waiting.remove(first)

    def _fits(self, others: Sequence[_Active], another: _Active) -> bool:
        """Whether there are as many positions for one more as it may come to; alone it may have them all."""
        most = self._capacity.positions
        return not others or most is None or held(each.most for each in (*others, another)) <= most

    def _prompt(self, active: _Active) -> Prompt:
        """What is to be read of it, behind what was read before."""
        key = active.request.key
        known = active.begun and (active.begun, len(active.begun.tokens))
        if not known and self._beginnings and not self._side(active.length):
            known = self._beginnings.longest(key, active.read)
        return Prompt(active.read, key, active.most, *known or ())

    def _keep(self, slot: int) -> None:
        """What a finished request read, for those that go on from it, and what it said, for those who say the same."""
        each = self._active[slot]
        if self._forward.forks:
            each.draft.learn()
        if not self._beginnings or self._side(each.length):
            return
        if beginning := self._decoder.beginning(slot, each.read):
            self._beginnings.keep(each.request.key, beginning)

    def _turn(self) -> bool:
        """The side that steps: LongRoPE picks its factors by the longest position of all.

        Where there are some on both sides, these take turns.
        """
        first = self._first()
        sides = {self._side(each.length) for each in (*self._active, *([first] if first else []))}
        self._last = sides.pop() if len(sides) == 1 else not self._last
        return self._last

    def _side(self, length: int) -> bool:
        return self._boundary is not None and length > self._boundary

    def _requeue(self) -> None:
        """A prompt of which a part was read goes on from that; a sequence that has just grown across LongRoPE's
        boundary is read again with the other factors."""
        for slot in range(len(self._active) - 1, -1, -1):
            each = self._active[slot]
            crossed = self._side(each.length) and not self._side(each.length - 1) and each.tokens
            if not each.whole:
                each.begun = self._decoder.beginning(slot, each.read)
            if crossed or not each.whole:
                self._waiting.appendleft(each)
                self._release(slot)

    def _latest(self, side: bool) -> list[Next]:
        """Of all that decode on a side, with what is guessed behind it."""
        own = {slot: each for slot, each in enumerate(self._active) if self._side(each.length) == side}
        if self._forward.forks:  # what cannot be taken back, as a recurrent state, is not guessed for
            for each in own.values():
                each.guess = self._guess(each, _ROWS // len(own) - 1)
        return [Next(slot, (each.tokens[-1], *each.guess), each.request.adapter) for slot, each in own.items()]

    def _guess(self, active: _Active, most: int) -> tuple[int, ...]:
        """What may follow its latest token: no more than may be said, and all on one side of the boundary."""
        most = min(most, active.request.max_new_tokens - len(active.tokens) - 1)
        if self._boundary is not None and not self._side(active.length):
            most = min(most, self._boundary - active.length)
        return active.draft.guess(most)

    def _chosen(self, slots: Sequence[int], logits: Tensor) -> dict[int, list[Delta]]:
        """The next tokens of each slot: one, and another behind each guess that was right.

        `logits` are those behind its latest token and behind each guess.
        """
        likeliest = logits.float().argmax(-1).tolist()  # of 16-bit numbers torch is five times slower
        deltas: dict[int, list[Delta]] = {}
        for slot, places in groupby(range(len(slots)), key=slots.__getitem__):
            each, own = self._active[slot], deltas.setdefault(slot, [])
            for place, guess in zip(places, (*each.guess, None), strict=True):
                own.append(self._take(each, logits[place], likeliest[place]))
                if own[-1].finish or own[-1].token != guess:
                    break
            if each.guess:
                each.draft.judge(len(own) - 1)
                self._decoder.rewind(slot, len(each.guess) + 1 - len(own))
                each.guess = ()
        return deltas

    def _take(self, active: _Active, logits_V: Tensor, likeliest: int) -> Delta:
        request, token = active.request, likeliest
        if request.grammar:
            allowed_V = request.grammar.allowed().to(logits_V.device)
            token = active.sampler.choose(
                logits_V.masked_fill(~allowed_V, float("-inf")), request.prompt, active.tokens
            )
        elif not request.sampling.plain:
            token = active.sampler.choose(logits_V, request.prompt, active.tokens)
        active.draft.said(token)
        if token in request.stop:
            return Delta(active.handle, None, "stop")
        if request.grammar:
            request.grammar.accept(token)
        active.tokens.append(token)
        finish = "length" if len(active.tokens) >= request.max_new_tokens else ""
        if request.logprobs is None:
            return Delta(active.handle, token, finish)
        ((logprob, top),) = likelihoods([token], logits_V[None], request.logprobs)
        return Delta(active.handle, token, finish, logprob, top)

    def _passing(self, adapter: str) -> AbstractContextManager[None]:
        return self._bank.passing([adapter]) if self._bank else nullcontext()

    def _release(self, slot: int) -> None:
        self._decoder.release(slot)
        self._active[slot] = self._active[-1]
        self._active.pop()
