"""Where decoding keeps what was read: all sequences side by side, or each in the vendor's own cache.

Shapes: N prompts, and tokens of others, in a step, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from metier.inference.beginnings import Beginning
from metier.inference.parts import Beside, Part, idle
from metier.inference.reading import Prompt, Reading
from metier.inference.shelves import Shelf, shelf_number
from metier.model.adapters import behind_prompt
from metier.model.bank import Bank
from metier.model.forward import Forward

_FINE = 16  # to a multiple of it lengths are filled up at most: a kernel is made in 10 ms and takes 4 MB, a node 2 ms


@dataclass(frozen=True)
class Next:
    """The token behind what was read in a slot, through its sequence's adapter, and what is guessed behind it."""

    slot: int
    tokens: tuple[int, ...]
    adapter: str = ""


class Decoder(Protocol):
    """Keeps up to some number of sequences in dense slots 0 … n - 1, each through its own adapter."""

    def step(self, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> tuple[list[int], Tensor]:
        """Read prompts into the next free slots, and some tokens more of others.

        Returns whose slot each prompt and each token is, and logits [N, V] behind them.
        """
        ...

    def rewind(self, slot: int, tokens: int) -> None:
        """Forget the last so many tokens that were read in a slot."""
        ...

    def beginning(self, slot: int, tokens: Sequence[int]) -> Beginning | None:
        """A copy of what was read in a slot, which is these tokens or their beginning; None where it is not kept."""
        ...

    def release(self, slot: int) -> None:
        """Forget a sequence; the last slot moves into its place."""
        ...


def decoder(forward: Forward, bank: Bank | None = None) -> Decoder:
    return TreeDecoder(forward, bank) if forward.forks else AloneDecoder(forward, bank)


@dataclass
class _Row:
    """Where a sequence lies."""

    shelf: Shelf
    place: int


class TreeDecoder:
    """One forward: prompts are a token tree, shared prefixes once, and beside it all others step, shelf by shelf."""

    def __init__(self, forward: Forward, bank: Bank | None = None) -> None:
        self._forward = forward
        self._bank = bank
        self._rows: list[_Row] = []
        self._shelves: dict[int, Shelf] = {}

    def step(self, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> tuple[list[int], Tensor]:
        slots, parts = self._stepping(tokens)
        if not prompts:
            return slots, self._run(parts)
        reading = Reading(prompts, self._forward.attention)
        logits = self._run(self._filled([reading.part, *parts]))
        fresh = range(len(self._rows), len(self._rows) + len(prompts))
        self._keep(reading)
        return [*fresh, *slots], logits

    def _stepping(self, tokens: Sequence[Next]) -> tuple[list[int], list[Part]]:
        """A part of each shelf, with the slots in their order."""
        slots, parts = list[int](), list[Part]()
        for shelf in self._shelves.values():
            own = sorted((self._rows[each.slot].place, each) for each in tokens if self._rows[each.slot].shelf is shelf)
            if own:
                slots += [each.slot for _, each in own for _ in each.tokens]
                places, given = [place for place, _ in own], [each.tokens for _, each in own]
                parts.append(shelf.step(places, given, [each.adapter for _, each in own]))
        return slots, parts

    def _filled(self, parts: Sequence[Part]) -> Sequence[Part]:
        """A forward in which something is read, filled up: of other lengths there are as many as sequences."""
        more = -sum(len(part.tokens) for part in parts) % min(self._forward.multiple, _FINE)
        return [*parts, idle(more, parts[-1].adapters[-1])] if more else parts

    def _run(self, parts: Sequence[Part]) -> Tensor:
        beside = Beside(parts)
        ends = torch.tensor(beside.ends)
        with _passing(self._bank, beside.adapters, ends):
            return self._forward.run(beside.tokens, beside.positions, ends, beside)

    def _keep(self, reading: Reading) -> None:
        """What was read, each on its shelf."""
        rows = dict[int, _Row]()
        shelves = [shelf_number(prompt.most) for prompt in reading.prompts]
        for each in {*shelves}:
            shelf = self._shelves.setdefault(each, Shelf())
            own = [place for place, found in enumerate(shelves) if found == each]
            rows |= {prompt: _Row(shelf, place) for prompt, place in zip(own, shelf.put(reading, own), strict=True)}
        self._rows += [rows[prompt] for prompt in range(len(rows))]

    def rewind(self, slot: int, tokens: int) -> None:
        row = self._rows[slot]
        row.shelf.rewind(row.place, tokens)

    def beginning(self, slot: int, tokens: Sequence[int]) -> Beginning:
        row = self._rows[slot]
        return row.shelf.beginning(row.place, tokens)

    def release(self, slot: int) -> None:
        gone, self._rows[slot] = self._rows[slot], self._rows[-1]
        self._rows.pop()
        gone.shelf.release(gone.place)
        for row in self._rows:
            if row.shelf is gone.shelf and row.place == len(row.shelf):
                row.place = gone.place
        self._shelves = {each: shelf for each, shelf in self._shelves.items() if len(shelf)}


class AloneDecoder:
    """For models that cannot fork: every sequence by itself, with the cache that transformers gives it.

    Nothing is guessed there: a recurrent state cannot be taken back.
    """

    def __init__(self, forward: Forward, bank: Bank | None = None) -> None:
        self._forward = forward
        self._bank = bank
        self._pasts: list[Any] = []

    def step(self, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> tuple[list[int], Tensor]:
        first = len(self._pasts)
        self._pasts += [None] * len(prompts)
        asked = [(first + place, each.tokens, each.adapter) for place, each in enumerate(prompts)]
        asked += [(each.slot, each.tokens, each.adapter) for each in tokens]
        return [slot for slot, _, _ in asked], torch.stack([self._run(*each) for each in asked])

    def rewind(self, slot: int, tokens: int) -> None:
        raise NotImplementedError

    def beginning(self, slot: int, tokens: Sequence[int]) -> None:
        return None

    def release(self, slot: int) -> None:
        self._pasts[slot] = self._pasts[-1]
        self._pasts.pop()

    def _run(self, slot: int, tokens: Sequence[int], adapter: str) -> Tensor:
        past = {} if self._pasts[slot] is None else self._pasts[slot]
        # Behind a past that holds an adapter's virtual tokens, the network that they stand in front of goes on.
        network = behind_prompt(self._forward.network) if past else self._forward.network
        with _passing(self._bank, [adapter]):
            output = network(input_ids=torch.tensor([[*tokens]], device=self._forward.device), use_cache=True, **past)
        # Attention models hand on `past_key_values`, recurrent ones `cache_params`.
        names = ("past_key_values", "cache_params")
        self._pasts[slot] = {name: output[name] for name in names if output.get(name) is not None}
        logits: Tensor = output.logits[0, -1]
        return logits


def _passing(bank: Bank | None, adapters: Sequence[str], asked: Tensor | None = None) -> AbstractContextManager[None]:
    return bank.passing(adapters, asked) if bank else nullcontext()
