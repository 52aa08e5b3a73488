"""What training makes likelier: answers, the liked one of two, what people liked, or plain text.

Shapes: K targets of a tree, R rows, P pairs. Log-probabilities are in nats and sum over a row's targets.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metier.data.mixing import Unit
from metier.errors import MetierError
from metier.inference.engine import Engine
from metier.model.forward import Forward
from metier.trees import Example, TokenTree, pack

Reference = Mapping[Example, float]
"""The untuned base's log-probability of each row."""


@dataclass(frozen=True)
class Packing:
    """How rows become trees: at most so many tokens, whether they may fork, where LongRoPE changes."""

    tokens_per_batch: int
    fork: bool
    boundary: int | None

    def trees(self, rows: Sequence[Example]) -> list[TokenTree]:
        return pack(rows, self.tokens_per_batch, fork=self.fork, boundary=self.boundary)

    def together(self, rows: Sequence[Example]) -> list[TokenTree]:
        """However many tokens they have: what one loss compares belongs into one gradient."""
        return pack(rows, 1 << 62, fork=self.fork, boundary=self.boundary)

    def groups(self, units: Sequence[Unit]) -> Iterator[list[Unit]]:
        """Units whose rows fit into a batch together; those with one prompt side by side."""
        group: list[Unit] = []
        for unit in sorted(units, key=lambda unit: unit.rows[0].tokens):
            if group and sum(each.tokens for each in (*group, unit)) > self.tokens_per_batch:
                yield group
                group = []
            group.append(unit)
        yield group


class Objective(Protocol):
    """Adds the gradient of one step's units, in however many trees; returns `loss` and what else was measured."""

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]: ...


def source_of(objective: Objective) -> str:
    """The text of a user's objective, and of an instance its fields: what makes a run another.

    Raises `MetierError` where these do not tell what it does: text that cannot be read, variables of a function
    around it, or an instance that is no dataclass.
    """
    if inspect.isfunction(objective):
        if around := objective.__code__.co_freevars:
            fix = "make them fields of a dataclass with __call__"
            raise MetierError(f"objective: uses {', '.join(around)} of the function around it", fix)
        return _text_of(objective)
    of = type(objective)
    # Method by method: of a class that a notebook's cell defines, `inspect` does not find the text.
    found = [inspect.unwrap(each) for kind in of.__mro__ for each in vars(kind).values() if inspect.isfunction(each)]
    written = [_text_of(each) for each in found if each.__code__.co_filename != "<string>"]  # not by `dataclass`
    fields: dict[str, Any] = dataclasses.asdict(objective) if dataclasses.is_dataclass(objective) else {}
    if not fields and getattr(objective, "__dict__", {}):
        raise MetierError(f"objective: {of.__name__} has values that its text does not tell", "make it a dataclass")
    if not written:
        raise MetierError(f"objective: {of.__name__} has no text of its own", _IN_A_FILE)
    return "\n".join([*written, str(fields)])


_IN_A_FILE = "define a function, or a dataclass with __call__, in a file or a notebook cell"


def _text_of(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        raise MetierError("objective: its source cannot be read", _IN_A_FILE) from None


class Likelihood:
    """The mean over all target weights of the negative log-likelihood, for answers and for plain text."""

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
        trees = packing.trees([row for unit in units for row in unit.rows])
        return {"loss": accumulate(forward, trees), "tokens": sum(map(len, trees))}


@dataclass(frozen=True)
class Dpo:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7), the mean over pairs."""

    beta: float
    reference: Reference

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
        total = sum(unit.weight for unit in units)
        values = {"loss": 0.0, "gain": 0.0, "gained": 0.0, "tokens": 0.0}
        for group in packing.groups(units):
            trees = packing.together([row for unit in group for row in unit.rows])
            margin_P = self.margins(forward, group, trees)
            weight_P = torch.tensor([unit.weight / total for unit in group], device=margin_P.device)
            loss = -(weight_P * logsigmoid(self.beta * margin_P)).sum()
            loss.backward()
            values["loss"] += float(loss.detach())
            # On the base: nats by which the liked replies lead, and the share of pairs in which they do.
            values["gain"] += float((weight_P * margin_P.detach()).sum())
            values["gained"] += float((weight_P * (margin_P > 0)).sum())
            values["tokens"] += sum(map(len, trees))
        return values

    def margins(self, forward: Forward, units: Sequence[Unit], trees: Sequence[TokenTree]) -> Tensor:
        """By how much more each pair's liked reply has gained on the base than the other, [P], in nats."""
        sum_R = row_logprobs(forward, trees)
        base_R = torch.tensor([self.reference[row] for unit in units for row in unit.rows], device=sum_R.device)
        gain_R = sum_R - base_R
        return gain_R[0::2] - gain_R[1::2]


@dataclass(frozen=True)
class Kto:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, equations 7 and 8), the mean over ratings.

    What the reference point z0 is estimated from is the whole step, so that the split into trees has no effect.
    """

    beta: float
    reference: Reference

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
        total = sum(unit.weight for unit in units)
        drift = self._drift(forward, [unit.rows[1] for unit in units if len(unit.rows) > 1], packing)
        values = {"loss": 0.0, "drift": drift, "tokens": 0.0}
        for group in packing.groups(units):
            rows = [unit.rows[0] for unit in group]
            trees = packing.together(rows)
            sum_R = row_logprobs(forward, trees)
            gain_R = sum_R - torch.tensor([self.reference[row] for row in rows], device=sum_R.device)
            sign_R = torch.tensor([1.0 if unit.liked else -1.0 for unit in group], device=sum_R.device)
            weight_R = torch.tensor([unit.weight / total for unit in group], device=sum_R.device)
            loss = (weight_R * (1 - torch.sigmoid(self.beta * sign_R * (gain_R - drift)))).sum()
            loss.backward()
            values["loss"] += float(loss.detach())
            values["tokens"] += sum(map(len, trees))
        return values

    @torch.no_grad()
    def _drift(self, forward: Forward, rows: Sequence[Example], packing: Packing) -> float:
        """z0: how far replies to other prompts have moved from the base on average, at least 0."""
        if not rows:
            return 0.0
        gains = 0.0
        for tree in packing.trees(rows):
            sums = tree.row_sums(forward.logprobs(tree).cpu().double().numpy())
            gains += float(sums.sum()) - sum(self.reference[rows[row]] for row in tree.rows.tolist())
        return max(0.0, gains / len(rows))


def read_reference(engine: Engine, units: Sequence[Unit]) -> Reference:
    """The log-probability of every row of the units under the engine's model, which must be the untuned base."""
    rows = list(dict.fromkeys(row for unit in units for row in unit.rows))
    return dict(zip(rows, engine.score(rows), strict=True))


def row_logprobs(forward: Forward, trees: Sequence[TokenTree]) -> Tensor:
    """The weighted log-probability of each row of some trees, [R] in the order of the rows that were packed."""
    sums, order = [], []
    for tree in trees:
        logprob_K = forward.logprobs(tree)
        device = logprob_K.device
        target_M = torch.as_tensor(tree.row_target, device=device)
        weight_M = torch.as_tensor(tree.row_weight, dtype=logprob_K.dtype).to(device)  # Metal has no float64
        lengths = torch.as_tensor(tree.row_start).diff()
        row_M = torch.repeat_interleave(torch.arange(len(tree.rows)), lengths).to(device)
        sums.append(torch.zeros(len(tree.rows), device=device).index_add(0, row_M, weight_M * logprob_K[target_M]))
        order += tree.rows.tolist()
    place_R = torch.empty(len(order), dtype=torch.long)
    place_R[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(sums)[place_R.to(sums[0].device)]


def accumulate(forward: Forward, trees: Sequence[TokenTree]) -> float:
    """Add up the gradient of the mean over all target weights of all trees; returns that loss, in nats.

    Normalising by the global sum makes the split into trees without effect.
    """
    weight = sum(float(tree.weight.sum()) for tree in trees)
    loss = 0.0
    for tree in trees:
        weight_K = torch.as_tensor(tree.weight, dtype=torch.float32).to(forward.device)
        part = likelihood(forward.logprobs(tree), weight_K) / weight
        part.backward()
        loss += float(part.detach())
    return loss


def likelihood(logprobs_K: Tensor, weight_K: Tensor) -> Tensor:
    """The weighted negative log-likelihood of a tree's targets, summed."""
    return -(logprobs_K * weight_K.to(logprobs_K.dtype)).sum()
