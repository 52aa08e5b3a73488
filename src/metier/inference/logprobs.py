"""How likely tokens are, and which would have been likelier.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_WEIGHED = 256  # places of which the whole vocabulary is in float32 at once


@dataclass(frozen=True)
class Read:
    """A token that was given: its log-probability behind those in front of it, None of the first, and the likeliest."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def read(row: Sequence[int], logits_TV: Tensor, top: int, begin: int) -> list[Read]:
    """A row from `begin` on, with the logits that are in front of each of these tokens but the row's first."""
    tokens = row[max(begin, 1) :]
    known = zip(tokens, likelihoods(tokens, logits_TV, top), strict=True)
    return [*([] if begin else [Read(row[0], None)]), *(Read(token, *each) for token, each in known)]


def likelihoods(
    tokens: Sequence[int], logits_TV: Tensor, top: int
) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
    """The log-probability of each token, and the likeliest ones with theirs."""
    found: list[tuple[float, tuple[tuple[int, float], ...]]] = []
    for begin in range(0, len(tokens), _WEIGHED):  # in float32 all at once would be gigabytes
        logprobs_TV = logits_TV[begin : begin + _WEIGHED].float().log_softmax(-1).cpu()
        own_T1 = torch.tensor(tokens[begin : begin + _WEIGHED], dtype=torch.long)[:, None]
        best = logprobs_TV.topk(top)
        likely = (
            tuple(zip(*each, strict=True)) for each in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        found += zip(logprobs_TV.gather(-1, own_T1)[:, 0].tolist(), likely, strict=True)
    return found
