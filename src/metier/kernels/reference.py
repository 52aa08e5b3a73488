"""Tree attention in plain torch: the specification, and the oracle of every fast path.

Shapes: H query heads, G key-value heads (H a multiple of G), T nodes, D and E head sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scoring:
    """How a layer turns queries and keys into scores.

    `softcap` bounds them by tanh (Gemma 2); `sinks` [H] is one more score a head that takes probability
    and gives nothing (gpt-oss).
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether torch's fused kernel computes it."""
        return self.softcap is None and self.sinks is None


def visible(positions_T: Tensor, ends_T: Tensor, window: int | None, node_T: Tensor | None = None) -> Tensor:
    """Which node sees which, [T, T] boolean: itself and its ancestors, no farther up than a sliding window.

    With `node_T` only among those nodes, in their order.
    """
    if node_T is None:
        node_T = torch.arange(len(ends_T), device=ends_T.device)
    positions_T, ends_T = positions_T[node_T], ends_T[node_T]
    seen_TT = (node_T[None, :] <= node_T[:, None]) & (node_T[:, None] < ends_T[None, :])
    if window is not None:
        seen_TT = seen_TT & (positions_T[:, None] - positions_T[None, :] < window)
    return seen_TT


def masked_attention(q_HTD: Tensor, k_GTD: Tensor, v_GTE: Tensor, seen_TT: Tensor, scoring: Scoring) -> Tensor:
    """Attention over what is seen, scores in float32; returns [H, T, E]. Leading dimensions broadcast."""
    repeat = q_HTD.shape[-3] // k_GTD.shape[-3]
    k_HTD, v_HTE = k_GTD.repeat_interleave(repeat, -3), v_GTE.repeat_interleave(repeat, -3)
    score_HTT = (q_HTD @ k_HTD.transpose(-1, -2)).float() * scoring.scale
    if scoring.softcap is not None:
        score_HTT = scoring.softcap * torch.tanh(score_HTT / scoring.softcap)
    score_HTT = score_HTT.masked_fill(~seen_TT, float("-inf"))
    if scoring.sinks is not None:
        sink_HT1 = scoring.sinks.float()[:, None, None].expand(*score_HTT.shape[:-1], 1)
        score_HTT = torch.cat([score_HTT, sink_HT1], dim=-1)
    share_HTT = score_HTT.softmax(-1).to(v_HTE.dtype)[..., : v_HTE.shape[-2]]
    return share_HTT @ v_HTE
