"""Attention through torch's fused kernel: a tree block by block, or a step of many sequences.

Shapes: B sequences, H query heads, G key-value heads, T queries, M keys, D and E head sizes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def fused_attention(q_HTD: Tensor, k_GTD: Tensor, v_GTE: Tensor, seen_TT: Tensor | None, scale: float) -> Tensor:
    """`reference.masked_attention` without softcap and sinks. Returns [H, T, E].

    Without a mask the queries are the last of the keys' positions, and it is causal.

    On a CPU 16-bit formats are computed in float32: torch compiles its 16-bit kernels anew for every
    length and keeps megabytes of each, and block lengths hardly ever repeat.
    """
    dtype = q_HTD.dtype
    if dtype.itemsize < 4 and q_HTD.device.type == "cpu":
        q_HTD, k_GTD, v_GTE = q_HTD.float(), k_GTD.float(), v_GTE.float()
    ahead = k_GTD.shape[1] - q_HTD.shape[1] if seen_TT is None else 0
    if ahead:  # torch aligns causality with the first key: as many idle queries go in front
        q_HTD = pad(q_HTD, (0, 0, ahead, 0))
    output_HTE = scaled_dot_product_attention(
        q_HTD[None],
        k_GTD[None],
        v_GTE[None],
        attn_mask=seen_TT,
        is_causal=seen_TT is None,
        scale=scale,
        enable_gqa=q_HTD.shape[0] != k_GTD.shape[0],
    )[0]
    return output_HTE[:, ahead:].to(dtype)


def fused_attention_batch(q_BHTD: Tensor, k_BGMD: Tensor, v_BGME: Tensor, seen: Tensor, scale: float) -> Tensor:
    """The same for many sequences at once; `seen` broadcasts to [B, 1, T, M]. Returns [B, H, T, E]."""
    return scaled_dot_product_attention(
        q_BHTD, k_BGMD, v_BGME, attn_mask=seen, scale=scale, enable_gqa=q_BHTD.shape[1] != k_BGMD.shape[1]
    )
