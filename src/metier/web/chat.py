"""`/v1/chat/completions`: a conversation answered as its run was measured, at once or as it comes."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from metier.assistant.watch import Watch
from metier.data.items import Item
from metier.data.rendering import Renderer
from metier.inference.conversation import softmax
from metier.inference.engine import Request
from metier.trees import Example
from metier.web.care import Said
from metier.web.desk import (
    AUTO,
    Desk,
    Piece,
    Target,
    Token,
    apart,
    choose,
    collected,
    grammar,
    label_rows,
    read,
    reply_tokens,
    request_of,
    shown,
    speak,
    together,
)
from metier.web.failures import Refusal, told
from metier.web.schema import AsObject, AsSchema, ChatBody

Closed = tuple[Item, list[Example]]
"""A question with a closed set of replies, and a row for each of these."""


@dataclass(frozen=True)
class Turn:
    """What is going to be answered: words that are `ready`, as often as wanted, or requests, one an answer.

    Ready words that a model chose have `tokens`. Whoever wants JSON has it `parsed`, and is told other words as a
    refusal.
    """

    id: str
    model: str
    created: int
    wanted: int = 1
    parsed: bool = False
    target: Target | None = None
    prompt_tokens: int = 0
    ready: str | None = None
    tokens: Sequence[Token] = ()
    requests: Sequence[Request] = ()
    stops: Sequence[str] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    watch: Callable[[], Watch] = Watch


async def begin(desk: Desk, body: ChatBody, tenant: str) -> Turn:
    """Raises `MetierError` for what cannot be asked, before anything is answered."""
    turn = Turn(f"chatcmpl-{uuid.uuid4().hex}", body.model, int(time.time()), body.n or 1, body.wants_json)
    target, topics, notes, said = await desk.aside(tenant, _before, desk, body)
    if said:
        return replace(turn, ready=said.text, notes={**notes, **said.notes})
    turn = replace(turn, target=target, notes=notes, watch=partial(desk.care.behind, topics))
    watched = [topic for topic in topics if desk.care.behind([topic]).notice]
    turn, closed = await desk.aside(tenant, _asked, turn, watched, body, tenant)
    if closed is None:
        return turn
    item, rows = closed
    found = await choose(_target(turn), item, rows, tenant)
    shares, ready = softmax([score for _, score in found]), found[0][0]
    named = {reply: round(share, 6) for (reply, _), share in zip(found, shares, strict=True)}
    tokens = await reply_tokens(_target(turn), rows[item.replies.index(ready)], body.likeliest, tenant)
    return replace(turn, ready=ready, tokens=tokens, notes={**turn.notes, "shares": named})


def _before(desk: Desk, body: ChatBody) -> tuple[Target | None, Sequence[str], dict[str, Any], Said | None]:
    """Who answers, the domains to which that may belong, how it was chosen, and what is said instead.

    All by one lesson, which may be another a moment later.
    """
    messages, notes, lesson = body.turns, dict[str, Any](), desk.lessons.now
    target: Target | None
    chosen = body.model != AUTO or bool(body.domain)
    if chosen:
        target = desk.target(body.model, body.domain, talks=True)
    else:
        target, routed = desk.send([each.content for each in messages if each.role == "user"], lesson)
        notes["route"] = {"domain": routed.domain, "share": round(routed.share, 4), "stays": routed.stays}
    target = desk.untuned(target) if target and body.untuned else target
    among = () if chosen else lesson.topics
    topics = (target.topics if target else ()) or among
    said = desk.care.first(messages, topics, among, talks=_talks(body, target))
    said = said or desk.care.declined(messages, topics, lesson.scope, chosen=chosen)
    return target, topics, notes, said or (None if target else Said(desk.asks_back(topics)))


def _talks(body: ChatBody, target: Target | None) -> bool:
    """Whether somebody talks here, who may be upset: whoever wants JSON, or names what sorts texts, hands in texts."""
    sorts = body.model != AUTO and target is not None and target.voice.questions.closed(target.domain)
    return not (sorts or body.wants_json)


def _asked(turn: Turn, watched: Sequence[str], body: ChatBody, tenant: str) -> tuple[Turn, Closed | None]:
    """With the requests that an engine is asked, or the rows of a closed set that it has to score."""
    target = _target(turn)
    if watched:
        _assert_watchable(body, watched)
    item = read(target, body.turns)
    renderer = target.voice.ground.renderer
    prompt = renderer.prompt_ids(item.asked)
    notes = {**turn.notes, "domain": target.domain, "run": target.voice.name, **shown(target, item)}
    turn = replace(turn, prompt_tokens=len(prompt))
    if item.kind in ("label", "choice") and not body.wants_json:
        return replace(turn, notes=notes), (item, label_rows(target, item))
    request = request_of(target, prompt, body, tenant)
    requests = [_own(request, target, body, number) for number in range(turn.wanted)]
    return replace(turn, requests=requests, stops=body.stops, notes=notes), None


def _assert_watchable(body: ChatBody, watched: Sequence[str]) -> None:
    """Raises `Refusal` for what goes past those who watch over an answer."""
    auto = ", to which it may belong," if body.model == AUTO else ""
    answers = f"answers of {', '.join(watched)}{auto}"
    if body.wants_json:
        problem = f"response_format: {answers} carry a notice, for which JSON has no place"
        raise Refusal(400, problem, "ask for text, or name another domain", param="response_format")
    if body.logprobs:
        problem = f"logprobs: of {answers} sentences are withheld, which their tokens would tell"
        raise Refusal(400, problem, "leave logprobs out, or name another domain", param="logprobs")


def _own(request: Request, target: Target, body: ChatBody, number: int) -> Request:
    """One of several answers: drawn by a seed of its own, following a grammar of its own."""
    request = apart(request, number)
    match body.response_format:
        case AsSchema() as wanted:
            return replace(request, grammar=grammar(target, wanted.json_schema.schema_))
        case AsObject():
            return replace(request, grammar=grammar(target, None))
    return request


async def whole(turn: Turn) -> dict[str, Any]:
    """All of it at once."""
    watches = [turn.watch() for _ in turn.requests]
    heard = (_watched(turn, *each) for each in zip(turn.requests, watches, strict=True))
    answers = await together(collected(each) for each in heard)
    if turn.ready is not None:
        answers = [(turn.ready, [*turn.tokens], "stop")] * turn.wanted
    choices = [_choice(turn, number, *answer) for number, answer in enumerate(answers)]
    completion = sum(len(tokens) for _, tokens, _ in answers)
    return {
        **_head(turn, "chat.completion"),
        **_notes(turn, watches),
        "choices": choices,
        "usage": usage(turn.prompt_tokens, completion),
    }


async def streamed(turn: Turn, *, tells_usage: bool) -> AsyncGenerator[dict[str, Any]]:
    """Chunk by chunk, the answers that were asked for side by side; what they rest on comes first, and at the end.

    None comes before a model has said something, or failed.
    """
    head = _head(turn, "chat.completion.chunk")
    more = {"usage": None} if tells_usage else {}

    def chunk(number: int, delta: Mapping[str, str], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**head, "choices": [choice], **more}

    said, begun, watches = 0, set[int](), [turn.watch() for _ in turn.requests]
    role = {"role": "assistant", "content": ""}
    for number in range(turn.wanted if turn.ready is not None else 0):
        yield {**chunk(number, role), **_notes(turn, [])}
        words = {"refusal" if turn.parsed else "content": turn.ready or ""}
        yield chunk(number, words, None, _logprobs(turn, turn.tokens))
        yield chunk(number, {}, "stop")
        said += len(turn.tokens)
    async with aclosing(_beside(turn, watches)) as pieces:
        async for number, piece in pieces:
            if number not in begun:
                begun.add(number)
                yield {**chunk(number, role), **_notes(turn, [watches[number]])}
            said += piece.token is not None
            if piece.text or (piece.token and piece.token.logprob is not None):
                yield chunk(number, {"content": piece.text}, None, _logprobs(turn, [piece.token]))
            if piece.finish:
                yield {**chunk(number, {}, piece.finish), **_notes(turn, [watches[number]])}
    yield {**head, "choices": [], "usage": usage(turn.prompt_tokens, said)}


async def _beside(turn: Turn, watches: Sequence[Watch]) -> AsyncGenerator[tuple[int, Piece]]:
    """Several answers' pieces as they come; whoever stops listening stops all of them."""
    news: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()

    async def listen(number: int, request: Request) -> None:
        try:
            async for piece in _watched(turn, request, watches[number]):
                news.put_nowait((number, piece))
        except Exception as error:  # raised where the pieces are read
            news.put_nowait((number, error))

    tasks = [asyncio.create_task(listen(number, request)) for number, request in enumerate(turn.requests)]
    left = len(tasks)
    try:
        while left:
            number, piece = await news.get()
            if isinstance(piece, Exception):
                raise piece
            left -= bool(piece.finish)
            yield number, piece
    finally:
        for task in tasks:
            task.cancel()


async def events(first: dict[str, Any] | None, chunks: AsyncGenerator[dict[str, Any]]) -> AsyncIterator[str]:
    """As server-sent events; what fails behind the first is told as the last one."""
    if first is not None:
        yield _event(first)
    try:
        async for chunk in chunks:
            yield _event(chunk)
    except Exception as error:  # the head is sent: what is left is to say so in the stream
        yield _event(told(error)[1])
    yield "data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"  # in ASCII: some clients end a line wherever Unicode has one


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _watched(turn: Turn, request: Request, watch: Watch) -> AsyncIterator[Piece]:
    """The answer as people may read it."""
    async for piece in speak(_target(turn), request, turn.stops):
        text = watch.push(piece.text)
        yield replace(piece, text=text + watch.end() if piece.finish else text)


def _target(turn: Turn) -> Target:
    assert turn.target, "only what is ready has nobody who answers"
    return turn.target


def _head(turn: Turn, kind: str) -> dict[str, Any]:
    return {"id": turn.id, "object": kind, "created": turn.created, "model": turn.model}


def _notes(turn: Turn, watches: Sequence[Watch]) -> dict[str, Any]:
    """What an answer rests on, and what was done to it so far."""
    done: dict[str, Any] = {
        "withheld": sum(watch.withheld for watch in watches),
        "notice": next((watch.notice for watch in watches), ""),
    }
    notes = {**turn.notes, **{name: value for name, value in done.items() if value}}
    return {"metier": notes} if notes else {}


def _choice(turn: Turn, number: int, text: str, tokens: Sequence[Token], finish: str) -> dict[str, Any]:
    refused = turn.parsed and turn.ready is not None
    said = {"content": None, "refusal": text} if refused else {"content": text, "refusal": None}
    message = {"role": "assistant", **said}
    return {"index": number, "message": message, "logprobs": _logprobs(turn, tokens), "finish_reason": finish}


def _logprobs(turn: Turn, tokens: Sequence[Token | None]) -> dict[str, Any] | None:
    """OpenAI's form; None where nobody asked."""
    told = [token for token in tokens if token and token.logprob is not None]
    if not told:
        return None
    renderer = _target(turn).voice.ground.renderer
    return {
        "content": [
            {
                **_likely(renderer, token.id, token.logprob),
                "top_logprobs": [_likely(renderer, other, logprob) for other, logprob in token.top],
            }
            for token in told
        ],
        "refusal": None,
    }


def _likely(renderer: Renderer, token: int, logprob: float | None) -> dict[str, Any]:
    written = renderer.written(token)
    return {"token": spelled(written), "logprob": in_json(logprob), "bytes": [*written]}


def in_json(logprob: float | None) -> float:
    """A likelihood that is not there, or is none at all, as OpenAI has it."""
    return logprob if logprob is not None and math.isfinite(logprob) else -9999.0


def spelled(written: bytes) -> str:
    """A token as OpenAI spells it: one that is a part of a character by its bytes."""
    try:
        return written.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)
