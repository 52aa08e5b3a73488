"""One forward over a token tree: hidden states once per node, the head only where something counts.

Shapes: T nodes, K targets, U distinct queries, V vocabulary, H heads, G key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from metier.kernels.blocks import fused_attention
from metier.kernels.reference import Scoring, masked_attention, visible
from metier.trees import Span, TokenTree, padded

ATTENTION = "metier_tree"
# What layers hand down that attention has no use for, or that says nothing about what is seen.
_HARMLESS = {
    *("position_ids", "cache_position", "use_cache", "is_causal", "logits_to_keep"),
    *("output_attentions", "output_hidden_states", "output_router_logits"),
}


class Attention(Protocol):
    """Who sees whom in one forward, handed through the model as the keyword `tree`."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        """Queries [1 or B, H, T, D] with keys and values to outputs of the queries' shape."""
        ...


class TreeAttention:
    """Every node attends to its ancestors and itself."""

    def __init__(self, tree: TokenTree, device: torch.device, *, reference: bool = False) -> None:
        self._tree = tree
        self._positions = torch.as_tensor(tree.positions, device=device)
        self._ends = torch.as_tensor(tree.ends, device=device)
        self._reference = reference
        self._spans = [] if reference else tree.spans()
        self._sizes = [span.stop - span.start for span in self._spans]
        self._depths = [len(span.above) for span in self._spans]
        above = [node for span in self._spans for node in span.above]
        self._above = torch.tensor(above, dtype=torch.long, device=device)
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        if self._reference or not scoring.plain:
            seen_TT = visible(self._positions, self._ends, scoring.window)
            return masked_attention(q, k, v, seen_TT, scoring)
        # One split and one gather for all spans: slicing each by itself would make the backward pass
        # fill a tensor of the whole length for every slice.
        queries = q[0].split(self._sizes, dim=1)
        keys, values = self._reachable(k[0]), self._reachable(v[0])
        outputs = [
            fused_attention(query, key, value, self._seen(span, scoring.window), scoring.scale)
            for span, query, key, value in zip(self._spans, queries, keys, values, strict=True)
        ]
        return torch.cat(outputs, dim=1)[None]

    def _reachable(self, each: Tensor) -> Sequence[Tensor]:
        """Keys or values [G, T, D] of each span: those of the ancestors above it, then its own."""
        own: Sequence[Tensor] = each.split(self._sizes, dim=1)
        if not len(self._above):
            return own
        above = each.index_select(1, self._above).split(self._depths, dim=1)
        return [torch.cat(pair, dim=1) if len(pair[0][0]) else pair[1] for pair in zip(above, own, strict=True)]

    def _seen(self, span: Span, window: int | None) -> Tensor | None:
        """The mask of a span, made once a forward; a path within its window is simply causal."""
        length, depth = span.stop - span.start, len(span.above)
        if window is not None and window > self._tree.positions[span.start : span.stop].max():
            window = None
        if not span.forks and window is None and 2 * depth <= length:
            return None
        key = (span.start, window)
        if key not in self._masks:
            nodes = torch.tensor([*span.above, *range(span.start, span.stop)], device=self._ends.device)
            self._masks[key] = visible(self._positions, self._ends, window, nodes)[depth:]
        return self._masks[key]


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **keywords: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface; a keyword that we do not know would be silently wrong."""
    tree: Attention | None = keywords.pop("tree", None)
    if tree is None:
        raise NotImplementedError(f"{type(module).__name__} is handed no tree by the layers around it")
    given = {name: keywords.pop(name, None) for name in ("scaling", "sliding_window", "softcap", "s_aux")}
    strange = {name for name in keywords.keys() - _HARMLESS if keywords[name] is not None and keywords[name] != 0}
    if strange or attention_mask is not None:
        what = ", ".join(sorted(strange)) or "an attention mask"
        raise NotImplementedError(f"tree attention does not know {what} of {type(module).__name__}")
    scale = query.shape[-1] ** -0.5 if given["scaling"] is None else given["scaling"]
    scoring = Scoring(scale, given["sliding_window"], given["softcap"], given["s_aux"])
    output = tree.attend(int(module.layer_idx), query, key, value, scoring)  # type: ignore[arg-type]
    return output.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make `attn_implementation="metier_tree"` known to transformers; twice is harmless."""
    AttentionInterface.register(ATTENTION, _attention)


class Forward:
    """Runs trees through one loaded network.

    `forks` is what the probe found: without it every block runs alone, as plain transformers would.
    `multiple` fills up lengths: bfloat16 kernels on a CPU are compiled, and kept, for each of them.
    """

    def __init__(self, network: nn.Module, *, forks: bool, reference: bool = False, multiple: int = 1) -> None:
        self.network = network
        self.forks = forks
        self.multiple = multiple
        self._reference = reference
        self._scale: Callable[[Tensor], Tensor] | None = None

    def over(self, network: nn.Module) -> Forward:
        """The same way of running for another network: this one with an adapter around it."""
        return type(self)(network, forks=self.forks, reference=self._reference, multiple=self.multiple)

    def scaled(self, scale: Callable[[Tensor], Tensor]) -> Forward:
        """The same, whose gradients pass through `scale` before they enter the network.

        Equal to scaling the loss, whatever an objective makes of the log-probabilities, and what it makes
        in float32 needs no scaling.
        """
        forward = self.over(self.network)
        forward._scale = scale
        return forward

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def logits(self, tree: TokenTree, nodes: Tensor) -> Tensor:
        """Next-token logits [len(nodes), V] behind `nodes`, which must be in ascending order, on the CPU."""
        if not self.forks:
            return self._logits_of_blocks(tree, nodes)
        tree, asked = self._padded(tree, nodes)
        return self.run(tree.tokens, tree.positions, asked, self.attention(tree))[: len(nodes)]

    def attention(self, tree: TokenTree) -> TreeAttention:
        return TreeAttention(tree, self.device, reference=self._reference)

    def run(self, tokens_T: Any, positions_T: Any, nodes: Tensor, attention: Attention) -> Tensor:
        """Next-token logits [len(nodes), V] behind `nodes` of one flat sequence, whose length stays as it is."""
        device = self.device
        output = self.network(
            input_ids=torch.as_tensor(tokens_T, device=device)[None],
            position_ids=torch.as_tensor(positions_T, device=device)[None],
            logits_to_keep=nodes.to(device),
            use_cache=False,
            tree=attention,
        )
        logits: Tensor = output.logits[0]
        return logits

    def _padded(self, tree: TokenTree, nodes: Tensor) -> tuple[TokenTree, Tensor]:
        """What is computed in place of a tree and nodes that are asked: lengths of which there are few."""
        more = -len(nodes) % self.multiple
        return padded(tree, self.multiple), torch.cat([nodes, nodes[-1:].expand(more)]) if more else nodes

    def logprobs(self, tree: TokenTree) -> Tensor:
        """Log-probability of each target, [K], in float32."""
        logits_UV, place_K = self._predictions(tree)
        token_K = torch.as_tensor(tree.token, device=self.device)
        return logits_UV[place_K, token_K] - logits_UV.logsumexp(-1)[place_K]

    def distributions(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the whole vocabulary at each query, [U, V] in float32, and each target's query, [K]."""
        logits_UV, place_K = self._predictions(tree)
        return logits_UV.log_softmax(-1), place_K

    def _predictions(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        queries, place = torch.unique(torch.as_tensor(tree.query), return_inverse=True)
        logits_UV = self.logits(tree, queries).float()
        if self._scale and logits_UV.requires_grad:
            logits_UV.register_hook(self._scale)
        return logits_UV, place.to(self.device)

    def _logits_of_blocks(self, tree: TokenTree, nodes: Tensor) -> Tensor:
        parts = []
        for block in tree.blocks:
            if block.forks:
                raise ValueError("this model cannot fork; pack its rows with fork=False")
            inside = nodes[(nodes >= block.start) & (nodes < block.stop)] - block.start
            if len(inside):
                parts.append(self._alone(tree.tokens[block.start : block.stop], inside))
        return torch.cat(parts)

    def _alone(self, tokens: Any, nodes: Tensor) -> Tensor:
        """Logits behind `nodes` of one row. They are counted from its end: virtual tokens may stand in front."""
        first = int(nodes[0])
        row = torch.as_tensor(tokens, device=self.device)[None]
        logits_TV: Tensor = self.network(input_ids=row, logits_to_keep=len(tokens) - first, use_cache=False).logits[0]
        return logits_TV[(nodes - first).to(self.device)]
