"""What tuning cost in general skill: loss on general text before and after, and the distance between the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from metier.data.dataset import Passage
from metier.data.rendering import Renderer
from metier.evaluation.answers import Answer
from metier.events import Event, Listener
from metier.model.adapters import disabled
from metier.model.forward import Forward
from metier.model.loading import Base
from metier.trees import Floats, TokenTree, pack

_TOKENS = 512  # read at once: two whole distributions are held for each of them


@torch.no_grad()
def read_general_text(
    base: Base, forward: Forward, renderer: Renderer, passages: Sequence[Passage], max_length: int, listen: Listener
) -> list[Answer]:
    """Read each passage with and without the adapter; log-probabilities and KL(base ‖ tuned) in nats.

    `forward` runs the tuned model that stands on `base`. A passage longer than `max_length` tokens is
    read in pieces; nothing of it is left out.
    """
    pieces = [renderer.windows(passage.text, max_length) for passage in passages]
    owner = [index for index, each in enumerate(pieces) for _ in each]
    rows = [row for each in pieces for row in each]
    sums = np.zeros((len(passages), 3))  # log-probability tuned, untuned; divergence
    done = 0
    for tree in pack(rows, _TOKENS, fork=forward.forks, boundary=base.boundary):
        of_rows = np.stack([tree.row_sums(each) for each in _compared(forward, tree)], axis=1)
        np.add.at(sums, [owner[row] for row in tree.rows.tolist()], of_rows)
        done += len(tree.rows)
        listen(Event("general text", done, len(rows)))
    counts = [sum(len(row.tokens) - 1 for row in each) for each in pieces]
    return [_answer(*each) for each in zip(passages, sums.tolist(), counts, strict=True)]


def _compared(forward: Forward, tree: TokenTree) -> tuple[Floats, Floats, Floats]:
    """For each target of a tree: log-probability tuned and untuned, and KL(base ‖ tuned) at its query."""
    queries, place = torch.unique(torch.as_tensor(tree.query), return_inverse=True)
    tuned_UV = forward.logits(tree, queries).float().log_softmax(-1)
    with disabled(forward.network):
        base_UV = forward.logits(tree, queries).float().log_softmax(-1)
    divergence_U = (base_UV.exp() * (base_UV - tuned_UV)).sum(-1)
    token = torch.as_tensor(tree.token)
    columns = (tuned_UV.cpu()[place, token], base_UV.cpu()[place, token], divergence_U.cpu()[place])
    tuned_K, base_K, divergence_K = (column.double().numpy() for column in columns)
    return tuned_K, base_K, divergence_K


def _answer(passage: Passage, sums: Sequence[float], tokens: int) -> Answer:
    tuned, base, divergence = sums
    return Answer(
        id=passage.id,
        domain="general_text",
        group=passage.id,
        kind="text",
        place=passage.place,
        prompt="",
        reference=passage.text,
        logprob=tuned,
        base_logprob=base,
        kl=divergence,
        tokens=tokens,
    )
