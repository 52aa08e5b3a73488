"""A run opened to talk with: the tuned model and, on demand, the untuned base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path

from metier.data.classes import HeadRenderer
from metier.data.items import Item
from metier.errors import MetierError
from metier.events import Listener, silent
from metier.inference.engine import Capacity, Request
from metier.inference.loaded import open_run, warn_forgeable
from metier.inference.questions import Questions, Said, front_of
from metier.inference.speech import Speech
from metier.model.adapters import disabled
from metier.run import Run


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Shares of 1: the replies among themselves."""
    highest = max(logprobs)
    sizes = [math.exp(each - highest) for each in logprobs]
    return [each / sum(sizes) for each in sizes]


class Conversation:
    """The engine that measured a run, ready for turns; `questions` makes items of what is typed."""

    def __init__(self, run: Run, *, offline: bool = False, on_event: Listener = silent) -> None:
        """Load base and adapter as they were measured. Raises `ModelError` where either has changed."""
        if run.why_shut:
            raise MetierError(f"{run.directory}: cannot chat: {run.why_shut}", "choose a run from `metier runs`")
        recipe, loaded = run.finished().recipe(), open_run(run, offline=offline, listen=on_event)
        self.renderer = loaded.renderer
        warn_forgeable(recipe.model, loaded.renderer, on_event)
        self._forward = loaded.forward
        self._engine = loaded.engine(Capacity(loaded.tokens_per_batch, 1))
        self._room, self._max_new_tokens = loaded.context, recipe.eval.max_new_tokens
        self._front = front_of(run)
        self.questions = Questions.of(run)

    def reply(self, asked: Item, *, base: bool = False) -> Iterator[str]:
        """The answer piece by piece; of a closed set every reply with its share. With `base` the untuned model's.

        Raises `MetierError` where the question fills the model's context.
        """
        if base and isinstance(self.renderer, HeadRenderer):
            raise MetierError("the untuned base has no head", "ask a run of another objective")
        asked = self.shown(asked)
        if asked.kind != "open":
            yield self._among(asked, base)
            return
        prompt = tuple(self.renderer.prompt_ids(asked.asked))
        room = self._room_behind(len(prompt))
        request = Request(prompt, min(self._max_new_tokens, room), self.renderer.stop_ids)
        handle, speech = self._engine.submit(request), Speech(self.renderer.decode)
        try:
            finish = ""
            while not finish:
                with self._tuned_or(base):
                    deltas = self._engine.step()
                for delta in deltas:
                    finish = delta.finish
                    if delta.token is not None:
                        yield speech.push(delta.token)
            yield speech.end()
        finally:
            self._engine.cancel(handle)

    def shown(self, asked: Item) -> Item:
        """With what its domain, or the only one, had in front when the run was measured."""
        front = self._front
        return front.of(asked.domain or front.only, [asked], self.renderer)[0]

    def _among(self, asked: Item, base: bool) -> str:
        """The replies, likeliest first, scored as evaluation does, with their shares."""
        rows = self.renderer.label_rows(asked)
        self._room_behind(max(len(row.tokens) for row in rows) - 1)
        with self._tuned_or(base):
            shares = softmax(self._engine.score(rows))
        ranked = sorted(zip(shares, asked.replies, strict=True), reverse=True)
        return ", ".join(f"{reply} {share:.2f}" for share, reply in ranked)

    def _tuned_or(self, base: bool) -> AbstractContextManager[None]:
        return disabled(self._forward.network) if base else nullcontext()

    def _room_behind(self, length: int) -> int:
        """Tokens that may follow so many; raises `MetierError` where none may."""
        if length >= self._room:
            problem = f"the conversation has {length} tokens; the model reads {self._room}"
            raise MetierError(problem, "begin a new conversation with /reset, or ask more shortly")
        return self._room - length


def chat(
    run: Run | str | Path, said: Said, *, domain: str | None = None, base: bool = False, offline: bool = False
) -> str:
    """The answer of a run, or with `base` of its untuned base, to a conversation's first turn.

    `run` may be its folder. `said` fills the template of `domain`, as a held-out row did: a text, or
    `{column: text}` where it has several columns. Of a closed set the answer is every label with its share.
    The model that answered last stays in memory. Raises `MetierError` where the run cannot chat, has no such
    domain, or nothing is asked, `ModelError` where its base has changed.
    """
    opened = (run if isinstance(run, Run) else Run.open(run)).finished()
    questions = Questions.of(opened)
    item = questions.item(said, questions.chosen(domain))
    return "".join(_opened(opened.directory.resolve(), offline).reply(item, base=base))


@lru_cache(maxsize=1)
def _opened(directory: Path, offline: bool) -> Conversation:
    return Conversation(Run(directory), offline=offline)
