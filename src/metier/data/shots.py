"""Examples in front of a question, from training rows alone: random, every label in turn, or the nearest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Self

import numpy as np

from metier.classical import Nearest
from metier.data.items import Item, Message
from metier.data.rendering import Renderer

Sampler = Literal["random", "stratified", "nearest"]
_Example = tuple[Message, ...]  # a question with all that was said before it, and its answer


@dataclass(frozen=True)
class Shots:
    """Examples in the order of their choice; with `nearest` that order is every question's own.

    `groups` names each example's group: nobody is shown an example of their own. `room` is how many tokens a
    prompt may have with its examples.
    """

    examples: tuple[_Example, ...]
    groups: tuple[str, ...]
    count: int
    nearest: Nearest | None
    room: int

    @classmethod
    def choose(cls, items: Sequence[Item], count: int, sampler: Sampler, *, room: int, seed: int) -> Self:
        """Draw among training items, the same way every time; what people disliked is no example."""
        items = [item for item in items if item.liked]
        order = np.random.default_rng(seed).permutation(len(items)).tolist()
        drawn = [items[index] for index in order]
        if sampler == "stratified":
            drawn = list(_in_turn(drawn))
        nearest = Nearest.fit([_question(item.messages) for item in drawn]) if sampler == "nearest" else None
        return cls(tuple(map(_example, drawn)), tuple(item.group for item in drawn), count, nearest, room)

    def in_front_of(self, items: Sequence[Item], renderer: Renderer) -> list[Item]:
        """The items with as many examples as leave room for an answer, whatever the right one is."""
        ranked = self._ranked(items)
        shown = (replace(item, shots=self._first(order, item.group)) for item, order in zip(items, ranked, strict=True))
        return [self._fitting(item, renderer) for item in shown]

    def to_json(self) -> dict[str, Any]:
        """What is needed to show the same examples again."""
        kept = self.examples if self.nearest else self.examples[: self.count]
        return {
            "count": self.count,
            "room": self.room,
            "nearest": self.nearest is not None,
            "examples": [[[message.role, message.content] for message in example] for example in kept],
        }

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> Self:
        examples = tuple(tuple(Message(*message) for message in example) for example in value["examples"])
        nearest = Nearest.fit([_question(example[:-1]) for example in examples]) if value["nearest"] else None
        return cls(examples, ("",) * len(examples), value["count"], nearest, value["room"])

    def _fitting(self, item: Item, renderer: Renderer) -> Item:
        while item.shots and len(renderer.prompt_ids(item.asked)) > self.room:
            item = replace(item, shots=item.shots[1:])  # the farthest, where they are ranked
        return item

    def _ranked(self, items: Sequence[Item]) -> Iterator[Sequence[int]]:
        """For each item enough of the examples in its order; none but its own group's may be left out."""
        if self.nearest:
            own = Counter(filter(None, self.groups))
            counts = [self.count + own[item.group] for item in items]
            yield from self.nearest.rank([_question(item.messages) for item in items], counts)
        else:
            yield from (range(len(self.examples)) for _ in items)

    def _first(self, order: Sequence[int], group: str) -> tuple[_Example, ...]:
        """The best that are not of `group`; the nearest stands last, beside the question."""
        chosen = list(islice((index for index in order if not group or self.groups[index] != group), self.count))
        if self.nearest:
            chosen.reverse()
        return tuple(self.examples[index] for index in chosen)


def _question(messages: Sequence[Message]) -> str:
    return messages[-1].content


def _example(item: Item) -> _Example:
    said = (message for message in item.messages if message.role != "system")
    return (*said, Message("assistant", item.reference))


def _in_turn(items: Sequence[Item]) -> Iterator[Item]:
    """One of every label, then the next of each; open answers stay as they are."""
    if items[0].kind == "open":
        yield from items
        return
    by_label: defaultdict[int, list[Item]] = defaultdict(list)
    for item in items:
        by_label[item.answer].append(item)
    for round_ in range(max(map(len, by_label.values()))):
        for label in sorted(by_label):
            yield from by_label[label][round_ : round_ + 1]
