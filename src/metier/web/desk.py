"""Who answers: a model's name → a run and a domain of it, and the run's answer as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from metier.data.classes import HeadRenderer
from metier.data.items import Item, Message
from metier.errors import MetierError, nearest
from metier.inference.engine import Delta, Request
from metier.inference.grammars import JsonGrammar
from metier.inference.speech import Decode, Speech
from metier.inference.voices import Voice, Voices
from metier.inference.worker import Worker
from metier.model.bank import BASE
from metier.run import Run
from metier.trees import Example
from metier.web.care import Care
from metier.web.dispatch import Dispatch, Routed
from metier.web.failures import Refusal
from metier.web.lessons import Lesson, Lessons
from metier.web.schema import ChatBody, CompletionBody
from metier.web.turns import Turns

AUTO = "auto"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Target:
    """Who answers, in which domain; "" where messages are taken as they are."""

    voice: Voice
    domain: str = ""

    @property
    def topics(self) -> tuple[str, ...]:
        """What an answer may be about."""
        return (self.domain,) if self.domain else self.voice.learned


@dataclass(frozen=True)
class Token:
    """A token that was said, with its log-probability and those of the likeliest ones where they were asked for."""

    id: int
    logprob: float | None
    top: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """More of an answer; `finish` is "stop" or "length" with the last one."""

    text: str
    token: Token | None
    finish: str = ""


class Desk:
    """The names under which runs are asked: their own, RUN/DOMAIN, a domain's, the bases'.

    A domain's name is that of the run that had it first: who asks by it goes on asking the same one.
    """

    def __init__(self, voices: Voices, lessons: Lessons | None = None, care: Care | None = None) -> None:
        self.voices, self.lessons, self.care = voices, lessons or Lessons(), care or Care()
        # One thread for all that comes before a model: scikit-learn's unions share their warnings' filters, and
        # renderers what they know already.
        self._front = Turns("front")

    async def aside(self, tenant: str, work: Callable[..., Result], *args: Any) -> Result:
        """What a work on that thread comes to, on which tenants take turns; others are answered meanwhile."""
        return await asyncio.wrap_future(self._front.do(tenant, partial(work, *args)))

    def add(self, run: Run, name: str = "") -> Voice:
        """Serve a run from now on. Raises as `Voices.add`, and `Refusal` for a name that is not a run's to have."""
        name = name or run.name
        served = self.voices.all.get(name)
        if name in {AUTO, *(ground.model for ground in self.voices.grounds)}:
            whose = "a domain is chosen" if name == AUTO else "an untuned base is asked"
            raise Refusal(400, f"{name}: is the name by which {whose}", "give it another name", param="name")
        if served is None and any(name in each.questions.domains for each in self.voices.all.values()):
            raise Refusal(400, f"{name}: is a domain that is served", "give the run another name", param="name")
        voice = self.voices.add(run, name)
        if voice is not served:
            self.lessons.renew()
        return voice

    def remove(self, name: str) -> None:
        """Serve a run no more. Raises KeyError where there is none."""
        served = self.voices.all
        try:
            self.voices.remove(name)
        finally:  # an engine that fails to forget it answers under this name no more all the same
            if self.voices.all != served:
                self.lessons.renew()

    @property
    def dispatch(self) -> Dispatch | None:
        """What `auto` chooses by at this moment."""
        return self.lessons.now.dispatch

    def asks_back(self, domains: Sequence[str]) -> str:
        """What is said to a question of which nobody knows to which of these it belongs."""
        if self.care.safety:
            return self.care.safety.asked_back(domains)
        return f"Which of these is it about: {', '.join(domains)}?"

    @property
    def targets(self) -> dict[str, Target]:
        found: dict[str, Target] = {}
        for ground in self.voices.grounds:
            if ground.shared:
                found[ground.model] = Target(Voice(ground.model, ground))
        voices = self.voices.all
        for name, voice in voices.items():
            domains = [*voice.questions.domains]
            found[name] = Target(voice, domains[0] if len(domains) == 1 else "")
            inside = {f"{name}/{domain}": Target(voice, domain) for domain in domains}
            found |= {path: target for path, target in inside.items() if path not in voices}  # a run's name is its own
        for voice in voices.values():
            for domain in voice.questions.domains:
                found.setdefault(domain, Target(voice, domain))
        found.pop(AUTO, None)  # a domain of that name is asked as RUN/auto
        return found

    @property
    def names(self) -> list[str]:
        """All that may be asked, `auto` where there is one."""
        return [*([AUTO] if self.dispatch else []), *self.targets]

    def target(self, model: str, domain: str | None = None, *, talks: bool = False) -> Target:
        """Where it `talks`, `auto` could have been named as well, and is answered by whoever knows the domain.

        Raises `Refusal` for a model, or a domain of it, that is not served.
        """
        if model == AUTO and talks and domain and self.dispatch:
            if expert := self.expert(domain):
                return expert
            problem, names = f"domain: no served run learned {domain!r}", ", ".join(self.dispatch.router.domains)
            raise Refusal(400, problem, f"choose from {names}, or leave it out", param="domain")
        targets = self.targets
        if model not in targets:
            raise self._unserved(model, talks=talks)
        found = targets[model]
        if domain and domain not in found.voice.questions.domains:
            names = ", ".join(found.voice.questions.domains) or "none"
            raise Refusal(400, f"domain: {model} has no {domain!r}", f"it has {names}", param="domain")
        return replace(found, domain=domain) if domain else found

    def untuned(self, target: Target) -> Target:
        """The base under a target, asked as the target is. Raises `Refusal` where it is not served by itself."""
        voice, ground = target.voice, target.voice.ground
        if not ground.shared:
            problem = f"untuned: {voice.name} has its base alone, which is not served by itself"
            raise Refusal(400, problem, "leave untuned out", param="untuned")
        return replace(target, voice=replace(voice, name=ground.model, run=None, adapter=BASE))

    def base_of(self, model: str) -> str:
        """What a tuning starts from where clients name a model: a base, or a run that it goes on from."""
        voice = self.target(model).voice
        if voice.run:
            return str(voice.run.directory.resolve())
        path = voice.ground.home / voice.ground.model
        return str(path.resolve()) if path.exists() else voice.ground.model

    def send(self, said: Sequence[str], lesson: Lesson) -> tuple[Target | None, Routed]:
        """Who answers what was said, the latest last, that names nobody, and how sure that is; None asks back.

        Where the router is not sure, or nobody knows the domain any more, a run that learned all of its domains
        answers, else the untuned base, where it may. Raises `Refusal` where there is no router.
        """
        if (dispatch := lesson.dispatch) is None:
            raise self._unserved(AUTO, talks=True)
        routed = dispatch.send(said)
        expert = self.expert(routed.domain) if routed.domain else None
        if expert and routed.stays and expert.voice.questions.closed(expert.domain):
            expert, routed = None, Routed(None, routed.share)  # a talk goes on, what sorts texts does not
        if expert:
            return expert, routed
        domains = {*dispatch.router.domains}
        shared = (Target(voice) for voice in self.voices.all.values() if domains <= {*voice.learned})
        bases = (Target(Voice(each.model, each)) for each in self.voices.grounds if each.shared)
        return next(shared, None if self.care.asks_back else next(bases, None)), routed

    def expert(self, domain: str) -> Target | None:
        """The run that learned least beside this domain, of equals the first; None once those that did are unloaded."""
        known = [voice for voice in self.voices.all.values() if domain in voice.learned]
        return Target(min(known, key=lambda voice: len(voice.learned)), domain) if known else None

    def _unserved(self, model: str, *, talks: bool) -> Refusal:
        """Why nobody answers under this name, and who does."""
        problem, names = f"the model {model!r} is not served", self.names if talks else [*self.targets]
        if model == AUTO:
            alone = f"{AUTO!r} answers conversations alone"
            problem, names = f"no model is chosen by itself: {self.lessons.why}" if talks else alone, [*self.targets]
        fix = f"choose from {', '.join(names)}{nearest(model, names)}"
        if model == AUTO and talks and self.lessons.passing:
            return Refusal(503, problem, fix, param="model", code="overloaded")
        return Refusal(404, problem, fix, param="model", code="model_not_found")


def read(target: Target, messages: Sequence[Message]) -> Item:
    """A conversation as the run was asked when it was measured.

    Raises `MetierError` where nothing is asked, or it is too long to be looked at.
    """
    item = target.voice.item(messages, target.domain)
    assert_short(target, sum(len(each.content) for each in item.asked))
    return target.voice.shown(item)


def assert_short(target: Target, characters: int, param: str = "messages") -> None:
    """Raises `Refusal` for what has more tokens than are read, however long each is, before they are counted."""
    ground = target.voice.ground
    if characters > ground.context * ground.renderer.longest:
        raise _too_long(target, f"more than {ground.context}", param)


def _too_long(target: Target, tokens: str, param: str) -> Refusal:
    what = "the conversation" if param == "messages" else "the prompt"
    # OpenAI's words: some clients know it by these, not by its code.
    problem = f"this model's maximum context length is {target.voice.ground.context} tokens; {what} has {tokens}"
    return Refusal(400, problem, "shorten it", param=param, code="context_length_exceeded")


def shown(target: Target, item: Item) -> dict[str, Any]:
    """What stood in front of a question: how many examples, and the passages with where they stand."""
    shelf = target.voice.front.shelves.get(target.domain or target.voice.front.only)
    passages = shelf.shown_in(item) if shelf else []
    told = {"examples": len(item.shots), "passages": [{"place": each.place, "text": each.text} for each in passages]}
    return {name: value for name, value in told.items() if value}


def request_of(
    target: Target,
    prompt: Sequence[int],
    body: ChatBody | CompletionBody,
    tenant: str,
    *,
    param: str = "messages",
) -> Request:
    """Raises `Refusal` where nothing fits behind the prompt, a rule names no token, or a head writes none."""
    voice, ground = target.voice, target.voice.ground
    if isinstance(ground.renderer, HeadRenderer):
        problem = f"{voice.name}: has a head that classifies, and writes nothing"
        raise Refusal(400, problem, "ask it in a chat, for a label alone", param="model")
    if strange := [token for token in body.sampling.bias if token >= ground.vocabulary]:
        problem = f"logit_bias: {strange[0]} is no token of {ground.vocabulary}"
        raise Refusal(400, problem, "POST /tokenize tells tokens", param="logit_bias")
    room = ground.context - len(prompt)
    if room < 1:
        raise _too_long(target, str(len(prompt)), param)
    most = voice.max_new_tokens if body.most is None else max(1, body.most)
    length = min(most, room, max(ground.longest - len(prompt), voice.max_new_tokens))
    stop = frozenset[int]() if body.goes_on else ground.renderer.stop_ids
    return Request(tuple(prompt), length, stop, voice.adapter, tenant, body.sampling, body.likeliest)


def apart(request: Request, number: int) -> Request:
    """One of several answers to a request, drawn by a seed of its own."""
    rules = request.sampling
    return request if rules.seed is None else replace(request, sampling=replace(rules, seed=rules.seed + number))


async def collected(pieces: AsyncIterator[Piece]) -> tuple[str, list[Token], str]:
    """A whole answer: its text, its tokens, and why it ended."""
    text, tokens, finish = "", list[Token](), ""
    async for piece in pieces:
        text += piece.text
        tokens += [piece.token] if piece.token else []
        finish = piece.finish
    return text, tokens, finish


async def together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results; where one fails, or nobody waits any more, the others are not gone on with."""
    tasks = [asyncio.create_task(each) for each in works]
    try:
        return [*await asyncio.gather(*tasks)]
    finally:
        for task in tasks:
            task.cancel()


def grammar(target: Target, schema: dict[str, Any] | None) -> JsonGrammar:
    """Raises `Refusal` for a schema that cannot be followed."""
    ground = target.voice.ground
    try:
        return JsonGrammar(ground.renderer, ground.vocabulary, schema)
    except MetierError as error:
        raise Refusal(400, str(error), error.hint, param="response_format") from None


async def speak(
    target: Target,
    request: Request,
    stops: Sequence[str],
    decode: Decode | None = None,
    ends: frozenset[int] = frozenset(),
) -> AsyncIterator[Piece]:
    """The answer as it comes. Whoever stops listening frees its place at the next token.

    A token of `ends`, which the engine goes on behind, comes with the last piece.
    """
    ground = target.voice.ground
    speech = Speech(decode or ground.renderer.decode, stops)
    async for delta in _deltas(ground.worker, request):
        token = None if delta.token is None else Token(delta.token, delta.logprob, delta.top)
        if delta.token in ends:
            yield Piece(speech.end(), token, "stop")
            return
        text = "" if delta.token is None else speech.push(delta.token)
        if speech.stopped:
            yield Piece(text, token, "stop")
            return
        yield Piece(text + speech.end() if delta.finish else text, token, delta.finish)


class _Post:
    """What an engine's thread says, brought to the event loop: one call for all who hear at the same step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._wake = partial(loop.call_soon_threadsafe, self._deliver)
        self._held: deque[tuple[asyncio.Queue[Delta | Exception], Delta | Exception]] = deque()
        self._called = False

    def put(self, news: asyncio.Queue[Delta | Exception], each: Delta | Exception) -> None:
        """On any thread."""
        self._held.append((news, each))
        if not self._called:
            self._called = True
            self._wake()

    def _deliver(self) -> None:
        self._called = False  # first: whoever puts something from now on calls again
        while self._held:
            news, each = self._held.popleft()
            news.put_nowait(each)


@lru_cache(maxsize=4)
def _post(loop: asyncio.AbstractEventLoop) -> _Post:
    """A loop's own; a server has one."""
    return _Post(loop)


async def _deltas(worker: Worker, request: Request) -> AsyncIterator[Delta]:
    news = asyncio.Queue[Delta | Exception]()
    ticket, ended = worker.ask(request, partial(_post(asyncio.get_running_loop()).put, news)), False
    try:
        while not ended:
            each = await news.get()
            ended = isinstance(each, Exception) or bool(each.finish)
            if isinstance(each, Exception):
                raise each
            if ended and request.grammar:
                request.grammar.assert_followed()
            yield each
    finally:
        if not ended:
            worker.cancel(ticket)


def label_rows(target: Target, item: Item) -> list[Example]:
    """A closed set's replies behind their question. Raises `Refusal` where they are too long."""
    ground = target.voice.ground
    rows = ground.renderer.label_rows(item)
    if (longest := max(len(row.tokens) for row in rows)) > ground.context:
        raise _too_long(target, str(longest), "messages")
    return rows


async def choose(target: Target, item: Item, rows: Sequence[Example], tenant: str) -> list[tuple[str, float]]:
    """The replies with their log-probabilities, likeliest first, scored as evaluation does."""
    scores = await asyncio.wrap_future(target.voice.ground.worker.score(rows, target.voice.adapter, tenant))
    return sorted(zip(item.replies, scores, strict=True), key=lambda each: -each[1])


async def reply_tokens(target: Target, row: Example, top: int | None, tenant: str) -> list[Token]:
    """What a closed set's reply is written with, in its row; with `top` how likely each token was, and so many others.

    What ends the turn is not told, though it counts where one reply begins another. A head's replies are not written.
    """
    ground, adapter = target.voice.ground, target.voice.adapter
    if isinstance(ground.renderer, HeadRenderer):
        return []
    told = [place for place, weight in enumerate(row.weights) if weight]
    told = [place for place in told if row.tokens[place] not in ground.renderer.stop_ids]
    if top is None or not told:
        return [Token(row.tokens[place], None, ()) for place in told]
    (reads,) = await asyncio.wrap_future(ground.worker.read([row.tokens], top, adapter, tenant, told[0]))
    known = (reads[place - told[0]] for place in told)
    return [Token(read.token, read.logprob, read.top) for read in known]
