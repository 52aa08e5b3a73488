"""Held-out items → answers, through the one engine that also chats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from metier.data.items import Item
from metier.data.rendering import Renderer
from metier.errors import RunError
from metier.evaluation.answers import Answer
from metier.events import Event, Listener
from metier.inference.engine import Engine, Request
from metier.trees import Example

_CHUNK = 64  # items between two signs of life


@dataclass(frozen=True)
class Limits:
    """In tokens: the longest row, the longest answer, and the model's own context."""

    max_length: int
    max_new_tokens: int
    context: int


def answer(
    engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits, listen: Listener, phase: str = "answers"
) -> list[Answer]:
    """Answer every item, in the given order; one longer than `max_length` counts as failed."""
    answers: dict[int, Answer] = {}
    labels = [index for index, item in enumerate(items) if item.kind == "label"]
    opens = [index for index, item in enumerate(items) if item.kind == "open"]
    for chunk in (*_chunks(labels, _CHUNK), *_chunks(opens, _CHUNK)):
        chosen = [items[index] for index in chunk]
        work = _labels if chosen[0].kind == "label" else _opens
        answers.update(zip(chunk, map(_finite, work(engine, renderer, chosen, limits)), strict=True))
        listen(Event(phase, len(answers), len(items)))
    return [answers[index] for index in range(len(items))]


def _finite(answer: Answer) -> Answer:
    """Raises `RunError` where the model's numbers are broken: no score may rest on them."""
    if not all(map(math.isfinite, (answer.logprob or 0.0, *answer.label_logprobs))):
        problem = f"{answer.place}: the model gives a log-probability of {answer.logprob}"
        hint = (
            "its weights are broken, or too large for this number format: fetch it again, or try --plan compute=float32"
        )
        raise RunError(problem, hint)
    return answer


def blank(item: Item, failed: str = "") -> Answer:
    """An answer with everything that is known before any model has spoken."""
    return Answer(
        id=item.id,
        domain=item.domain,
        group=item.group,
        kind=item.kind,
        place=item.place,
        prompt=transcript(item),
        reference=item.reference,
        labels=item.replies if item.kind == "label" else (),
        failed=failed,
    )


def transcript(item: Item) -> str:
    """The conversation in front of the answer, as people read it."""
    if len(item.messages) == 1:
        only: str = item.messages[0].content
        return only
    return "\n".join(f"{message.role}: {message.content}" for message in item.messages)


def _chunks(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _too_long(row: Example, limits: Limits) -> str:
    length = len(row.tokens)
    return f"has {length} tokens, max_length is {limits.max_length}" if length > limits.max_length else ""


def _labels(engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits) -> list[Answer]:
    rows = [renderer.label_rows(item) for item in items]
    faults = [_too_long(max(each, key=lambda row: len(row.tokens)), limits) for each in rows]
    scores = iter(engine.score([row for each, fault in zip(rows, faults, strict=True) if not fault for row in each]))
    answers = []
    for item, each, fault in zip(items, rows, faults, strict=True):
        if fault:
            answers.append(blank(item, fault))
            continue
        logprobs = tuple(next(scores) for _ in each)
        best = max(range(len(each)), key=logprobs.__getitem__)
        done = replace(blank(item), output=item.replies[best], label_logprobs=logprobs)
        answers.append(replace(done, logprob=logprobs[item.answer], tokens=int(sum(each[item.answer].weights))))
    return answers


def _opens(engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits) -> list[Answer]:
    rows = [renderer.example(item) for item in items]
    faults = [_too_long(row, limits) for row in rows]
    good = [index for index, fault in enumerate(faults) if not fault]
    logprobs = engine.score([rows[index] for index in good])
    requests = [_request(renderer, rows[index], limits) for index in good]
    answers = [blank(item, fault) for item, fault in zip(items, faults, strict=True)]
    for place, tokens, finish in engine.run(requests):
        index = good[place]
        answers[index] = replace(
            answers[index],
            output=renderer.decode(tokens),
            new_tokens=len(tokens),
            stopped=finish == "stop",
            logprob=logprobs[place],
            tokens=int(sum(rows[index].weights)),
        )
    return answers


def _request(renderer: Renderer, row: Example, limits: Limits) -> Request:
    prompt = row.tokens[: row.weights.index(1.0)]
    room = max(1, min(limits.max_new_tokens, limits.context - len(prompt)))
    return Request(prompt, room, renderer.stop_ids)
