"""What was read before, kept so that a request that begins alike need not be read whole again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from metier.trees import Ints

_LEAST = 16  # tokens in common: below that, reading anew with others is as fast

Key = tuple[str, str]
"""Whose it is and through which adapter it went: nothing is shared beyond that."""


@dataclass(frozen=True)
class Beginning:
    """Tokens with every layer's keys and values behind them, [G, M, D]."""

    tokens: tuple[int, ...]
    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]

    @cached_property
    def places(self) -> Ints:
        """The tokens, to be compared at once."""
        return np.array(self.tokens)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(each.nbytes for cache in (self.keys, self.values) for each in cache.values())


class Beginnings:
    """Those used last, of at most `room` bytes together."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held = 0
        self._kept: OrderedDict[tuple[Key, tuple[int, ...]], Beginning] = OrderedDict()

    def longest(self, key: Key, tokens: tuple[int, ...]) -> tuple[Beginning, int] | None:
        """What is kept of this key with the most tokens in common, and how many; all but the last may be."""
        best: tuple[Beginning, int] | None = None
        asked = np.array(tokens[:-1])
        for (owner, _), each in self._kept.items():
            if owner == key and (same := _common(each.places, asked)) >= max(_LEAST, best[1] + 1 if best else 0):
                best = each, same
        if best:
            self._kept.move_to_end((key, best[0].tokens))
        return best

    def keep(self, key: Key, beginning: Beginning) -> None:
        """In place of what it goes on from."""
        if len(beginning.tokens) < _LEAST or beginning.size > self._room:
            return
        for place, each in [*self._kept.items()]:
            if place[0] == key and beginning.tokens[: len(each.tokens)] == each.tokens:
                self._drop(place)
        self._kept[key, beginning.tokens] = beginning
        self._held += beginning.size
        while self._held > self._room:
            self._drop(next(iter(self._kept)))

    def forget(self, adapter: str) -> None:
        """Everything that went through an adapter."""
        for place in [place for place in self._kept if place[0][1] == adapter]:
            self._drop(place)

    def _drop(self, place: tuple[Key, tuple[int, ...]]) -> None:
        self._held -= self._kept.pop(place).size


def _common(ours: Ints, theirs: Ints) -> int:
    length = min(len(ours), len(theirs))
    differs = ours[:length] != theirs[:length]
    return int(differs.argmax()) if differs.any() else length
