"""Keys and values of sequences that decode together, on shelves: each padded to its own longest in every layer.

Shapes: S places, B sequences in a step, N tokens of theirs, T of one at most, H query heads, G key-value heads,
M cached positions, D head size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor

from metier.inference.beginnings import Beginning
from metier.inference.parts import Part
from metier.inference.reading import Reading
from metier.kernels.blocks import fused_attention_batch
from metier.kernels.reference import Scoring, masked_attention

_SHORT = 256  # positions that one of the first shelf comes to at most; each further shelf has four times as many
_GROWTH = 64  # positions by which a cache grows, and a multiple of which it is read
_PLACES = 16  # sequences by which it grows; to the next power of two as long as there are fewer


def shelf_number(most: int) -> int:
    """Of the shelf on which a sequence lies that may come to so many positions."""
    return (((most - 1) // _SHORT).bit_length() + 1) // 2


def held(mosts: Iterable[int]) -> int:
    """Positions that shelves take for sequences of which each may come to so many."""
    alike = defaultdict[int, list[int]](list)
    for most in mosts:
        alike[shelf_number(most)].append(most)
    return sum(_places(len(each)) * _span(max(each)) for each in alike.values())


def _places(sequences: int) -> int:
    return 1 << (sequences - 1).bit_length() if sequences < _PLACES else -(-sequences // _PLACES) * _PLACES


def _span(positions: int) -> int:
    return -(-positions // _GROWTH) * _GROWTH


class Shelf:
    """Sequences in dense places 0 … n - 1."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._keys: dict[int, Tensor] = {}  # layer -> [S, G, M, D]
        self._values: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    def put(self, reading: Reading, numbers: Sequence[int]) -> range:
        """What was read for these prompts into the next free places, which are returned."""
        for layer, seen in reading.seen.items():
            for cache, new in zip((self._keys, self._values), seen, strict=True):
                if layer not in cache:
                    cache[layer] = new.new_zeros((0, new.shape[1], 0, new.shape[3]))
        places = range(len(self), len(self) + len(numbers))
        self._lengths += [len(reading.prompts[number].tokens) for number in numbers]
        self._resize()
        for place, number in zip(places, numbers, strict=True):
            prompt, path = reading.prompts[number], reading.path(number)
            for layer, seen in reading.seen.items():
                for cache, new in zip((self._keys, self._values), seen, strict=True):
                    cache[layer][place, :, prompt.known : len(prompt.tokens)] = new[0][:, path]
            if prompt.past:
                self._resume(place, prompt.past, prompt.known)
        return places

    def _resume(self, place: int, past: Beginning, known: int) -> None:
        for cache, kept in ((self._keys, past.keys), (self._values, past.values)):
            for layer, rows in kept.items():
                cache[layer][place, :, :known] = rows[:, :known]

    def step(self, places: Sequence[int], tokens: Sequence[Sequence[int]], adapters: Sequence[str]) -> Part:
        """Some tokens more of each of these sequences."""
        begins = [self._lengths[place] for place in places]
        for place, own in zip(places, tokens, strict=True):
            self._lengths[place] += len(own)
        self._resize()
        attention = _Step(self._keys, self._values, places, begins, [*map(len, tokens)])
        adapters = [adapter for adapter, own in zip(adapters, tokens, strict=True) for _ in own]
        return Part([*chain(*tokens)], attention.positions, adapters, range(len(adapters)), attention)

    def rewind(self, place: int, tokens: int) -> None:
        """Forget the last so many: what lies there is seen by nobody, and the next are written over it."""
        self._lengths[place] -= tokens

    def beginning(self, place: int, tokens: Sequence[int]) -> Beginning:
        """A copy of what is there, which is these tokens or their beginning."""
        length = self._lengths[place]
        keys, values = (
            {layer: rows[place, :, :length].clone() for layer, rows in cache.items()}
            for cache in (self._keys, self._values)
        )
        return Beginning(tuple(tokens[:length]), keys, values)

    def release(self, place: int) -> None:
        """Forget a sequence; the last one moves into its place.

        Nothing is left behind it: what nobody sees counts 0 times, and 0 times what is no number would be none.
        """
        length = self._lengths[place] = self._lengths[-1]
        self._lengths.pop()
        for cache in (self._keys, self._values):
            for rows in cache.values():
                rows[place, :, :length] = rows[len(self), :, :length]
                rows[place, :, length:] = 0
                rows[len(self)] = 0
        self._resize()

    def _resize(self) -> None:
        """Make every layer's cache hold all; one that is too small, or twice too large, is taken anew."""
        most = max(self._lengths, default=0)
        places, span = _places(len(self)), _span(most)
        for cache in (self._keys, self._values):
            for layer, rows in cache.items():
                large = rows.shape[0] * rows.shape[2] > 2 * places * span
                if rows.shape[0] >= len(self) and rows.shape[2] >= most and not large:
                    continue
                anew = rows.new_zeros((places, rows.shape[1], span, rows.shape[3]))
                kept = slice(min(places, rows.shape[0])), slice(None), slice(min(span, rows.shape[2]))
                anew[kept] = rows[kept]
                cache[layer] = anew


class _Step:
    """Some new tokens a sequence, [1, H, N, D], attend to that sequence's own past and to one another."""

    def __init__(
        self,
        keys: dict[int, Tensor],
        values: dict[int, Tensor],
        places: Sequence[int],
        begins: Sequence[int],
        counts: Sequence[int],
    ) -> None:
        """`counts` tokens of the sequences in `places`, which hold `begins` positions already."""
        device = next(iter(keys.values())).device
        self._keys, self._values = keys, values
        nodes = [(row, node) for row, count in enumerate(counts) for node in range(count)]
        self.positions = [begins[row] + node for row, node in nodes]
        self._places = torch.tensor(places, device=device)
        self._rows, self._nodes = torch.tensor(nodes, device=device).T
        self._at = self._places[self._rows], torch.tensor(self.positions, device=device)
        self._masks: dict[int | None, tuple[Tensor, Tensor]] = {}
        self._dense = [*places] == [*range(len(places))]
        self._most = max(counts)
        # Rounded up: on a CPU a bfloat16 kernel is compiled, and kept, for every span.
        self._span = _span(max(self.positions) + 1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        keys, values = self._past(self._keys[layer], k), self._past(self._values[layer], v)
        query, (seen, bias) = self._apart(q), self._seen(scoring.window)
        if scoring.plain:
            return self._together(fused_attention_batch(query, keys, values, bias, scoring.scale))
        return self._together(masked_attention(query, keys, values, seen, scoring))

    def _apart(self, q: Tensor) -> Tensor:
        """Each sequence's own queries, [B, H, T, D], filled up to the most of one."""
        if self._most == 1:
            return q.transpose(0, 2)
        apart = q.new_zeros((len(self._places), q.shape[1], self._most, q.shape[3]))
        apart[self._rows, :, self._nodes] = q[0].transpose(0, 1)
        return apart

    def _together(self, outputs: Tensor) -> Tensor:
        """The other way round, [1, H, N, D]."""
        if self._most == 1:
            return outputs.transpose(0, 2)
        return outputs[self._rows, :, self._nodes].transpose(0, 1)[None]

    def _past(self, cache: Tensor, new: Tensor) -> Tensor:
        """Every sequence's own, [B, G, M, D], with what is new [1, G, N, D]."""
        places, positions = self._at
        cache[places, :, positions] = new[0].transpose(0, 1)
        rows = cache[: len(self._places)] if self._dense else cache[self._places]
        return rows[:, :, : self._span]

    def _seen(self, window: int | None) -> tuple[Tensor, Tensor]:
        """Which cached positions each token sees, [B, 1, T, M], and what is added to its scores for it, in float32:
        the same in all layers of a window."""
        if window not in self._masks:
            own_BT1 = self._rows.new_zeros((len(self._places), self._most, 1))  # what fills up sees the first
            own_BT1[self._rows, self._nodes, 0] = self._at[1]
            place = torch.arange(self._span, device=own_BT1.device)
            seen = place <= own_BT1
            if window is not None:
                seen &= own_BT1 - place < window
            bias = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, float("-inf"))
            self._masks[window] = seen[:, None], bias[:, None]
        return self._masks[window]
