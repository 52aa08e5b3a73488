"""General rows beside an objective's own: their likelihood, and how far the model moves from its base on them.

Shapes: K targets of a tree, U distinct queries, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metier.data.mixing import Unit
from metier.model.adapters import disabled
from metier.model.forward import Forward
from metier.training.objectives import Objective, Packing, likelihood
from metier.trees import TokenTree

_TOKENS = 512  # read at once where whole distributions are compared


@dataclass(frozen=True)
class Replayed:
    """L + s / (1 − s) · NLL + kl · KL(base ‖ tuned): an objective L, and the means over the replay rows' target tokens.

    So replay is the share s of all likelihood, whatever L is.
    """

    objective: Objective
    share: float
    kl: float

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
        values = self.objective(forward, [unit for unit in units if not unit.replay], packing)
        rows = [row for unit in units if unit.replay for row in unit.rows]
        packing = replace(packing, tokens_per_batch=min(packing.tokens_per_batch, _TOKENS)) if self.kl else packing
        trees, beside = packing.trees(rows), self.share / (1 - self.share)
        weight = sum(float(tree.weight.sum()) for tree in trees)
        nll = kl = 0.0
        for tree in trees:
            weight_K = torch.as_tensor(tree.weight, dtype=torch.float32).to(forward.device) / weight
            logprob_K, divergence_K = _beside_base(forward, tree) if self.kl else (forward.logprobs(tree), None)
            said = likelihood(logprob_K, weight_K)
            moved = torch.zeros(()).to(said) if divergence_K is None else (weight_K * divergence_K).sum()
            (beside * said + self.kl * moved).backward()
            nll, kl = nll + float(said.detach()), kl + float(moved.detach())
        found = {"replay": nll, **({"kl": kl} if self.kl else {})}
        tokens = values.get("tokens", 0.0) + sum(map(len, trees))
        return {**values, **found, "loss": values["loss"] + beside * nll + self.kl * kl, "tokens": tokens}


def _beside_base(forward: Forward, tree: TokenTree) -> tuple[Tensor, Tensor]:
    """The log-probability of each target, and KL(base ‖ tuned) at its query, [K] each; the base drops nothing."""
    network = forward.network
    training = network.training
    network.eval()
    with torch.no_grad(), disabled(network):
        base_UV, _ = forward.distributions(tree)
    network.train(training)
    tuned_UV, place_K = forward.distributions(tree)
    divergence_U = (base_UV.exp() * (base_UV - tuned_UV)).sum(-1)
    token_K = torch.as_tensor(tree.token, device=place_K.device)
    return tuned_UV[place_K, token_K], divergence_U[place_K]
