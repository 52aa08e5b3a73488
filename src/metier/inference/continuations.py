"""How likely texts continue other texts, all of them at once, every shared beginning read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metier.inference.loaded import Loaded
from metier.trees import Example, Ints, TokenTree, pack


@dataclass(frozen=True)
class Continuation:
    """`tokens` behind `context`, both at least one token long."""

    context: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Likelihood:
    """The sum over a continuation's tokens in nats, and whether each of them is the likeliest at its place."""

    logprob: float
    greedy: bool


@torch.no_grad()
def likelihoods(
    loaded: Loaded, continuations: Sequence[Continuation], max_length: int
) -> Iterator[list[tuple[int, Likelihood]]]:
    """A tree's worth at a time, by index.

    The model reads all but a continuation's last token, and of what it reads the last `max_length` tokens.
    So choices of one token behind a question are one path, and the model's context is used to its end.
    """
    rows = [(*each.context, *each.tokens)[:-1][-max_length:] for each in continuations]
    examples = [Example(row, (0.0,) * len(row)) for row in rows]
    for tree in pack(examples, loaded.tokens_per_batch, fork=loaded.forward.forks, boundary=loaded.boundary):
        yield list(_of_tree(loaded, tree, [continuations[row].tokens for row in tree.rows.tolist()]))


def _of_tree(loaded: Loaded, tree: TokenTree, wanted: Sequence[Sequence[int]]) -> Iterator[tuple[int, Likelihood]]:
    """Shapes: U distinct queries, K tokens of all continuations, V vocabulary."""
    asked_K: Ints = np.concatenate([tree.path(row)[-len(tokens) :] for row, tokens in enumerate(wanted)])
    queries_U, place = np.unique(asked_K, return_inverse=True)
    device = loaded.forward.device
    logits_UV = loaded.forward.logits(tree, torch.as_tensor(queries_U, device=device)).float()
    place_K = torch.as_tensor(place, device=device)
    token_K = torch.tensor([token for tokens in wanted for token in tokens], device=device)
    logprob_K = logits_UV[place_K, token_K] - logits_UV.logsumexp(-1)[place_K]
    greedy_K = logits_UV.argmax(-1)[place_K] == token_K
    sizes = [len(tokens) for tokens in wanted]
    parts = zip(logprob_K.cpu().double().split(sizes), greedy_K.split(sizes), strict=True)
    for row, (logprobs, greedy) in zip(tree.rows.tolist(), parts, strict=True):
        yield row, Likelihood(float(logprobs.sum()), bool(greedy.all()))
