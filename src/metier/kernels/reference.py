"""Tree attention in plain torch: the specification, and the oracle of every fast path.

Shapes: H query heads, G key-value heads (H a multiple of G), T nodes, D and E head sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def visible(positions_T: Tensor, ends_T: Tensor, window: int | None) -> Tensor:
    """Which node sees which, [T, T] boolean: itself and its ancestors, no farther up than a sliding window."""
    node_T = torch.arange(len(ends_T), device=ends_T.device)
    seen_TT = (node_T[None, :] <= node_T[:, None]) & (node_T[:, None] < ends_T[None, :])
    if window is not None:
        seen_TT = seen_TT & (positions_T[:, None] - positions_T[None, :] < window)
    return seen_TT


def masked_attention(
    q_HTD: Tensor,
    k_GTD: Tensor,
    v_GTE: Tensor,
    seen_TT: Tensor,
    scale: float,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """Attention over what is seen, in float32; returns [H, T, E].

    `softcap` bounds the scores by tanh (Gemma 2); `sinks_H` is one more score per head that takes
    probability and gives nothing (gpt-oss).
    """
    repeat = q_HTD.shape[-3] // k_GTD.shape[-3]
    k_HTD, v_HTE = k_GTD.repeat_interleave(repeat, -3), v_GTE.repeat_interleave(repeat, -3)
    score_HTT = (q_HTD @ k_HTD.transpose(-1, -2)).float() * scale
    if softcap is not None:
        score_HTT = softcap * torch.tanh(score_HTT / softcap)
    score_HTT = score_HTT.masked_fill(~seen_TT, float("-inf"))
    if sinks_H is not None:
        sink_HT1 = sinks_H.float()[:, None, None].expand(*score_HTT.shape[:-1], 1)
        score_HTT = torch.cat([score_HTT, sink_HT1], dim=-1)
    share_HTT = score_HTT.softmax(-1).to(v_HTE.dtype)[..., : v_HTE.shape[-2]]
    return share_HTT @ v_HTE
