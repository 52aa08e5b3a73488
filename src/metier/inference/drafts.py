"""What may be said next, guessed: whoever serves a few domains says much of it again.

A guess is read with the token before it, in one forward, and holds as far as the model would have said the same: the
answer stays what it is, and a forward is saved for each token that was guessed right (speculative decoding, Leviathan
et al. 2023; with what was said before as the guess, Saxena 2023).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import cycle, islice

import numpy as np

from metier.inference.beginnings import Key
from metier.trees import Ints

_LEAD = 3  # tokens in a row that have to be the same
_MOST = 8  # tokens that are guessed at once
_KEPT = 1 << 15  # places of former answers, of half a kilobyte each
_LEARNED = 4096  # tokens of one answer, its last ones: learning them takes some milliseconds

Tokens = tuple[int, ...]


class Phrases:
    """What followed so many tokens in the latest answers, of each key by itself."""

    def __init__(self) -> None:
        self._behind: OrderedDict[tuple[Key, Tokens], Tokens] = OrderedDict()

    def learn(self, key: Key, tokens: Sequence[int]) -> None:
        """An answer, with the end of its prompt in front of it."""
        for place in range(max(_LEAD, len(tokens) - _LEARNED), len(tokens)):
            lead = key, tuple(tokens[place - _LEAD : place])
            self._behind[lead] = tuple(tokens[place : place + _MOST])
            self._behind.move_to_end(lead)
        while len(self._behind) > _KEPT:
            self._behind.popitem(last=False)

    def behind(self, key: Key, lead: Tokens) -> Tokens:
        """What followed them last; nothing where they never were."""
        return self._behind.get((key, lead), ())

    def forget(self, adapter: str) -> None:
        """Everything that was said through an adapter."""
        for lead in [lead for lead in self._behind if lead[0][1] == adapter]:
            del self._behind[lead]


class Draft:
    """Guesses how one answer goes on, by its own text so far or by former ones. The better they were, the longer."""

    def __init__(self, key: Key, prompt: Tokens, phrases: Phrases) -> None:
        self._key, self._phrases = key, phrases
        self._prompt = prompt
        self._said = list[int]()
        self._behind: dict[Tokens, int] = {}  # where in the answer what was said last followed
        self._lead = prompt[-_LEAD:]
        self._right = 0

    def guess(self, most: int) -> Tokens:
        """At most so many tokens that may come next."""
        most = min(most, _MOST, 2 * self._right + 1)
        if most <= 0 or len(self._lead) < _LEAD:
            return ()
        again = self._again(most)  # and from its beginning, where it goes round in circles
        return tuple(islice(cycle(again), most)) or self._phrases.behind(self._key, self._lead)[:most]

    def judge(self, right: int) -> None:
        """How many of the latest guess were right."""
        self._right = right

    def said(self, token: int) -> None:
        """What came next, be it the token that ends the answer."""
        if len(self._lead) == _LEAD:
            self._behind[self._lead] = len(self._said)
        self._said.append(token)
        self._lead = (*self._lead, token)[-_LEAD:]

    def learn(self) -> None:
        """The answer has ended, and later ones may be like it."""
        self._phrases.learn(self._key, [*self._prompt[-_LEAD:], *self._said])

    def _again(self, most: int) -> Sequence[int]:
        """What followed the latest tokens in this talk before."""
        if self._lead in self._behind:
            place = self._behind[self._lead]
            return self._said[place : place + most]
        one, two, three = self._lead
        given = self._given
        found = np.flatnonzero((given[:-3] == one) & (given[1:-2] == two) & (given[2:-1] == three))
        if not len(found):
            return ()
        place = found[-1] + _LEAD
        return (*self._prompt[place : place + most], *self._said[:most])[:most]

    @cached_property
    def _given(self) -> Ints:
        """The prompt, to be looked through at once, and by those alone who guess."""
        return np.array(self._prompt)
