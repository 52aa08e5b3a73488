"""Prompts of many requests in one forward: what is whose is read apart, and goes on from what was read before.

Shapes: T nodes, H query heads, G key-value heads, M keys, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from metier.inference.beginnings import Beginning, Key
from metier.inference.parts import Part
from metier.kernels.blocks import fused_attention
from metier.kernels.reference import Scoring, masked_attention
from metier.model.forward import Attention
from metier.trees import Example, TokenTree, joined, pack


@dataclass(frozen=True)
class Prompt:
    """Tokens to be read through the adapter of `key`; the first `known` of them are in `past`.

    With what will be said behind them they come to at most so many positions: `most`.
    """

    tokens: tuple[int, ...]
    key: Key
    most: int
    past: Beginning | None = None
    known: int = 0

    @property
    def adapter(self) -> str:
        return self.key[1]

    @property
    def new(self) -> int:
        """How many tokens have to be read."""
        return len(self.tokens) - self.known


@dataclass(frozen=True)
class _Behind:
    """Nodes `start … stop - 1`, a path, that go on from what was read before."""

    start: int
    stop: int
    prompt: Prompt

    def attend(self, layer: int, q_HTD: Tensor, k_GTD: Tensor, v_GTD: Tensor, scoring: Scoring) -> Tensor:
        assert self.prompt.past
        known, past = self.prompt.known, self.prompt.past
        keys = torch.cat([past.keys[layer][:, :known], k_GTD], dim=1)
        values = torch.cat([past.values[layer][:, :known], v_GTD], dim=1)
        place = torch.arange(keys.shape[1], device=q_HTD.device)
        position = place[known:, None]
        seen_TM = place <= position
        if scoring.window is not None:
            seen_TM &= position - place < scoring.window
        if scoring.plain:
            return fused_attention(q_HTD, keys, values, seen_TM, scoring.scale)
        return masked_attention(q_HTD[None], keys[None], values[None], seen_TM, scoring)[0]


class Reading:
    """A forest of prompts, and attention that keeps every layer's keys and values of it, [1, G, T, D]."""

    def __init__(self, prompts: Sequence[Prompt], attention: Callable[[TokenTree], Attention]) -> None:
        """`attention` is that of a tree whose nodes see what is above them."""
        self.prompts = prompts
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        trees, numbers, self._behind, self._adapters = [], list[int](), list[_Behind](), list[str]()
        for tree, alike in _apart(prompts):
            first, start = prompts[alike[0]], len(self._adapters)
            if first.known:
                self._behind.append(_Behind(start, start + len(tree), first))
            trees.append(tree)
            numbers += [alike[row] for row in tree.rows.tolist()]
            self._adapters += [first.adapter] * len(tree)
        self._tree = joined(trees)
        self._rows = {number: row for row, number in enumerate(numbers)}
        self._attention = attention(self._tree)

    @property
    def part(self) -> Part:
        """Its logits are those behind the prompts in their order."""
        ends = [int(self._tree.row_end[self._rows[number]]) for number in range(len(self.prompts))]
        return Part(self._tree.tokens.tolist(), self._tree.positions.tolist(), self._adapters, ends, self)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        self.seen[layer] = (k, v)
        output = self._attention.attend(layer, q, k, v, scoring)
        for each in self._behind:
            own = slice(each.start, each.stop)
            output[0, :, own] = each.attend(layer, q[0, :, own], k[0, :, own], v[0, :, own], scoring)
        return output

    def path(self, number: int) -> Tensor:
        """The nodes that were read for a prompt."""
        return torch.as_tensor(self._tree.path(self._rows[number]))


def _apart(prompts: Sequence[Prompt]) -> Iterator[tuple[TokenTree, list[int]]]:
    """Trees with the numbers of their prompts: one of what is read anew for a key, and a path of each that goes on."""
    fresh = sorted(
        (place for place, each in enumerate(prompts) if not each.known), key=lambda place: prompts[place].key
    )
    for _, group in groupby(fresh, key=lambda place: prompts[place].key):
        alike = list(group)
        yield _tree([prompts[place].tokens for place in alike]), alike
    for place, each in enumerate(prompts):
        if each.known:
            path = _tree([each.tokens[each.known :]])
            yield replace(path, positions=path.positions + each.known), [place]


def _tree(rows: Sequence[tuple[int, ...]]) -> TokenTree:
    (tree,) = pack([Example(row, (0.0,) * len(row)) for row in rows], sum(map(len, rows)))
    return tree
