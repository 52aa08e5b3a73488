"""`/v1/completions`: texts or tokens gone on with, and how likely is what was given."""

from __future__ import annotations

import asyncio
import time
import uuid
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from metier.data.rendering import Renderer
from metier.inference.engine import Request
from metier.inference.logprobs import Read
from metier.inference.speech import Decode
from metier.web.chat import in_json, spelled, usage
from metier.web.desk import Piece, Target, Token, apart, assert_short, collected, request_of, speak, together
from metier.web.failures import Refusal
from metier.web.schema import CompletionBody

Spoken = tuple[str, list[Token], str]
"""A text, its tokens, and why it ended, "" where it goes on."""

_WEIGHED = 4096  # tokens of a prompt: the whole vocabulary is held for each
_TAIL = 8  # tokens that decide how the next one is written


@dataclass(frozen=True)
class Continued:
    """What is going to be gone on with: an answer each of `prompts` times n."""

    id: str
    created: int
    target: Target
    body: CompletionBody
    prompts: Sequence[tuple[int, ...]]
    requests: Sequence[Request]


def begin(target: Target, body: CompletionBody, tenant: str) -> Continued:
    """Raises `Refusal` for what cannot be read."""
    given = body.prompt
    several = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    count, most = len(several) * (body.n or 1), target.voice.ground.worker.capacity
    if count > most:  # said before any of them is read
        raise Refusal(400, f"prompt: {count} answers are asked for; {most} may wait", "ask for fewer", param="prompt")
    prompts = _prompts(target, several)
    if body.echo and body.logprobs is not None and (longest := max(map(len, prompts))) > _WEIGHED:
        problem = f"logprobs: of a prompt with echo {_WEIGHED:,} tokens are weighed; this one has {longest:,}"
        raise Refusal(400, problem, "send less of it", param="logprobs")
    requests = [
        apart(request_of(target, prompt, body, tenant, param="prompt"), number)
        for prompt in prompts
        for number in range(body.n or 1)
    ]
    return Continued(f"cmpl-{uuid.uuid4().hex}", int(time.time()), target, body, prompts, requests)


async def whole(asked: Continued) -> dict[str, Any]:
    """All of it at once."""
    given = await _given(asked)
    answers = await together(_collected(asked, request) for request in asked.requests)
    count = len(asked.requests) // len(asked.prompts)
    choices = [_choice(asked, place, given[place // count], answer) for place, answer in enumerate(answers)]
    said = sum(len(tokens) for _, tokens, _ in answers)
    return {**_head(asked), "choices": choices, "usage": usage(sum(map(len, asked.prompts)), said)}


async def streamed(asked: Continued) -> AsyncGenerator[dict[str, Any]]:
    """Piece by piece, one answer after another; the prompt's own text comes with the first piece behind it."""
    given, count, said = await _given(asked), len(asked.requests) // len(asked.prompts), 0
    for place, request in enumerate(asked.requests):
        front = given[place // count]
        if asked.body.max_tokens == 0:
            yield {**_head(asked), "choices": [_choice(asked, place, front, ("", [], "length"))]}
            continue
        told = 0
        async for piece in _speak(asked, request):
            said += piece.token is not None
            if front or piece.text or piece.finish:
                tokens = [piece.token] if piece.token else []
                choice = _choice(asked, place, front, (piece.text, tokens, piece.finish), told)
                yield {**_head(asked), "choices": [choice]}
                front, told = [], told + len(choice["text"])
    yield {**_head(asked), "choices": [], "usage": usage(sum(map(len, asked.prompts)), said)}


async def _collected(asked: Continued, request: Request) -> Spoken:
    if asked.body.max_tokens == 0:
        return "", [], "length"
    return await collected(_speak(asked, request))


def _speak(asked: Continued, request: Request) -> AsyncIterator[Piece]:
    """The token that ends an answer is told as well where likelihoods are: whoever wants them counts tokens."""
    told = asked.body.logprobs is not None and not asked.body.ignore_eos
    ends = asked.target.voice.ground.renderer.stop_ids if told else frozenset[int]()
    return speak(asked.target, request, asked.body.stops, _spoken(asked, request.prompt), ends)


def _spoken(asked: Continued, prompt: Sequence[int]) -> Decode:
    """Text that goes on where the prompt ended: some tokenizers drop a space that nothing stands in front of."""
    spoken, tail = partial(asked.target.voice.ground.renderer.spoken, shown=False), prompt[-_TAIL:]
    front = len(spoken(tail).rstrip("\ufffd"))  # a character that the prompt began is said whole
    return lambda tokens: spoken([*tail, *tokens])[front:]


async def _given(asked: Continued) -> list[list[Read]]:
    """The prompts' own tokens where they are wanted too, with how likely they are if that is."""
    if not asked.body.echo:
        return [[] for _ in asked.prompts]
    if asked.body.logprobs is None:
        return [[Read(token, None) for token in prompt] for prompt in asked.prompts]
    ground, adapter = asked.target.voice.ground, asked.target.voice.adapter
    tenant = asked.requests[0].tenant
    return await asyncio.wrap_future(ground.worker.read(asked.prompts, asked.body.logprobs, adapter, tenant))


def _prompts(target: Target, several: Sequence[Any]) -> list[tuple[int, ...]]:
    """Of texts, or lists of ids. Text never becomes a control token; ids are taken as they are."""
    renderer, size = target.voice.ground.renderer, target.voice.ground.vocabulary
    for each in several:
        assert_short(target, len(each), "prompt")
    prompts = [tuple(renderer.raw_ids(each)) if isinstance(each, str) else tuple(each) for each in several]
    for prompt in prompts:
        if not prompt:
            raise Refusal(400, "prompt: is empty", "give a text, or tokens", param="prompt")
        if strange := [token for token in prompt if token >= size]:
            raise Refusal(400, f"prompt: {strange[0]} is no token of {size}", "tokenize it again", param="prompt")
    return prompts


def _head(asked: Continued) -> dict[str, Any]:
    return {"id": asked.id, "object": "text_completion", "created": asked.created, "model": asked.body.model}


def _choice(asked: Continued, place: int, given: Sequence[Read], said: Spoken, begin: int = 0) -> dict[str, Any]:
    """`given` are the prompt's tokens where they are told too; `begin` characters were told before."""
    renderer, (text, tokens, finish) = asked.target.voice.ground.renderer, said
    reads = [*given, *(Read(each.id, each.logprob, tuple(each.top)) for each in tokens)]
    logprobs = None if asked.body.logprobs is None else _logprobs(renderer, reads, begin)
    front = renderer.spoken([each.token for each in given])
    return {"index": place, "text": front + text, "logprobs": logprobs, "finish_reason": finish or None}


def _logprobs(renderer: Renderer, tokens: Sequence[Read], begin: int) -> dict[str, Any]:
    """OpenAI's older form: four lists side by side; the text so far has `begin` characters."""
    text, written = getincrementaldecoder("utf-8")("replace"), [renderer.written(each.token) for each in tokens]
    ends = [*accumulate((len(text.decode(each)) for each in written), initial=begin)]
    own, top = list[float | None](), list[dict[str, float] | None]()
    for each in tokens:
        likeliest = {spelled(renderer.written(token)): in_json(value) for token, value in each.top}
        own.append(None if each.logprob is None else in_json(each.logprob))
        top.append(None if each.logprob is None else likeliest)
    return {
        "tokens": [*map(spelled, written)],
        "token_logprobs": own,
        "top_logprobs": top,
        "text_offset": ends[:-1],
    }
