"""Where decoding keeps keys and values: all sequences in one padded cache, or each in the vendor's own.

Shapes: S slots, B sequences in a step, H query heads, G key-value heads, M cached positions, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from metier.inference.beginnings import Beginning
from metier.inference.reading import Prompt, Reading
from metier.kernels.blocks import fused_attention_batch
from metier.kernels.reference import Scoring, masked_attention
from metier.model.adapters import behind_prompt
from metier.model.bank import Bank
from metier.model.forward import Attention, Forward

_GROWTH = 64  # positions by which a cache grows, and a multiple of which it is read
_PLACES = 16  # slots by which it grows; to the next power of two as long as there are fewer


def held(slots: int, positions: int) -> int:
    """Positions that a cache takes for so many slots of at most so many positions."""
    return _places(slots) * _span(positions)


def _places(slots: int) -> int:
    return 1 << (slots - 1).bit_length() if slots < _PLACES else -(-slots // _PLACES) * _PLACES


def _span(positions: int) -> int:
    return -(-positions // _GROWTH) * _GROWTH


class Decoder(Protocol):
    """Keeps up to some number of sequences in dense slots 0 … n - 1, each through its own adapter."""

    def admit(self, prompts: Sequence[Prompt]) -> Tensor:
        """Read prompts into the next free slots; logits behind each, [len(prompts), V]."""
        ...

    def advance(self, slots: Sequence[int], tokens: Sequence[int], adapters: Sequence[str] = ()) -> Tensor:
        """Append one token to each of these slots; logits behind each, [len(slots), V]."""
        ...

    def beginning(self, slot: int, tokens: Sequence[int]) -> Beginning | None:
        """A copy of what was read in a slot, which is these tokens or their beginning; None where it is not kept."""
        ...

    def release(self, slot: int) -> None:
        """Forget a sequence; the last slot moves into its place."""
        ...


def decoder(forward: Forward, boundary: int | None, bank: Bank | None = None) -> Decoder:
    return TreeDecoder(forward, boundary, bank) if forward.forks else AloneDecoder(forward, bank)


class TreeDecoder:
    """Prompts are read as a token tree, shared prefixes once; then all sequences step together."""

    def __init__(self, forward: Forward, boundary: int | None, bank: Bank | None = None) -> None:
        self._forward = forward
        self._boundary = boundary
        self._bank = bank
        self._lengths: list[int] = []
        self._keys: dict[int, Tensor] = {}  # layer -> [S, G, M, D]
        self._values: dict[int, Tensor] = {}

    def admit(self, prompts: Sequence[Prompt]) -> Tensor:
        first = len(self._lengths)
        self._lengths += [len(each.tokens) for each in prompts]
        logits: dict[int, Tensor] = {}
        for side in self._sides(prompts):
            reading = Reading([prompts[place] for place in side])
            behind = self._read(reading, [first + place for place in side])
            logits |= dict(zip(side, behind, strict=True))
        return torch.stack([logits[place] for place in range(len(prompts))])

    def _sides(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Numbers of those that may be read together: LongRoPE picks its factors by the longest position of all."""
        long = [self._boundary is not None and len(each.tokens) > self._boundary for each in prompts]
        sides = [[place for place, found in enumerate(long) if found == side] for side in (False, True)]
        return [side for side in sides if side]

    def _read(self, reading: Reading, slots: Sequence[int]) -> Tensor:
        """Logits behind each prompt, whose keys and values are then in its slot."""
        tree, ends = self._forward.padded(reading.tree, reading.ends)
        more = len(tree) - len(reading.tree)
        with _passing(self._bank, [*reading.adapters, *reading.adapters[-1:] * more], ends):
            behind = self._forward.logits(tree, ends, reading.around)
        self._fill(reading, slots)
        return reading.behind_each(behind)

    def advance(self, slots: Sequence[int], tokens: Sequence[int], adapters: Sequence[str] = ()) -> Tensor:
        attention = _Step(self._keys, self._values, torch.tensor(slots), [self._lengths[slot] for slot in slots])
        self._reserve(max(self._lengths) + 1, len(self._lengths))
        with _passing(self._bank, adapters):
            logits = self._run([[token] for token in tokens], attention.positions[:, None], attention)
        for slot in slots:
            self._lengths[slot] += 1
        return logits

    def beginning(self, slot: int, tokens: Sequence[int]) -> Beginning:
        length = self._lengths[slot]
        keys, values = (
            {layer: rows[slot, :, :length].clone() for layer, rows in cache.items()}
            for cache in (self._keys, self._values)
        )
        return Beginning(tuple(tokens[:length]), keys, values)

    def _run(self, tokens_BT: Sequence[Sequence[int]], positions_BT: Tensor, attention: Attention) -> Tensor:
        device = self._forward.device
        output = self._forward.network(
            input_ids=torch.tensor(tokens_BT, device=device),
            position_ids=positions_BT.to(device),
            logits_to_keep=1,
            use_cache=False,
            tree=attention,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def release(self, slot: int) -> None:
        last = len(self._lengths) - 1
        for cache in (self._keys, self._values):
            for rows in cache.values():
                rows[slot, :, : self._lengths[last]] = rows[last, :, : self._lengths[last]]
        self._lengths[slot] = self._lengths[last]
        self._lengths.pop()

    def _fill(self, reading: Reading, slots: Sequence[int]) -> None:
        for layer, seen in reading.seen.items():
            for cache, new in zip((self._keys, self._values), seen, strict=True):
                if layer not in cache:
                    cache[layer] = new.new_zeros((0, new.shape[1], 0, new.shape[3]))
        self._reserve(max(self._lengths), len(self._lengths))
        for number, path in reading.paths():
            slot, prompt = slots[number], reading.prompts[number]
            for layer, seen in reading.seen.items():
                for cache, new in zip((self._keys, self._values), seen, strict=True):
                    cache[layer][slot, :, prompt.known : len(prompt.tokens)] = new[0][:, path]
            if prompt.past:
                self._resume(slot, prompt.past, prompt.known)

    def _resume(self, slot: int, past: Beginning, known: int) -> None:
        for cache, kept in ((self._keys, past.keys), (self._values, past.values)):
            for layer, rows in kept.items():
                cache[layer][slot, :, :known] = rows[:, :known]

    def _reserve(self, positions: int, slots: int) -> None:
        """Make every layer's cache hold that many positions and slots; one that grows lets go of what nobody needs."""
        for cache in (self._keys, self._values):
            for layer, rows in cache.items():
                if rows.shape[0] >= slots and rows.shape[2] >= positions:
                    continue
                places, span = _places(slots), _span(positions)
                grown = rows.new_zeros((places, rows.shape[1], span, rows.shape[3]))
                kept = slice(min(places, rows.shape[0])), slice(None), slice(min(span, rows.shape[2]))
                grown[kept] = rows[kept]
                cache[layer] = grown


class _Step:
    """One new token a sequence attends to its own past, [B, H, 1, D]."""

    def __init__(self, keys: dict[int, Tensor], values: dict[int, Tensor], slots: Tensor, lengths: list[int]) -> None:
        self._keys, self._values, self._slots = keys, values, slots
        self._masks: dict[int | None, Tensor] = {}
        self._dense = slots.tolist() == list(range(len(slots)))
        self.positions = torch.tensor(lengths)
        # Rounded up: on a CPU a bfloat16 kernel is compiled, and kept, for every span.
        self._span = _span(max(lengths) + 1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        slots, positions = self._slots.to(q.device), self.positions.to(q.device)
        past = []
        for cache, new in ((self._keys[layer], k), (self._values[layer], v)):
            cache[slots, :, positions] = new[:, :, 0]
            rows = cache[: len(slots)] if self._dense else cache[slots]
            past.append(rows[:, :, : self._span])
        mask = self._seen(positions, scoring.window)
        if scoring.plain:
            return fused_attention_batch(q, past[0], past[1], mask, scoring.scale)
        return masked_attention(q, past[0], past[1], mask, scoring)

    def _seen(self, positions: Tensor, window: int | None) -> Tensor:
        """Which cached positions each sequence sees, [B, 1, 1, M]: the same in all layers of a window."""
        if window not in self._masks:
            place = torch.arange(self._span, device=positions.device)
            seen = place <= positions[:, None]
            if window is not None:
                seen &= positions[:, None] - place < window
            self._masks[window] = seen[:, None, None]
        return self._masks[window]


class AloneDecoder:
    """For models that cannot fork: every sequence by itself, with the cache that transformers gives it."""

    def __init__(self, forward: Forward, bank: Bank | None = None) -> None:
        self._forward = forward
        self._bank = bank
        self._pasts: list[Any] = []

    def admit(self, prompts: Sequence[Prompt]) -> Tensor:
        first = len(self._pasts)
        self._pasts += [None] * len(prompts)
        return torch.stack([self._run(first + n, each.tokens, each.adapter) for n, each in enumerate(prompts)])

    def advance(self, slots: Sequence[int], tokens: Sequence[int], adapters: Sequence[str] = ()) -> Tensor:
        each = zip(slots, tokens, adapters or [""] * len(slots), strict=True)
        return torch.stack([self._run(slot, [token], adapter) for slot, token, adapter in each])

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
