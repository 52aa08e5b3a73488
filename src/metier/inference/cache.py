"""Where decoding keeps what was read: all sequences side by side, or each in the vendor's own cache.

Shapes: N prompts and sequences in a step, V vocabulary.
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
from metier.inference.shelves import Shelf
from metier.model.adapters import behind_prompt
from metier.model.bank import Bank
from metier.model.forward import Forward

_FINE = 16  # to a multiple of it lengths are filled up at most: a kernel is made in 10 ms and takes 4 MB, a node 2 ms


@dataclass(frozen=True)
class Next:
    """The token behind what was read in a slot, through its sequence's adapter."""

    slot: int
    token: int
    adapter: str = ""


class Decoder(Protocol):
    """Keeps up to some number of sequences in dense slots 0 … n - 1, each through its own adapter."""

    def step(self, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> Tensor:
        """Read prompts into the next free slots, and one token more of others.

        Logits [N, V] behind each prompt, then behind each token.
        """
        ...

    def beginning(self, slot: int, tokens: Sequence[int]) -> Beginning | None:
        """A copy of what was read in a slot, which is these tokens or their beginning; None where it is not kept."""
        ...

    def release(self, slot: int) -> None:
        """Forget a sequence; the last slot moves into its place."""
        ...


def decoder(forward: Forward, bank: Bank | None = None) -> Decoder:
    return TreeDecoder(forward, bank) if forward.forks else AloneDecoder(forward, bank)


class TreeDecoder:
    """One forward: prompts are a token tree, shared prefixes once, and all other sequences step beside it."""

    def __init__(self, forward: Forward, bank: Bank | None = None) -> None:
        self._forward = forward
        self._bank = bank
        self._shelf = Shelf()

    def step(self, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> Tensor:
        stepping = [self._stepping(tokens)] if tokens else []
        if not prompts:
            return self._run(stepping)
        reading = Reading(prompts, self._forward.attention)
        logits = self._run([reading.part, *stepping, *self._filling(reading.part, *stepping)])
        self._shelf.put(reading)
        return logits

    def _stepping(self, tokens: Sequence[Next]) -> Part:
        slots, each, adapters = zip(*((one.slot, one.token, one.adapter) for one in tokens), strict=True)
        return self._shelf.step(slots, each, adapters)

    def _filling(self, *parts: Part) -> list[Part]:
        """What fills up a forward in which something is read: of other lengths there are as many as sequences."""
        more = -sum(len(part.tokens) for part in parts) % min(self._forward.multiple, _FINE)
        return [idle(more, parts[-1].adapters[-1])] if more else []

    def _run(self, parts: Sequence[Part]) -> Tensor:
        beside = Beside(parts)
        ends = torch.tensor(beside.ends)
        with _passing(self._bank, beside.adapters, ends):
            return self._forward.run(beside.tokens, beside.positions, ends, beside)

    def beginning(self, slot: int, tokens: Sequence[int]) -> Beginning:
        return self._shelf.beginning(slot, tokens)

    def release(self, slot: int) -> None:
        self._shelf.release(slot)


class AloneDecoder:
    """For models that cannot fork: every sequence by itself, with the cache that transformers gives it."""

    def __init__(self, forward: Forward, bank: Bank | None = None) -> None:
        self._forward = forward
        self._bank = bank
        self._pasts: list[Any] = []

    def step(self, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> Tensor:
        first = len(self._pasts)
        self._pasts += [None] * len(prompts)
        read = [self._run(first + number, each.tokens, each.adapter) for number, each in enumerate(prompts)]
        return torch.stack([*read, *(self._run(each.slot, [each.token], each.adapter) for each in tokens)])

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
