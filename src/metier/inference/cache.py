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
from metier.kernels.blocks import fused_attention_batch
from metier.kernels.reference import Scoring, masked_attention
from metier.model.adapters import behind_prompt
from metier.model.bank import Bank
from metier.model.forward import Attention, Forward, TreeAttention
from metier.trees import Example, pack

_GROWTH = 64  # positions by which a cache grows, and a multiple of which it is read


class Decoder(Protocol):
    """Keeps up to some number of sequences in dense slots 0 … n - 1, each through its own adapter."""

    def admit(self, prompts: Sequence[Sequence[int]], adapter: str = "") -> Tensor:
        """Read prompts into the next free slots; logits behind each, [len(prompts), V]."""
        ...

    def resume(self, beginning: Beginning, length: int, prompt: Sequence[int], adapter: str) -> Tensor:
        """Read a prompt whose first `length` tokens were read before into the next free slot; logits, [1, V]."""
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

    def admit(self, prompts: Sequence[Sequence[int]], adapter: str = "") -> Tensor:
        rows = [Example(tuple(prompt), (0.0,) * len(prompt)) for prompt in prompts]
        first = len(self._lengths)
        self._lengths += [len(prompt) for prompt in prompts]
        logits: dict[int, Tensor] = {}
        for tree in pack(rows, sum(map(len, prompts)), boundary=self._boundary):
            capture = _Capture()
            ends, place = torch.unique(torch.as_tensor(tree.row_end), return_inverse=True)
            with _passing(self._bank, [adapter]):
                behind = self._forward.logits(tree, ends, capture.around)
            for number, row in enumerate(tree.rows.tolist()):
                logits[row] = behind[place[number]]
                self._fill(first + row, torch.as_tensor(tree.path(number)), capture)
        return torch.stack([logits[row] for row in range(len(prompts))])

    def resume(self, beginning: Beginning, length: int, prompt: Sequence[int], adapter: str) -> Tensor:
        attention = _Behind(beginning, length, len(prompt) - length)
        slot = len(self._lengths)
        self._lengths.append(len(prompt))
        with _passing(self._bank, [adapter]):
            logits = self._run([prompt[length:]], attention.positions[None], attention)
        self._reserve(len(prompt), slots=slot + 1)
        for layer, seen in attention.seen.items():
            for cache, past, new in zip(
                (self._keys, self._values), (beginning.keys, beginning.values), seen, strict=True
            ):
                cache[layer][slot, :, :length] = past[layer][:, :length]
                cache[layer][slot, :, length : len(prompt)] = new[0]
        return logits

    def advance(self, slots: Sequence[int], tokens: Sequence[int], adapters: Sequence[str] = ()) -> Tensor:
        attention = _Step(self._keys, self._values, torch.tensor(slots), [self._lengths[slot] for slot in slots])
        self._reserve(max(self._lengths[slot] for slot in slots) + 1)
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
                rows[slot] = rows[last]
        self._lengths[slot] = self._lengths[last]
        self._lengths.pop()

    def _fill(self, slot: int, path: Tensor, capture: _Capture) -> None:
        for layer, (key, value) in capture.seen.items():
            for cache, source in ((self._keys, key), (self._values, value)):
                if layer not in cache:
                    cache[layer] = source.new_zeros((0, source.shape[1], 0, source.shape[3]))
        self._reserve(len(path), slots=len(self._lengths))  # of all that were admitted with it, or each would copy all
        for layer, (key, value) in capture.seen.items():
            self._keys[layer][slot, :, : len(path)] = key[0][:, path]
            self._values[layer][slot, :, : len(path)] = value[0][:, path]

    def _reserve(self, positions: int, slots: int = 0) -> None:
        """Grow every layer's cache to hold that many positions and slots."""
        for cache in (self._keys, self._values):
            for layer, rows in cache.items():
                more = max(0, positions - rows.shape[2])
                extra = max(0, slots - rows.shape[0])
                if more or extra:
                    held = rows.shape[2] + -(-more // _GROWTH) * _GROWTH
                    grown = rows.new_zeros((rows.shape[0] + extra, rows.shape[1], held, rows.shape[3]))
                    grown[: rows.shape[0], :, : rows.shape[2]] = rows
                    cache[layer] = grown


class _Capture:
    """Tree attention that also keeps every layer's keys and values, [1, G, T, D]."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def around(self, attention: TreeAttention) -> _Capture:
        self._attention = attention
        return self

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        self.seen[layer] = (k, v)
        return self._attention.attend(layer, q, k, v, scoring)


class _Step:
    """One new token a sequence attends to its own past, [B, H, 1, D]."""

    def __init__(self, keys: dict[int, Tensor], values: dict[int, Tensor], slots: Tensor, lengths: list[int]) -> None:
        self._keys, self._values, self._slots = keys, values, slots
        self._dense = slots.tolist() == list(range(len(slots)))
        self.positions = torch.tensor(lengths)
        # Rounded up: on a CPU a bfloat16 kernel is compiled, and kept, for every span.
        self._span = -(-(max(lengths) + 1) // _GROWTH) * _GROWTH

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        slots, positions = self._slots.to(q.device), self.positions.to(q.device)
        past = []
        for cache, new in ((self._keys[layer], k), (self._values[layer], v)):
            cache[slots, :, positions] = new[:, :, 0]
            rows = cache[: len(slots)] if self._dense else cache[slots]
            past.append(rows[:, :, : self._span])
        place = torch.arange(self._span, device=q.device)
        seen = place <= positions[:, None]
        if scoring.window is not None:
            seen &= positions[:, None] - place < scoring.window
        mask = seen[:, None, None]
        if scoring.plain:
            return fused_attention_batch(q, past[0], past[1], mask, scoring.scale)
        return masked_attention(q, past[0], past[1], mask, scoring)


class _Behind:
    """New tokens of one sequence attend to what was read before and, causally, to themselves, [1, H, T, D]."""

    def __init__(self, past: Beginning, length: int, new: int) -> None:
        self._past, self._length = past, length
        self.positions = torch.arange(length, length + new)
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        self.seen[layer] = (k, v)
        behind = [
            torch.cat([past[layer][None, :, : self._length], new], dim=2)
            for past, new in ((self._past.keys, k), (self._past.values, v))
        ]
        positions = self.positions.to(q.device)[:, None]
        place = torch.arange(behind[0].shape[2], device=q.device)
        seen = place <= positions
        if scoring.window is not None:
            seen &= positions - place < scoring.window
        if scoring.plain:
            return fused_attention_batch(q, behind[0], behind[1], seen[None, None], scoring.scale)
        return masked_attention(q, behind[0], behind[1], seen[None, None], scoring)


class AloneDecoder:
    """For models that cannot fork: every sequence by itself, with the cache that transformers gives it."""

    def __init__(self, forward: Forward, bank: Bank | None = None) -> None:
        self._forward = forward
        self._bank = bank
        self._pasts: list[Any] = []

    def admit(self, prompts: Sequence[Sequence[int]], adapter: str = "") -> Tensor:
        self._pasts += [None] * len(prompts)
        first = len(self._pasts) - len(prompts)
        return torch.stack([self._run(first + index, prompt, adapter) for index, prompt in enumerate(prompts)])

    def resume(self, beginning: Beginning, length: int, prompt: Sequence[int], adapter: str) -> Tensor:
        raise NotImplementedError("no beginning is kept of such a model")

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


def _passing(bank: Bank | None, adapters: Sequence[str]) -> AbstractContextManager[None]:
    return bank.passing(adapters) if bank else nullcontext()
