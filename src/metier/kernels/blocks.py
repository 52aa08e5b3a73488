"""Attention through torch's fused kernel: a tree block by block, or a step of many sequences.

Shapes: B sequences, H query heads, G key-value heads, T queries, M keys, D and E head sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

_CONVERTED = 1 << 22  # numbers, of keys as of values


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


def fused_attention_batch(q_BHTD: Tensor, k_BGMD: Tensor, v_BGME: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The same for many sequences at once; `bias`, [B, 1, T, M] in float32, is 0 where a key is seen and else -inf.

    Returns [B, H, T, E]. On a CPU torch's kernel takes two to ten times as long in 16-bit formats as two products in
    float32, for as long as these do not have to convert more than lies in the caches.
    """
    dtype, grouped = q_BHTD.dtype, q_BHTD.shape[1] != k_BGMD.shape[1]
    if dtype.itemsize < 4 and q_BHTD.device.type == "cpu" and k_BGMD.numel() <= _CONVERTED:
        return _in_float32(q_BHTD, k_BGMD, v_BGME, bias, scale)
    mask = bias.to(dtype)
    return scaled_dot_product_attention(q_BHTD, k_BGMD, v_BGME, attn_mask=mask, scale=scale, enable_gqa=grouped)


def _in_float32(q_BHTD: Tensor, k_BGMD: Tensor, v_BGME: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Query heads of one group stand side by side, as rows of one product: N = B · G products of R = H / G · T rows."""
    heads, groups, queries = q_BHTD.shape[1], k_BGMD.shape[1], q_BHTD.shape[2]
    q_NRD = q_BHTD.float().reshape(len(q_BHTD) * groups, heads // groups * queries, -1)
    own = bias[:, None].expand(-1, groups, heads // groups, queries, -1).clone(memory_format=torch.contiguous_format)
    bias_NRM = own.view(*q_NRD.shape[:2], -1)
    scores_NRM = bias_NRM.baddbmm_(q_NRD, k_BGMD.float().flatten(0, 1).mT, alpha=scale)
    outputs_NRE = scores_NRM.softmax(-1).bmm(v_BGME.float().flatten(0, 1))
    found: Tensor = outputs_NRE.view(len(q_BHTD), heads, queries, -1).to(q_BHTD.dtype)
    return found
