"""Held-out items → answers, through the one engine that also chats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    """Answer every item, in the given order; one that is longer than `max_length` counts as failed.

    Of an open one its question has to fit.
    """
    answers: dict[int, Answer] = {}
    ways = {"label": _among, "choice": _among, "preference": _among, "rated": _read, "passage": _read, "open": _opens}
    for work in (_among, _read, _opens):
        same = [index for index, item in enumerate(items) if ways[item.kind] is work]
        for chunk in (same[start : start + _CHUNK] for start in range(0, len(same), _CHUNK)):
            done = work(engine, renderer, [items[index] for index in chunk], limits)
            answers.update(zip(chunk, map(_finite, done), strict=True))
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
        labels=item.replies if item.kind in ("label", "choice", "preference") else (),
        liked=item.liked if item.kind == "rated" else None,
        failed=failed,
        version=item.version,
        task=item.task,
        tests=item.tests,
    )


def transcript(item: Item) -> str:
    """The conversation in front of the answer, as people read it."""
    if not item.messages:
        return ""
    if len(item.messages) == 1:
        only: str = item.messages[0].content
        return only
    return "\n".join(f"{message.role}: {message.content}" for message in item.messages)


def _too_long(rows: Sequence[Example], limits: Limits) -> str:
    length = max(len(row.tokens) for row in rows)
    return f"has {length} tokens, max_length is {limits.max_length}" if length > limits.max_length else ""


def _among(engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits) -> list[Answer]:
    """The likeliest of each item's replies."""
    answers = []
    for item, rows, logprobs in _scored(engine, renderer, items, limits):
        if not logprobs:
            answers.append(blank(item, _too_long(rows, limits)))
            continue
        best = max(range(len(rows)), key=logprobs.__getitem__)
        done = replace(blank(item), output=item.replies[best], label_logprobs=logprobs)
        answers.append(replace(done, logprob=logprobs[item.answer], tokens=int(sum(rows[item.answer].weights))))
    return answers


def _read(engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits) -> list[Answer]:
    """How likely each item's only reply is."""
    answers = []
    for item, rows, logprobs in _scored(engine, renderer, items, limits):
        done = blank(item, "" if logprobs else _too_long(rows, limits))
        tokens = int(sum(weight for row in rows for weight in row.weights))
        answers.append(replace(done, logprob=sum(logprobs), tokens=tokens) if logprobs else done)
    return answers


def _scored(
    engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits
) -> Iterator[tuple[Item, list[Example], tuple[float, ...]]]:
    """Each item with its rows and their log-probabilities; none where a row is too long."""
    rows = [renderer.rows(item, limits.max_length) for item in items]
    fitting = [not _too_long(each, limits) for each in rows]
    scores = iter(engine.score([row for each, fits in zip(rows, fitting, strict=True) if fits for row in each]))
    for item, each, fits in zip(items, rows, fitting, strict=True):
        yield item, each, tuple(next(scores) for _ in each) if fits else ()


def _opens(engine: Engine, renderer: Renderer, items: Sequence[Item], limits: Limits) -> list[Answer]:
    """Whose question fits is answered; how likely the wanted answer is, is read where that fits too."""
    rows = [renderer.example(item) for item in items]
    faults = [_too_long([_question(row)], limits) for row in rows]
    good = [index for index, fault in enumerate(faults) if not fault]
    whole = [index for index in good if len(rows[index].tokens) <= limits.max_length]
    logprobs = dict(zip(whole, engine.score([rows[index] for index in whole]), strict=True))
    requests = [_request(renderer, rows[index], limits) for index in good]
    answers = [blank(item, fault) for item, fault in zip(items, faults, strict=True)]
    for place, tokens, finish in engine.run(requests):
        index = good[place]
        answers[index] = replace(
            answers[index],
            output=renderer.decode(tokens),
            new_tokens=len(tokens),
            stopped=finish == "stop",
            logprob=logprobs.get(index),
            tokens=int(sum(rows[index].weights)) if index in logprobs else None,
        )
    return answers


def _question(row: Example) -> Example:
    """What stands in front of the wanted answer."""
    asked = row.weights.index(1.0)
    return Example(row.tokens[:asked], row.weights[:asked])


def _request(renderer: Renderer, row: Example, limits: Limits) -> Request:
    prompt = _question(row).tokens
    room = max(1, min(limits.max_new_tokens, limits.context - len(prompt)))
    return Request(prompt, room, renderer.stop_ids)
