"""A batch is a forest of tokens: every shared prefix once, in one flat sequence. Integers only.

A node is a token under its prefix. Nodes stand in depth-first order, so a node's descendants are the
contiguous span that begins with it; `ends` closes that span, and *k is an ancestor of q* is
`k <= q < ends[k]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """One row: `tokens` [L], and for each how much predicting it counts, `weights` [L]; the first cannot count."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.weights) or not self.tokens:
            raise ValueError("an example needs at least one token, and one weight a token")
        if self.weights[0]:
            raise ValueError("the first token of an example has nothing in front of it and cannot be a target")


@dataclass(frozen=True)
class Block:
    """A root's span of the flat sequence; `forks` is false where it is a single path."""

    start: int
    stop: int
    forks: bool


@dataclass(frozen=True)
class Span:
    """Queries `start … stop - 1` that attend to `above`, their common ancestors, and among themselves."""

    start: int
    stop: int
    above: tuple[int, ...]
    forks: bool


@dataclass(frozen=True)
class TokenTree:
    """Rows merged by prefix: T nodes, K targets, R rows.

    A target is a node that some row must predict: from position `query[k]` the model predicts
    `token[k]`, which stands at node `branch[k]`. At a fork one query predicts several tokens.
    `weight[k]` sums what the rows give it. Row r of the examples (`rows[r]` is its index there) has
    targets `row_target[row_start[r]:row_start[r + 1]]` with its own `row_weight`.
    """

    tokens: Ints  # [T]
    positions: Ints  # [T] counted from the root along the path
    ends: Ints  # [T]
    query: Ints  # [K]
    token: Ints  # [K]
    weight: Floats  # [K]
    branch: Ints  # [K]
    rows: Ints  # [R]
    row_end: Ints  # [R] the node of a row's last token
    row_start: Ints  # [R + 1]
    row_target: Ints  # [M]
    row_weight: Floats  # [M]
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def row_sums(self, values: NDArray[Any]) -> Floats:
        """For each row the weighted sum of `values` [K] over its targets, [R]."""
        weighted = np.concatenate([[0.0], np.cumsum(self.row_weight * values[self.row_target])])
        return np.asarray(weighted[self.row_start[1:]] - weighted[self.row_start[:-1]])

    def spans(self) -> list[Span]:
        """The nodes in order, cut where attention is cheaper apart than over one square.

        Rows that share only a few tokens at their root would otherwise pay for looking at each other.
        """
        forks = np.flatnonzero((self.ends[:-1] > self.ends[1:]) & (self.ends[:-1] > np.arange(1, len(self))))
        cuts = _Cuts(self.ends, forks)
        return [span for block in self.blocks for span in cuts.cut(block.start, block.stop, ())[1]]

    def path(self, row: int) -> Ints:
        """The nodes of a row from its root, [L]."""
        node = int(self.row_end[row])
        above = np.arange(node + 1)
        return above[self.ends[: node + 1] > node]


def pack(
    examples: Sequence[Example],
    tokens_per_batch: int,
    *,
    fork: bool = True,
    boundary: int | None = None,
) -> list[TokenTree]:
    """Find shared prefixes and make trees of at most `tokens_per_batch` nodes.

    Only a single row that is longer makes a longer tree. Without `fork` a row joins another only
    where that other is its prefix, so that every block is one path. With `boundary` (LongRoPE picks
    its factors by the longest position of a forward) rows on its two sides never share a tree.
    """
    order = sorted(range(len(examples)), key=lambda index: examples[index].tokens)
    sides = [order]
    if boundary is not None:
        short = [index for index in order if len(examples[index].tokens) <= boundary]
        sides = [short, [index for index in order if len(examples[index].tokens) > boundary]]
    return [_tree(examples, chunk, fork) for side in sides for chunk in _chunks(examples, side, tokens_per_batch, fork)]


def joined(trees: Sequence[TokenTree]) -> TokenTree:
    """Trees side by side as one, which share nothing; rows are counted on from one to the next."""
    nodes, targets, rows, given = (
        np.cumsum([0, *sizes])
        for sizes in zip(*((len(t), len(t.query), len(t.rows), len(t.row_target)) for t in trees), strict=True)
    )

    def side_by_side(name: str) -> Any:
        return np.concatenate([getattr(tree, name) for tree in trees])

    def counted_on(name: str, begins: Ints) -> Any:
        return np.concatenate([getattr(tree, name) + begin for tree, begin in zip(trees, begins[:-1], strict=True)])

    starts = [tree.row_start[1:] + begin for tree, begin in zip(trees, given[:-1], strict=True)]
    return TokenTree(
        **{name: side_by_side(name) for name in ("tokens", "positions", "token", "weight", "row_weight")},
        **{name: counted_on(name, nodes) for name in ("ends", "query", "branch", "row_end")},
        rows=counted_on("rows", rows),
        row_start=np.concatenate([[0], *starts]),
        row_target=counted_on("row_target", targets),
        blocks=tuple(
            Block(block.start + begin, block.stop + begin, block.forks)
            for tree, begin in zip(trees, nodes[:-1].tolist(), strict=True)
            for block in tree.blocks
        ),
    )


def padded(tree: TokenTree, multiple: int) -> TokenTree:
    """The tree with a last root that nobody asks about, so that its length is a multiple.

    For arithmetic whose kernels are compiled once for each length.
    """
    more = -len(tree) % multiple
    if not more:
        return tree
    total = len(tree) + more
    return replace(
        tree,
        tokens=np.concatenate([tree.tokens, np.zeros(more, dtype=np.int64)]),
        positions=np.concatenate([tree.positions, np.arange(more)]),
        ends=np.concatenate([tree.ends, np.full(more, total)]),
        blocks=(*tree.blocks, Block(len(tree), total, False)),
    )


def _chunks(examples: Sequence[Example], order: list[int], budget: int, fork: bool) -> Iterator[list[int]]:
    """Cut the sorted rows where their distinct tokens would exceed the budget."""
    chunk: list[int] = []
    used = 0
    for index in order:
        length = len(examples[index].tokens)
        new = length - (_shared(examples[chunk[-1]], examples[index], fork) if chunk else 0)
        if chunk and used + new > budget:
            yield chunk
            chunk, used, new = [], 0, length
        chunk.append(index)
        used += new
    if chunk:
        yield chunk


def _shared(above: Example, below: Example, fork: bool) -> int:
    """Length of the prefix that two neighbours in sorted order have in common and may share."""
    shared = min(len(above.tokens), len(below.tokens))
    if above.tokens[:shared] != below.tokens[:shared]:
        differs = np.asarray(above.tokens[:shared]) != np.asarray(below.tokens[:shared])
        shared = int(np.argmax(differs))
    return shared if fork or shared == len(above.tokens) else 0


def _tree(examples: Sequence[Example], chunk: list[int], fork: bool) -> TokenTree:
    tokens: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    paths: list[list[int]] = []
    for place, index in enumerate(chunk):
        row = examples[index].tokens
        shared = _shared(examples[chunk[place - 1]], examples[index], fork) if place else 0
        path = paths[-1][:shared] if place else []
        fresh = range(len(tokens), len(tokens) + len(row) - shared)
        parents += [path[-1] if path else -1, *fresh][: len(fresh)]
        tokens += row[shared:]
        positions += range(shared, len(row))
        paths.append([*path, *fresh])
    ends = _ends(parents)
    return TokenTree(
        tokens=np.asarray(tokens, dtype=np.int64),
        positions=np.asarray(positions, dtype=np.int64),
        ends=ends,
        rows=np.asarray(chunk, dtype=np.int64),
        row_end=np.asarray([path[-1] for path in paths], dtype=np.int64),
        blocks=_blocks(parents),
        **_targets(np.asarray(tokens), np.asarray(parents), paths, [examples[index].weights for index in chunk]),
    )


class _Cuts:
    """The cheapest division of subtrees into spans, by the number of query-key pairs."""

    _CALL = 20_000  # pairs that a further call of the attention kernel is worth
    _DEPTH = 64  # forks on one path, below which nothing is divided

    def __init__(self, ends: Ints, forks: Ints) -> None:
        self._ends, self._forks = ends, forks

    def cut(self, start: int, stop: int, above: tuple[int, ...], depth: int = 0) -> tuple[int, list[Span]]:
        """Cost and spans of the subtree that begins at `start`."""
        place = int(np.searchsorted(self._forks, start))
        fork = int(self._forks[place]) if place < len(self._forks) else stop
        size = stop - start
        whole = size * (len(above) + size) + self._CALL, [Span(start, stop, above, fork < stop)]
        if fork >= stop or depth == self._DEPTH:
            return whole
        trunk = fork + 1 - start
        cost = trunk * (len(above) + trunk) + self._CALL
        spans = [Span(start, fork + 1, above, False)]
        path = (*above, *range(start, fork + 1))
        child = fork + 1
        while child < stop:
            below, inner = self.cut(child, int(self._ends[child]), path, depth + 1)
            cost, child = cost + below, int(self._ends[child])
            spans += inner
        return min(whole, (cost, spans), key=lambda option: option[0])


def _ends(parents: list[int]) -> Ints:
    ends = np.arange(1, len(parents) + 1)
    for node in range(len(parents) - 1, -1, -1):
        parent = parents[node]
        if parent >= 0 and ends[node] > ends[parent]:
            ends[parent] = ends[node]
    return ends


def _blocks(parents: list[int]) -> tuple[Block, ...]:
    above = np.asarray(parents)
    starts = [*np.flatnonzero(above < 0).tolist(), len(parents)]
    chain = above == np.arange(-1, len(parents) - 1)
    return tuple(Block(start, stop, not bool(chain[start + 1 : stop].all())) for start, stop in pairwise(starts))


def _targets(tokens: Ints, parents: Ints, paths: list[list[int]], weights: list[tuple[float, ...]]) -> dict[str, Any]:
    """The target arrays of a tree: nodes with a weight, and which rows gave it."""
    nodes = [np.asarray(path)[np.flatnonzero(given)] for path, given in zip(paths, weights, strict=True)]
    row_weight = np.concatenate([np.asarray(given)[np.flatnonzero(given)] for given in weights])
    branch, row_target = np.unique(np.concatenate(nodes), return_inverse=True)
    return {
        "query": parents[branch],
        "token": tokens[branch],
        "weight": np.bincount(row_target, weights=row_weight, minlength=len(branch)).astype(np.float64),
        "branch": branch.astype(np.int64),
        "row_start": np.cumsum([0, *(len(each) for each in nodes)]).astype(np.int64),
        "row_target": row_target.astype(np.int64),
        "row_weight": row_weight.astype(np.float64),
    }
