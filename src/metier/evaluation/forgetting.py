"""What tuning cost in general skill: loss on general text before and after, and the distance between the two."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metier.data.dataset import Passage
from metier.data.rendering import Renderer
from metier.evaluation.answers import Answer
from metier.events import Event, Listener
from metier.model.adapters import disabled
from metier.model.forward import Forward
from metier.trees import Example, pack


@torch.no_grad()
def read_general_text(
    forward: Forward, renderer: Renderer, passages: Sequence[Passage], max_length: int, listen: Listener
) -> list[Answer]:
    """Read each passage with and without the adapter; log-probabilities and KL(base ‖ tuned) in nats.

    A passage longer than `max_length` tokens is read in pieces; nothing of it is left out.
    """
    answers = []
    for done, passage in enumerate(passages, start=1):
        tuned = base = divergence = 0.0
        count = 0
        for row in _pieces(renderer.passage(passage.text), max_length):
            (tree,) = pack([row], len(row.tokens), fork=forward.forks)
            nodes = torch.as_tensor(tree.query, device=forward.device)
            token = torch.as_tensor(tree.token, device=forward.device)[:, None]
            tuned_KV = forward.logits(tree, nodes).float().log_softmax(-1)
            with disabled(forward.network):
                base_KV = forward.logits(tree, nodes).float().log_softmax(-1)
            tuned += float(tuned_KV.gather(1, token).double().sum())
            base += float(base_KV.gather(1, token).double().sum())
            divergence += float((base_KV.exp() * (base_KV - tuned_KV)).double().sum())
            count += len(token)
        answers.append(
            Answer(
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
                tokens=count,
            )
        )
        listen(Event("general text", done, len(passages)))
    return answers


def _pieces(row: Example, max_length: int) -> list[Example]:
    """Cut a long row so that every token but the first is predicted exactly once."""
    step = max_length - 1
    return [
        Example(part, (0.0, *[1.0] * (len(part) - 1)))
        for start in range(0, max(1, len(row.tokens) - 1), step)
        if len(part := row.tokens[start : start + max_length]) > 1
    ]
