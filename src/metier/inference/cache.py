"""Where decoding keeps keys and values: all sequences in one padded cache, or each in the vendor's own.

Shapes: S slots, B sequences in a step, H query heads, G key-value heads, M cached positions, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from metier.kernels.blocks import fused_attention_batch
from metier.kernels.reference import Scoring, masked_attention
from metier.model.adapters import behind_prompt
from metier.model.forward import Forward, TreeAttention
from metier.trees import Example, pack

_GROWTH = 64  # positions by which a cache grows, and a multiple of which it is read


class Decoder(Protocol):
    """Keeps up to some number of sequences in dense slots 0 … n - 1."""

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read prompts into the next free slots; logits behind each, [len(prompts), V]."""
        ...

    def advance(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Append one token to each of these slots; logits behind each, [len(slots), V]."""
        ...

    def release(self, slot: int) -> None:
        """Forget a sequence; the last slot moves into its place."""
        ...


def decoder(forward: Forward, boundary: int | None) -> Decoder:
    return TreeDecoder(forward, boundary) if forward.forks else AloneDecoder(forward)


class TreeDecoder:
    """Prompts are read as a token tree, shared prefixes once; then all sequences step together."""

    def __init__(self, forward: Forward, boundary: int | None) -> None:
        self._forward = forward
        self._boundary = boundary
        self._lengths: list[int] = []
        self._keys: dict[int, Tensor] = {}  # layer -> [S, G, M, D]
        self._values: dict[int, Tensor] = {}

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        rows = [Example(tuple(prompt), (0.0,) * len(prompt)) for prompt in prompts]
        first = len(self._lengths)
        self._lengths += [len(prompt) for prompt in prompts]
        logits: dict[int, Tensor] = {}
        for tree in pack(rows, sum(map(len, prompts)), boundary=self._boundary):
            capture = _Capture()
            ends, place = torch.unique(torch.as_tensor(tree.row_end), return_inverse=True)
            behind = self._forward.logits(tree, ends, capture.around)
            for number, row in enumerate(tree.rows.tolist()):
                logits[row] = behind[place[number]]
                self._fill(first + row, torch.as_tensor(tree.path(number)), capture)
        return torch.stack([logits[row] for row in range(len(prompts))])

    def advance(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        attention = _Step(self._keys, self._values, torch.tensor(slots), [self._lengths[slot] for slot in slots])
        self._reserve(max(self._lengths[slot] for slot in slots) + 1)
        output = self._forward.network(
            input_ids=torch.tensor(tokens, device=self._forward.device)[:, None],
            position_ids=attention.positions.to(self._forward.device)[:, None],
            use_cache=False,
            tree=attention,
        )
        for slot in slots:
            self._lengths[slot] += 1
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
        self._reserve(len(path), slots=slot + 1)
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


class AloneDecoder:
    """For models that cannot fork: every sequence by itself, with the cache that transformers gives it."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._pasts: list[Any] = []

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self._pasts += [None] * len(prompts)
        first = len(self._pasts) - len(prompts)
        return torch.stack([self._run(first + index, prompt) for index, prompt in enumerate(prompts)])

    def advance(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        return torch.stack([self._run(slot, [token]) for slot, token in zip(slots, tokens, strict=True)])

    def release(self, slot: int) -> None:
        self._pasts[slot] = self._pasts[-1]
        self._pasts.pop()

    def _run(self, slot: int, tokens: Sequence[int]) -> Tensor:
        past = {} if self._pasts[slot] is None else self._pasts[slot]
        # Behind a past that holds an adapter's virtual tokens, the network that they stand in front of goes on.
        network = behind_prompt(self._forward.network) if past else self._forward.network
        output = network(input_ids=torch.tensor([list(tokens)], device=self._forward.device), use_cache=True, **past)
        # Attention models hand on `past_key_values`, recurrent ones `cache_params`.
        names = ("past_key_values", "cache_params")
        self._pasts[slot] = {name: output[name] for name in names if output.get(name) is not None}
        logits: Tensor = output.logits[0, -1]
        return logits
